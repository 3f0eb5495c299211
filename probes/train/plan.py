"""The plan of a run: what a measured warm-up says that all of it will take, and how that compares with what it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .result import Plan, Run, Spent
from .settings import TrainSettings

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """What was measured before training, in seconds of wall time; a CUDA device is synchronised at each end."""

    compute_s: tuple[float, ...]
    """Of each measured step: forward, backward, optimiser."""
    data_s: tuple[float, ...]
    """Waiting for the batch of each of the same steps."""
    other_s: tuple[float, ...]
    """Logging of each of the same steps."""
    dropped_s: tuple[float, ...]
    """Whole steps that came before and are not counted: they compile, allocate and fill caches."""
    evaluation_s: tuple[float, ...]
    """Of each measured batch of the validation set."""
    batches_per_evaluation: int
    """Batches of the whole validation set."""
    checkpoint_s: tuple[float, ...]
    """Of each checkpoint that was written and removed again."""
    start_s: float
    """Of what comes once: opening the feed, building the model, the audit and this warm-up."""
    checkpoint_bytes: int
    """Of one checkpoint."""
    log_bytes_per_step: float
    """Of the log's lines, those of evaluations spread over steps."""
    memory_bytes: int
    """Peak: of the device, or of the process on the CPU."""

    def __post_init__(self) -> None:
        assert len(self.compute_s) == len(self.data_s) == len(self.other_s) >= 1, "three times of every step"
        assert self.evaluation_s, "at least one batch is measured"
        assert self.checkpoint_s, "at least one checkpoint is measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One part of a run's time: as planned, and as it was."""

    part: str
    """What it went to."""
    planned_s: float
    """Seconds."""
    actual_s: float
    """Seconds."""

    @property
    def ratio(self) -> float | None:
        """Actual by planned; None where nothing was planned."""
        return self.actual_s / self.planned_s if self.planned_s > 0 else None


def marks(settings: TrainSettings, every: int) -> tuple[int, ...]:
    """Samples seen after the steps that cross a multiple of `every`, and after the last step.

    A step that crosses several counts once.
    """
    size, num = settings.batch_size, settings.num_steps
    crossed = {-(-multiple // size) for multiple in range(every, num * size + 1, every)}
    return tuple(step * size for step in sorted(crossed | {num}))


def num_evaluations(settings: TrainSettings) -> int:
    """One before training, then at each mark."""
    return 1 + len(marks(settings, settings.evaluate_every))


def num_checkpoints(settings: TrainSettings) -> int:
    """That are written; the last `keep` stay."""
    return len(marks(settings, settings.checkpoint_every))


def make_plan(settings: TrainSettings, warmup: Warmup) -> Plan:
    """What the whole run will take, if it goes on as in the warm-up.

    Each part is the mean of its measured times by how many of it there will be. The interval is of the wall time that
    this run will have, a prediction interval: n times more of a part, m of them measured with standard deviation s,
    vary by n²·s²/m (the mean is only estimated) + n·s² (they will differ as the measured ones did), all parts' added;
    Student's t with Satterthwaite's degrees of freedom (1946). It takes times to be independent of each other: a
    machine that others make slower later is not in it. A part that was measured once adds nothing to it.
    """
    steps, evaluations, checkpoints = settings.num_steps, num_evaluations(settings), num_checkpoints(settings)
    batches = evaluations * warmup.batches_per_evaluation
    spent = Spent(
        compute_s=steps * _mean(warmup.compute_s),
        data_s=steps * _mean(warmup.data_s),
        evaluation_s=batches * _mean(warmup.evaluation_s),
        checkpoint_s=checkpoints * _mean(warmup.checkpoint_s),
        other_s=steps * _mean(warmup.other_s) + warmup.start_s,
    )
    whole_s = [sum(parts) for parts in zip(warmup.compute_s, warmup.data_s, warmup.other_s, strict=True)]
    half_s = _half_width([(steps, whole_s), (batches, warmup.evaluation_s), (checkpoints, warmup.checkpoint_s)])
    wall_s = spent.wall_s
    on_disk = min(checkpoints, settings.keep + 1)  # the new one is whole before the oldest goes
    return Plan(
        samples=steps * settings.batch_size,
        steps=steps,
        evaluations=evaluations,
        checkpoints=checkpoints,
        spent=spent,
        wall_ci95_s=None if half_s is None else (max(0.0, wall_s - half_s), wall_s + half_s),
        warmup_steps=len(warmup.compute_s),
        dropped_steps=len(warmup.dropped_s),
        disk_bytes=on_disk * warmup.checkpoint_bytes + math.ceil(steps * warmup.log_bytes_per_step),
        memory_bytes=warmup.memory_bytes,
    )


def plan_against_actual(run: Run) -> tuple[PartRow, ...]:
    """Part by part and in all; empty where there is no plan, or the run did not do all of it in one go."""
    if run.plan is None or run.num_resumed or run.steps < run.plan.steps:
        return ()
    planned, actual = run.plan.spent, run.spent
    names = ("compute", "data", "evaluation", "checkpoint", "other", "wall")
    return tuple(
        PartRow(part=name, planned_s=getattr(planned, f"{name}_s"), actual_s=getattr(actual, f"{name}_s"))
        for name in names
    )


def _half_width(parts: Sequence[tuple[int, Sequence[float]]]) -> float | None:
    variances, weights = [], 0.0
    for num, times_s in parts:
        if len(times_s) < 2:
            continue
        mean_s = _mean(times_s)
        variance = sum((each - mean_s) ** 2 for each in times_s) / (len(times_s) - 1)
        variances.append(num * variance * (num / len(times_s) + 1))
        weights += variances[-1] ** 2 / (len(times_s) - 1)
    total = sum(variances)
    if not total:
        return None
    from scipy.special import stdtrit  # scipy.stats would take longer to load than many a warm-up

    return float(stdtrit(total**2 / weights, (1 + LEVEL) / 2)) * math.sqrt(total)


def _mean(times_s: Sequence[float]) -> float:
    return math.fsum(times_s) / len(times_s)
