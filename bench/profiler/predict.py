"""How fast the pipeline could run overlapped, from what its stages cost one at a time.

The bound is the slowest of: each input stage's seconds over its threads, all core-seconds over the cores, and the
training thread's chain of steps (on a device that works by itself: the device's). `simulation.py` adds what queues
and uneven costs take off.

Left out: the interpreter's lock, memory bandwidth, clocks that fall as more cores work, threads of one operation (such
as OpenMP's) that wait for the slowest among them when cores are short, other programs, a network or a server that slows
down under more requests, and on a device that works by itself the core that launches its work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fovcache.errors import UsageError, nearest
from fovcache.pipeline.bound import resource_times
from fovcache.pipeline.stage import Stage

from .overlapped import MAX_AHEAD
from .result import StageTimes
from .simulation import Server, simulated_s_per_sample
from .workload import Workload

CORES = "cores"
"""What bounds a pipeline whose stages want more cores than there are."""
DEVICE = "device"
"""What bounds it where the device works by itself and has no pause."""
STEP = "training thread"
"""What bounds it where that thread does the work itself, and has no pause."""

_NUM_SAMPLES = 1200
_MIN_BATCHES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What a stage demands of one sample."""

    id: str
    """As in StageTimes."""
    name: str
    """What people know it by."""
    resource: str
    """`network`, `disk`, `cpu`, `gpu`."""
    wall_s: float
    """Seconds of one worker for each sample that comes through; what failed samples took is in it."""
    core_s: float
    """Core-seconds for each sample that comes through."""
    units_s: tuple[float, ...] = ()
    """How long single samples (for a step: batches) took, in any unit; without them, all are taken to be alike."""
    num_workers: int = 1
    """Threads."""
    max_queued: int = 16
    """Samples that may wait before it."""

    def __post_init__(self) -> None:
        if not (self.wall_s >= 0 and self.core_s >= 0 and math.isfinite(self.wall_s + self.core_s)):
            raise UsageError(f"stage {self.id!r} takes {self.wall_s} s, {self.core_s} core-seconds; expected ≥ 0 s")
        if self.num_workers < 1 or self.max_queued < 1:
            raise UsageError(f"stage {self.id!r} has {self.num_workers} workers; expected at least 1")

    @property
    def worker_s(self) -> float:
        """Seconds between two samples if nothing else holds it up."""
        return self.wall_s / self.num_workers

    def durations_s(self, scale: float = 1.0) -> tuple[float, ...]:
        """`units_s` with `wall_s` times `scale` as their mean."""
        mean = fmean(self.units_s) if self.units_s else 0.0
        if not mean > 0:
            return (self.wall_s * scale,)
        return tuple(unit * self.wall_s * scale / mean for unit in self.units_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineModel:
    """A pipeline: input stages with their own threads, and steps that take batches one after the other."""

    inputs: tuple[StageCost, ...]
    """In order; may be empty."""
    steps: tuple[StageCost, ...]
    """In order; may be empty."""
    batch_size: int
    """Samples a step."""
    num_cores: float
    """That the process may use."""
    max_queued: int = 16
    """Samples that may wait before the steps."""
    is_async: bool = False
    """Does the device work by itself while the training thread goes on?"""
    is_prefetched: bool = True
    """Do the inputs have threads of their own? Else the training thread takes each sample through all of them."""
    max_ahead: int = MAX_AHEAD
    """Batches that the training thread may be ahead of a device that works by itself."""

    def __post_init__(self) -> None:
        if not (self.num_cores > 0 and self.batch_size >= 1 and self.max_queued >= 1 and self.max_ahead >= 0):
            raise UsageError(
                f"batches of {self.batch_size} on {self.num_cores} cores, {self.max_queued} samples queued; expected "
                "at least 1 and more than 0 cores"
            )

    @property
    def stages(self) -> tuple[StageCost, ...]:
        """All, in order."""
        return (*self.inputs, *self.steps)

    def bounds(self) -> dict[str, float]:
        """Seconds a sample that each input stage, the cores, and the steps allow at best."""
        step = DEVICE if self.is_async else STEP
        threads = {stage.id: stage.num_workers for stage in self.inputs} if self.is_prefetched else {STEP: 1}
        demands = [(stage.id if self.is_prefetched else STEP, stage.wall_s) for stage in self.inputs]
        demands += [(CORES, stage.core_s) for stage in (self.inputs if self.is_async else self.stages)]
        demands += [(step, stage.wall_s) for stage in self.steps]
        return resource_times(demands, {**threads, CORES: self.num_cores, step: 1})

    def without(self, *ids: str) -> PipelineModel:
        """Without these stages; unknown ids are fine."""
        return replace(
            self,
            inputs=tuple(stage for stage in self.inputs if stage.id not in ids),
            steps=tuple(stage for stage in self.steps if stage.id not in ids),
        )

    def with_input(self, stage: StageCost) -> PipelineModel:
        """With another input stage, the last one."""
        return replace(self, inputs=(*self.inputs, stage))

    def with_step(self, stage: StageCost) -> PipelineModel:
        """With another step, the first one."""
        return replace(self, steps=(stage, *self.steps))

    def with_workers(self, stage_id: str, num_workers: int) -> PipelineModel:
        """With as many threads for an input stage. Raises UsageError for one that there is not."""
        ids = [stage.id for stage in self.inputs]
        if stage_id not in ids:
            raise UsageError(f"no input stage {stage_id!r}{nearest(stage_id, ids)}")
        return replace(
            self,
            inputs=tuple(
                replace(stage, num_workers=num_workers) if stage.id == stage_id else stage for stage in self.inputs
            ),
        )

    def with_batch_size(self, batch_size: int, *, cost: float) -> PipelineModel:
        """With another batch size, where a step takes `cost` times as long for each sample as it does now."""
        return replace(
            self,
            batch_size=batch_size,
            max_queued=max(self.max_queued, batch_size),
            steps=tuple(replace(each, wall_s=each.wall_s * cost, core_s=each.core_s * cost) for each in self.steps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model comes to."""

    s_per_sample: float
    """Wall seconds for each sample that comes through, overlapped."""
    bound_s: float
    """The same if queues and uneven costs took nothing off."""
    limited_by: str
    """An input stage's id, CORES, DEVICE or STEP; empty where nothing takes any time."""


@functools.lru_cache(maxsize=64)
def predict(model: PipelineModel) -> Prediction:
    """How fast it would run overlapped."""
    bounds = model.bounds()
    limited_by = max(bounds, key=lambda each: bounds[each], default="")
    bound_s = bounds.get(limited_by, 0.0)
    if bound_s == 0:
        return Prediction(s_per_sample=0.0, bound_s=0.0, limited_by="")
    return Prediction(s_per_sample=max(bound_s, _simulated(model)), bound_s=bound_s, limited_by=limited_by)


def pipeline_model(
    workload: Workload,
    stages: Sequence[StageTimes],
    *,
    num_samples: int,
    num_cores: float,
    units_s: Mapping[str, Sequence[float]] | None = None,
) -> PipelineModel:
    """The model of a workload from its serial run: its rows, the samples that came through, single durations.

    Raises UsageError where a stage has no row.
    """
    rows = {times.id: times for times in stages}
    missing = [stage.id for stage in workload.stages if stage.id not in rows]
    if missing or num_samples < 1:
        raise UsageError(
            f"{num_samples} samples came through, and stages {missing} were not measured; expected at least 1 sample "
            "and all stages to predict from"
        )

    def cost(stage: Stage) -> StageCost:
        times = rows[stage.id]
        wall_s = times.total_s / num_samples
        return StageCost(
            id=stage.id,
            name=stage.name,
            resource=stage.resource,
            wall_s=wall_s,
            core_s=times.cpu_s * (wall_s / times.mean_s if times.mean_s > 0 else 1.0),
            units_s=tuple((units_s or {}).get(stage.id, ())),
            num_workers=stage.num_workers if workload.is_prefetched else 1,
            max_queued=stage.max_queued,
        )

    return PipelineModel(
        inputs=tuple(map(cost, workload.inputs)),
        steps=tuple(map(cost, workload.steps)),
        batch_size=workload.batch_size,
        num_cores=num_cores,
        max_queued=workload.max_queued,
        is_async=workload.device.is_async,
        is_prefetched=workload.is_prefetched,
    )


def _simulated(model: PipelineModel) -> float:
    if not (model.is_prefetched or model.is_async):
        return sum(stage.wall_s for stage in model.stages)
    size = model.batch_size
    cycle = max((len(stage.units_s) for stage in model.inputs), default=1) or 1
    num_cycles = math.ceil(max(_NUM_SAMPLES, _MIN_BATCHES * size) / cycle)  # whole ones: their mean is the mean
    num_batches = math.ceil(num_cycles * cycle / size)
    return simulated_s_per_sample(
        _input_servers(model),
        _step_server(model),
        batch_size=size,
        num_batches=num_batches,
        num_warm_up=math.ceil(num_batches / 4),
        num_cores=model.num_cores,
        max_ahead=model.max_ahead if model.is_async else 0,
    )


def _input_servers(model: PipelineModel) -> list[Server]:
    if model.is_prefetched:
        return [
            Server(
                durations_s=stage.durations_s(),
                cores=_cores(stage.core_s, stage.wall_s),
                num_workers=stage.num_workers,
                max_queued=stage.max_queued,
            )
            for stage in model.inputs
        ]
    return [_chain(model.inputs, 1)] if model.inputs else []


def _step_server(model: PipelineModel) -> Server:
    chain = _chain(model.steps, model.batch_size)
    return replace(chain, cores=0.0 if model.is_async else chain.cores, max_queued=model.max_queued)


def _chain(stages: Sequence[StageCost], num_samples: int) -> Server:
    """Stages that follow each other in one thread, `num_samples` at a time."""
    durations_s = [stage.durations_s(num_samples) for stage in stages]
    longest = max(map(len, durations_s), default=1)
    return Server(
        durations_s=tuple(sum(each[number % len(each)] for each in durations_s) for number in range(longest)),
        cores=_cores(sum(stage.core_s for stage in stages), sum(stage.wall_s for stage in stages)),
    )


def _cores(core_s: float, wall_s: float) -> float:
    return core_s / wall_s if wall_s > 0 else 0.0
