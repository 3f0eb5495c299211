"""A trace and a flame graph of a workload, made after everything was measured: both slow down what they look at."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fovcache.builder.progress import OnProgress, Progress
from fovcache.errors import FovcacheError

from .flame import Flame
from .replay import replay, wrapped
from .result import Profile
from .trace import Trace
from .workload import Workload

logger = logging.getLogger(__name__)

_NUM_FLAME_BATCHES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorders:
    """What was asked for. Made before anything is measured, so that what cannot be is known then."""

    trace: Trace | None = None
    """Of a few steps."""
    flame: Flame | None = None
    """Of a few more."""
    problems: tuple[str, ...] = ()
    """What cannot be recorded, and why."""

    @classmethod
    def of(cls, trace: Path | None, flame: Path | None, device: torch.device) -> Recorders:
        """For a folder and a file. Raises UsageError for a file whose name says no format."""
        found = cls(flame=Flame(flame) if flame is not None else None)
        if trace is None:
            return found
        try:
            return replace(found, trace=Trace(trace, device))
        except FovcacheError as error:
            return replace(found, problems=(_said(f"no trace: {error}"),))

    def run(self, profile: Profile, workload: Workload, on_progress: OnProgress) -> Profile:
        """The profile with what was recorded, and with warnings for what was not."""
        recordings: dict[str, Any] = {}
        problems = list(self.problems)
        if self.trace is not None:
            on_progress(Progress(stage="trace", done=0, total=0))
            try:
                recordings["trace"] = _document(_traced(workload, self.trace))
            except FovcacheError as error:
                problems.append(_said(f"no trace: {error}"))
        if self.flame is not None:
            on_progress(Progress(stage="flame graph", done=0, total=0))
            with self.flame:
                replay(workload, _NUM_FLAME_BATCHES)
            if self.flame.result is not None:
                recordings["flame"] = _document(self.flame.result)
            else:
                problems.append(f"no flame graph: {self.flame.problem}")  # of which it has warned
        return replace(profile, recordings=recordings, warnings=(*profile.warnings, *problems))


def _traced(workload: Workload, trace: Trace) -> Any:
    with trace:
        replay(wrapped(workload, trace.wrap), trace.num_steps, after_batch=trace.step)
    return trace.result()


def _said(problem: str) -> str:
    logger.warning(problem)
    return problem


def _document(result: Any) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(result).items()}
