"""A stage: one step of a pipeline, with the resource that it uses."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import SampleError, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step. What it is given and what it returns are its own affair; the order of items never changes."""

    id: str
    """Stable name, as in reports: `fetch`, `decode`, `encode`, `write`."""
    name: str
    """What people know it by."""
    resource: str
    """What it uses up: `network`, `cpu`, `gpu`, `disk`. Stages of one resource share its capacity."""
    run: Callable[[Any], Any]
    """One item (or unit, see `regroup`) in, one out. A SampleError makes it a Failed; any other error ends the run."""
    num_workers: int = 1
    """Threads, at least 1."""
    max_queued: int = 16
    """Items that may wait before this stage, those that wait for their turn included; at least 1."""
    max_queued_bytes: int | None = None
    """Their bytes, by the `size_of` of the stage before; None for no bound.

    The item whose turn it is next enters in any case, so what waits exceeds either bound by one item at most.
    """
    size_of: Callable[[Any], int] | None = None
    """The bytes of what `run` returned; None counts 0. A Failed counts as what it was made from."""
    timeout_s: float | None = None
    """After this long in `run` an item is a transient failure and its thread is left behind; None waits for ever."""
    regroup: Callable[[Iterator[Any]], Iterator[Any]] | None = None
    """Makes units out of the items in order, Failed ones among them; `run` is then called for each unit.

    It is iterated by the stage's only worker. Its time is busy time but for the waits for its items.
    """
    niceness: int = 0
    """By how much its threads give way to others, 0 to 19, where the system can say so of a single thread (Linux)."""
    in_step: bool = False
    """The stage before does not begin its next item until this one has finished what it was handed: with `regroup`,
    the unit that the item completes. Nothing is ever computed that waits; for stages of one worker each."""
    in_caller: bool = False
    """Runs in the thread that iterates the pipeline's results, where signals arrive; later stages' results are handed
    out between its items."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "max_queued"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of stage {self.id!r} is {getattr(self, name)}; expected at least 1")
        if self.max_queued_bytes is not None and self.max_queued_bytes < 1:
            raise UsageError(f"max_queued_bytes of stage {self.id!r} is {self.max_queued_bytes}; expected at least 1")
        if self.timeout_s is not None and not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UsageError(f"timeout_s of stage {self.id!r} is {self.timeout_s}; expected more than 0 s")
        if not 0 <= self.niceness <= 19 or (self.niceness and self.in_caller):
            what = "a thread that is not its own" if self.in_caller else "0 to 19"
            raise UsageError(f"niceness of stage {self.id!r} is {self.niceness}, for {what}; expected 0 to 19")
        if self.num_workers > 1 and (self.regroup or self.in_caller):
            what = "regroups its items" if self.regroup else "runs in the caller's thread"
            raise UsageError(f"stage {self.id!r} {what} and has {self.num_workers} workers; expected 1")
        if self.in_step and self.num_workers > 1:
            raise UsageError(f"stage {self.id!r} goes in step and has {self.num_workers} workers; expected 1")
        if self.in_caller and self.timeout_s is not None:
            raise UsageError(f"stage {self.id!r} runs in the caller's thread, which knows no timeout_s")

    def apply(self, item: Any) -> Any:
        """`run`, with a SampleError as a Failed; what failed before is passed on untouched."""
        if isinstance(item, Failed):
            return item
        try:
            return self.run(item)
        except SampleError as error:
            logger.debug("%s failed", self.id, exc_info=error)
            # Tracebacks would keep the frames of `run`, and all they hold, alive as long as the failure.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return Failed(error=error, item=item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What an item is after a stage failed on it: later stages pass it on, in its turn, and the consumer gets it."""

    error: SampleError
    """Stage, reason, and whether trying again can help."""
    item: Any
    """What the stage was given."""


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Raise UsageError for stages that cannot be joined."""
    ids = [stage.id for stage in stages]
    if not ids or len(set(ids)) < len(ids):
        raise UsageError(f"the stages are {ids}; expected at least one, each with an id of its own")
    in_caller = [stage.id for stage in stages if stage.in_caller]
    if len(in_caller) > 1:
        raise UsageError(f"stages {in_caller} all run in the caller's thread; expected at most one")
    for before, stage in zip((None, *stages), stages, strict=False):
        if stage.max_queued_bytes is not None and (before is None or before.size_of is None):
            where = f"stage {before.id!r} has no size_of" if before else "it is the first stage"
            raise UsageError(f"max_queued_bytes of stage {stage.id!r} would be ignored: {where}")
        if stage.in_step and before is not None and before.num_workers > 1:
            has = f"which has {before.num_workers} workers"
            raise UsageError(f"stage {stage.id!r} goes in step with {before.id!r}, {has}; expected 1")
