"""What the figures of controlled training show, in words: a caption for everybody, and the picture's content."""

from __future__ import annotations

from fovcache.probes.train.result import DONE, FAILED, Run, TrainSuite

from .attention_maps import MAX_FRAMES, looking_runs, shown_maps, shown_samples
from .figures import is_drawable
from .names import listed, shown
from .numbers import ABSENT, count, counted, digits, long_duration, percent, spanned
from .train_curves import shown_arms, shown_looks
from .train_forest import CONTROL, DIAGNOSTIC, HOLDS, groups, number_form
from .train_runs import (
    arms,
    diagnostics,
    done,
    metric_of,
    of_control,
    over_seeds,
    runs_of,
    series,
    sizes,
    task_name,
    tasks,
)
from .train_time import mean_spent, time_rows

_MAX_SPOKEN = 40


def verdict_caption(suite: TrainSuite) -> str:
    """How to read the verdict's forest plot."""
    every = [each for group in groups(suite) for each in group.conditions]
    text = (
        f"What the verdict's conditions are about, in {shown(metric_of(suite), 40)}: mean over the seeds and interval, "
        f"whose level stands behind it; the line is no difference. {sizes(suite)}"
    )
    if any(each.per_seed for each in every):
        text += " Small marks: each seed's own."
    if any(each.within for each in every):
        text += " Grey: bounds in which the whole interval must lie for two to count as equal."
    kinds = {group.kind for group in groups(suite)}
    if CONTROL in kinds:
        text += " On the negative control the same comparison should find no benefit."
    if DIAGNOSTIC in kinds:
        text += f" What is called {DIAGNOSTIC} compares two modes of one model, and is no condition."
    num = len(suite.verdict.conditions if suite.verdict else ()) + len(of_control(suite)) + len(diagnostics(suite))
    hidden = num - len(every)
    return text + (f" {count(hidden)} more have no number, and stand in the table alone." if hidden else "")


def verdict_alt(suite: TrainSuite) -> str:
    """The forest's content."""
    parts = []
    for group in groups(suite):
        for each in group.conditions:
            form = number_form(each)
            state = DIAGNOSTIC if group.kind == DIAGNOSTIC else HOLDS[each.holds]
            parts.append(
                f"{shown(each.name, 60)} {form(each.mean or 0.0)} ({spanned(each.ci, form)}; {shown(group.title, 60)}; "
                f"{state})"
            )
    return f"Verdict. {_joined(parts)}."


def loss_caption(suite: TrainSuite) -> str:
    """How to read the curves of the compared value."""
    text = (
        f"Validation {shown(metric_of(suite), 40)} against training samples: mean over the seeds that are done, and "
        f"from the lowest to the highest of them as a band, which is no interval. {sizes(suite)} "
    )
    return text + _early(suite) + _cut(suite)


def loss_alt(suite: TrainSuite) -> str:
    """Where the curves end."""
    return f"Validation {shown(metric_of(suite), 40)} at the end. {_joined(_ends(suite, metric_of(suite)))}."


def looks_caption(suite: TrainSuite) -> str:
    """How to read the entropies."""
    text = (
        "How queries look, on the validation set: attention entropy is divided by ln N of N tokens, so that 1 (dashed) "
        "looks at all of them alike and 0 at one; query diversity is the mean cosine distance between queries "
        "predicted for a sample. Mean over the seeds that are done, and from the lowest to the highest of them as a "
        f"band, which is no interval. {sizes(suite)} "
    )
    return text + _early(suite) + _cut(suite)


def looks_alt(suite: TrainSuite) -> str:
    """Where the curves end."""
    said = [f"{shown(name, 40)}: {_joined(_ends(suite, name))}" for name in shown_looks(suite)]
    return f"At the end. {'. '.join(said)}."


def attention_caption(suite: TrainSuite) -> str:
    """How to read the maps."""
    runs = ", ".join(f"{shown(run.arm, 40)} with seed {run.seed}" for run in looking_runs(suite))
    samples = shown_samples(suite)
    text = (
        f"Attention of queries to the patches of each frame, mean over heads, by the first run that is done of each: "
        f"{runs}. {'Samples' if len(samples) > 1 else 'Sample'} of the validation set: {listed(samples)}; frames are "
        "numbered. One scale of colours for all pictures, by the square root of the attention."
    )
    longest = max((len(each.frames) for row in shown_maps(suite) for each in row.maps if each), default=0)
    if longest > MAX_FRAMES:
        text += f" Only the first {MAX_FRAMES} of {count(longest)} frames."
    return text


def attention_alt(suite: TrainSuite) -> str:
    """How much the patch that is looked at most gets."""
    parts = []
    for row in shown_maps(suite):
        values = (value for each in row.maps if each for frame in each.frames for line in frame for value in line)
        highest = max(filter(is_drawable, values), default=0.0)
        parts.append(f"{shown(row.run.arm, 40)}, query {shown(row.name, 40)}: at most {digits(highest, 2)} to a patch")
    return f"Attention by frame. {_joined(parts)}."


def time_caption(suite: TrainSuite) -> str:
    """How to read the bars."""
    rows = time_rows(suite)
    text = "Wall time of a run by what it goes to, the mean over the seeds. "
    if any(row.planned for row in rows):
        text += "Above, pale: as planned from a measured warm-up; below: as it was. "
    if any(run.plan and run.plan.wall_ci95_s for row in rows for run in row.runs):
        text += "Line on the plan: its 95 % interval, the ends' mean over the seeds. "
    left = len(suite.runs) - sum(len(row.runs) for row in rows)
    if left:
        text += f"In the table alone: {counted(left, 'run')} that ended early or did not run at once. "
    unplanned = sum(len(row.runs) - len(row.planned) for row in rows)
    if unplanned:
        text += f"Without a plan: {counted(unplanned, 'run')}. "
    return text.strip()


def time_alt(suite: TrainSuite) -> str:
    """The bars' content."""
    parts = []
    for row in time_rows(suite):
        took = sum(mean_spent([run.spent for run in row.runs], part) for part in ("compute_s", "data_s"))
        wall = sum(run.spent.wall_s for run in row.runs) / len(row.runs)
        planned = [run.plan.spent.wall_s for run in row.runs if run.plan]
        said = long_duration(sum(planned) / len(planned)) if planned else ABSENT
        parts.append(f"{row.name}: planned {said}, took {long_duration(wall)}, {percent(took / wall)} of it steps")
    return f"Time of a run. {_joined(parts)}."


def _ends(suite: TrainSuite, name: str) -> list[str]:
    parts = []
    for task in tasks(suite):
        for arm in shown_arms(suite):
            runs = runs_of(suite, task, arm)
            if points := over_seeds(done(runs), name):
                last = points[-1]
                parts.append(
                    f"{shown(arm, 40)} on the {shown(task_name(task), 40)} {digits(last.mean)} "
                    f"({digits(last.low)} to {digits(last.high)} of {count(last.num)} seeds, after "
                    f"{count(last.samples)} samples)"
                )
            parts += [_broken(run, name) for run in runs if run.state != DONE and series(run, name)]
    return parts


def _broken(run: Run, name: str) -> str:
    samples, value = series(run, name)[-1]
    return (
        f"{shown(run.arm, 40)} on the {shown(task_name(run.task), 40)}, seed {run.seed}, which {_said(run)} after "
        f"{count(samples)} samples at {digits(value)}"
    )


def _said(run: Run) -> str:
    return "failed" if run.state == FAILED else "was stopped"


def _early(suite: TrainSuite) -> str:
    """Of runs that are no part of means and bands."""
    early = [run for run in suite.runs if run.state != DONE]
    if not early:
        return ""
    text = "Dashed: seeds that failed or were stopped, up to their last evaluation; they are in no mean and no band. "
    unseen = sum(not run.evaluations for run in early)
    return text + (f"{count(unseen)} of them ended before their first evaluation. " if unseen else "")


def _cut(suite: TrainSuite) -> str:
    hidden = len(arms(suite)) - len(shown_arms(suite))
    return f"{count(hidden)} more arms are in the table alone." if hidden else ""


def _joined(parts: list[str]) -> str:
    more = f"; and {count(len(parts) - _MAX_SPOKEN)} more" if len(parts) > _MAX_SPOKEN else ""
    return "; ".join(parts[:_MAX_SPOKEN]) + more
