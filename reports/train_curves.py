"""What evaluations said against training samples: a line and a band over seeds for each arm, one panel a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fovcache.probes.train.result import FAILED, TrainSuite

from .figures import WIDTH_IN, drawable, log_ticks, new_figure
from .palette import LIGHT, Theme, mixed, series_colours
from .train_runs import arms, done, ended_early, look_names, metric_of, over_seeds, runs_of, series, task_name, tasks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ARMS = 10
"""More would share colours; the tables have all."""
MAX_LOOKS = 4
"""Of values that say how queries look; the table has all."""
_PANEL_IN, _LOW_PANEL_IN = 3.1, 2.2
_LETTERS_PER_IN = 13
_LOG_FROM = 10.0
"""Values whose largest is so many times the smallest are drawn on a logarithmic scale."""
_WIDEST, _NARROWEST = 2.6, 1.1
"""Of lines: the first arm's and the last's, which is drawn over it, so that both are seen where they agree."""


def shown_arms(suite: TrainSuite) -> list[str]:
    """As many as have colours."""
    return arms(suite)[:MAX_ARMS]


def shown_looks(suite: TrainSuite) -> list[str]:
    """Values that say how queries look, as far as they fit."""
    return look_names(suite)[:MAX_LOOKS]


def draw_loss(suite: TrainSuite, theme: Theme = LIGHT) -> Figure | None:
    """The compared value against training samples; None where no run was evaluated."""
    name = metric_of(suite)
    there = [task for task in tasks(suite) if _has(suite, task, name)]
    if not there:
        return None
    figure = new_figure(_PANEL_IN + 0.7)
    panels = figure.subplots(1, len(there), squeeze=False)[0]
    for axes, task in zip(panels, there, strict=True):
        _draw_panel(axes, suite, task, name, theme)
        axes.set_title(drawable(task_name(task), int(_LETTERS_PER_IN * WIDTH_IN / len(there))))
    panels[0].set_ylabel(drawable(f"validation {_words(name)}", 40))
    _legend(figure, suite, theme)
    return figure


def draw_looks(suite: TrainSuite, theme: Theme = LIGHT) -> Figure | None:
    """Entropies of attention and diversity of queries; a column for each, a row for each task; None without any."""
    names = shown_looks(suite)
    there = [task for task in tasks(suite) if any(_has(suite, task, name) for name in names)]
    if not there:
        return None
    figure = new_figure(_LOW_PANEL_IN * len(there) + 0.7)
    grid = figure.subplots(len(there), len(names), squeeze=False)
    for line, task in zip(grid, there, strict=True):
        for axes, name in zip(line, names, strict=True):
            _draw_panel(axes, suite, task, name, theme, is_look=True)
            if task == there[0]:
                letters = int(_LETTERS_PER_IN * WIDTH_IN / len(names))
                axes.set_title(drawable(_words(name), letters), fontsize=8.5)
            if task != there[-1]:
                axes.set_xlabel("")
        line[0].set_ylabel(drawable(task_name(task), 24))
    _legend(figure, suite, theme)
    return figure


def _has(suite: TrainSuite, task: str, name: str) -> bool:
    return any(series(run, name) for run in suite.runs if run.task == task and run.arm in shown_arms(suite))


def _draw_panel(axes: Axes, suite: TrainSuite, task: str, name: str, theme: Theme, *, is_look: bool = False) -> None:
    values: list[float] = []
    longest = 0
    for arm, (colour, width) in _lines(suite, theme).items():
        runs = runs_of(suite, task, arm)
        points = over_seeds(done(runs), name)
        at = [point.samples for point in points]
        axes.fill_between(
            at, [point.low for point in points], [point.high for point in points], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(
            at, [point.mean for point in points], color=colour, linewidth=width, marker="" if len(at) > 1 else "o",
            solid_capstyle="butt",
        )  # fmt: skip
        values += [end for point in points for end in (point.low, point.high)]
        longest = max([longest, *at])
        for run in ended_early(suite):
            if (run.task, run.arm) == (task, arm) and (found := series(run, name)):
                seen, said = zip(*found, strict=True)
                dark = mixed(colour, theme.ink, 0.5)  # seen over the mean, too
                axes.plot(seen, said, color=dark, linewidth=1.1, linestyle=(0, (3, 2)), zorder=3)
                _mark_end(axes, seen[-1], said[-1], colour, run.state == FAILED, theme)
                values += said
                longest = max(longest, seen[-1])
    axes.set_xlim(0, 1.02 * longest or 1)
    axes.set_xlabel("training samples", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y")
    _scale(axes, values, is_look)
    if "entropy" in name:
        axes.axhline(1, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 2)))


def _mark_end(axes: Axes, x: float, y: float, colour: str, is_failed: bool, theme: Theme) -> None:
    axes.plot(
        x, y, linestyle="", marker="X" if is_failed else "s", markersize=6.5 if is_failed else 5, color=colour,
        markerfacecolor=colour if is_failed else theme.paper, markeredgecolor=theme.paper if is_failed else colour,
        markeredgewidth=0.6 if is_failed else 1.5, zorder=4, clip_on=False,
    )  # fmt: skip


def _lines(suite: TrainSuite, theme: Theme) -> dict[str, tuple[str, float]]:
    """By arm: colour and width."""
    colours = series_colours(shown_arms(suite), theme)
    step = (_WIDEST - _NARROWEST) / max(len(colours) - 1, 1)
    return {arm: (colour, _WIDEST - step * place) for place, (arm, colour) in enumerate(colours.items())}


def _scale(axes: Axes, values: Sequence[float], is_look: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: _thousands(x))
    if is_look and values:
        axes.set_ylim(min(0.0, *values), max(1.0, *values) * 1.05)
    elif values and min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        axes.set_yscale("log")
        log_ticks(axes.yaxis, max(values) / min(values))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}".replace("-", "−"))


def _thousands(samples: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if samples >= size:
            return f"{samples / size:g}{letter}"
    return f"{samples:g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _legend(figure: Figure, suite: TrainSuite, theme: Theme) -> None:
    from matplotlib.lines import Line2D

    lines = _lines(suite, theme)
    handles = [Line2D([], [], color=colour, linewidth=width) for colour, width in lines.values()]
    names = [drawable(arm, 28) for arm in lines]
    early = [run for run in ended_early(suite) if run.arm in lines and run.evaluations]
    for is_failed, name in ((True, "a seed that failed"), (False, "a seed that was stopped")):
        if any((run.state == FAILED) == is_failed for run in early):
            face = theme.muted if is_failed else theme.paper
            mark = Line2D([], [], color=theme.muted, linewidth=1.1, linestyle=(0, (3, 2)), markersize=5)
            mark.set(marker="X" if is_failed else "s", markerfacecolor=face)
            handles.append(mark)
            names.append(name)
    num_columns = max(min(int(WIDTH_IN * _LETTERS_PER_IN / (8 + max(map(len, names)))), 6), 1)
    # Named afterwards: a label that starts with `_` would be left out.
    legend = figure.legend(
        handles, ["-"] * len(handles), loc="outside upper left", ncols=num_columns, frameon=False, handlelength=2.4
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
