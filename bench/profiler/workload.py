"""What is profiled: where samples come from, and the stages that they pass, alone or as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fovcache.errors import UsageError, nearest
from fovcache.pipeline.stage import Stage

from .device import DeviceTimer, HostDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A pipeline that trains: samples are prepared one by one, then used up in batches.

    A sample that fails on the way fills no place in a batch.
    """

    source: Callable[[], Iterator[Any]]
    """Begins anew on each call and gives samples without end."""
    steps: tuple[Stage, ...]
    """In order, on the device, all in one thread (not the one that asked for the profile); at least one.

    The first is given a list of `batch_size` items. `max_queued` and `max_queued_bytes` of the first bound what waits
    before the step.
    """
    inputs: tuple[Stage, ...] = ()
    """In order, for one sample at a time, on threads of their own where the stages overlap."""
    batch_size: int = 1
    """Samples a step."""
    device: DeviceTimer = field(default_factory=HostDevice)
    """Where the steps run."""
    is_prefetched: bool = True
    """False: the inputs run in the training thread, as with a DataLoader without workers; `num_workers` is ignored."""
    num_distinct: int | None = None
    """Samples after which the source begins again; None where it is not known."""
    uri_of: Callable[[Any], str] = str
    """What to call the item that a stage failed on."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; expected at least 1")
        ids = [stage.id for stage in self.stages]
        if not self.steps or len(set(ids)) < len(ids):
            raise UsageError(f"the stages are {ids}; expected at least one step, and each with an id of its own")
        alone = [stage.id for stage in self.stages if stage.regroup or stage.in_caller or stage.in_step]
        if alone:
            raise UsageError(f"stages {alone} regroup, go in step or choose their thread; a profile does that itself")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All, in order."""
        return (*self.inputs, *self.steps)

    @property
    def max_queued(self) -> int:
        """Samples that may wait before the step."""
        return max(self.steps[0].max_queued, self.batch_size)

    @property
    def num_workers(self) -> dict[str, int]:
        """By input stage: its threads, 0 in the training thread."""
        return {stage.id: stage.num_workers if self.is_prefetched else 0 for stage in self.inputs}

    def with_workers(self, num_workers: Mapping[str, int]) -> Workload:
        """With other numbers of threads, `{input stage: threads}`. Raises UsageError for a stage that there is not."""
        ids = [stage.id for stage in self.inputs]
        for stage_id in num_workers:
            if stage_id not in ids:
                raise UsageError(f"no input stage {stage_id!r}{nearest(stage_id, ids)}")
        inputs = (replace(stage, num_workers=num_workers.get(stage.id, stage.num_workers)) for stage in self.inputs)
        return replace(self, inputs=tuple(inputs))

    def with_batch_size(self, batch_size: int) -> Workload:
        """With another batch size."""
        return replace(self, batch_size=batch_size)
