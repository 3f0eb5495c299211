"""`--trace DIR`: a few steps under torch.profiler, with our stages as ranges.

The file is a Chrome trace: Perfetto opens it, and TensorBoard with torch-tb-profiler loads the folder. It shows what
happens in which order and on which thread or stream. It is no measurement of how long things take: the profiler slows
each operation, more the shorter it is, and some of that can remain in the process afterwards, so a trace is made after
everything has been measured. Its device work is what has `cat == "kernel"`; a range holds the ranges and operations
inside it, so that times of ranges do not add up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fovcache.errors import EnvironmentFailure, UsageError, environment_failure

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_NOTHING: AbstractContextManager[object] = contextlib.nullcontext()


class ProfileTraceError(EnvironmentFailure):
    """A trace could not be made, or does not hold what was asked for; what was written is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceResult:
    """A trace that was written, as read back from its file."""

    file: Path
    """`NAME.pt.trace.json` in the folder that was asked for."""
    size_bytes: int
    """Of the file."""
    num_events: int
    """With a duration: operations, ranges, kernels."""
    num_kernels: int
    """Events with `cat == "kernel"`; on a CPU, none."""
    ranges: dict[str, int]
    """By stage id: how often it ran in the traced steps."""
    missing: tuple[str, ...]
    """Stages that ran in the traced steps and are not in the file."""


class Trace:
    """Records some steps of a run, after some that warm the profiler up.

        with Trace(folder, "cuda") as trace:
            while not trace.is_done:
                with trace.range("encode"):
                    ...
                trace.step()
        trace.result()

    Entered, stepped and left in one thread; ranges may be in any. Use `trace_run` unless the loop is yours.
    """

    def __init__(
        self, folder: Path | str, device: torch.device | str, *, active_steps: int = 3, warmup_steps: int = 1
    ) -> None:
        """Makes the folder. Raises EnvironmentFailure where it cannot be written."""
        import torch

        if active_steps < 1 or warmup_steps < 1:
            what = f"{warmup_steps} to warm up and {active_steps} to record"
            raise UsageError(f"a trace of {what} steps: expected at least 1 of each, as the first is never typical")
        self.num_steps = warmup_steps + active_steps
        """Steps that the run must have for a whole trace."""
        self._schedule = {"wait": 0, "warmup": warmup_steps, "active": active_steps, "repeat": 1}
        self._device = torch.device(device)
        self._folder = _writable(Path(folder))
        self._file: Path | None = None
        self._profiler: torch.profiler.profile | None = None
        self._num_stepped = 0
        self._is_recording = False
        self._lock = threading.Lock()
        self._ran: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Every step was made: what follows is not recorded."""
        return self._num_stepped >= self.num_steps

    def step(self) -> None:
        """A step (a batch) has ended."""
        if self._profiler is None or self.is_done:
            return
        self._num_stepped += 1
        self._is_recording = self._schedule["warmup"] <= self._num_stepped < self.num_steps
        self._profiler.step()

    def range(self, stage_id: str) -> AbstractContextManager[object]:
        """What runs inside is shown as this stage, on the thread that it runs on. Costs nothing while none records."""
        if not self._is_recording:
            return _NOTHING
        import torch

        with self._lock:
            self._ran.add(stage_id)
        return torch.profiler.record_function(stage_id)

    def wrap(self, stage_id: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The same function inside `range`, for stages whose `run` is to be traced."""

        def traced(*arguments: Any) -> Any:
            with self.range(stage_id):
                return run(*arguments)

        return traced

    def result(self) -> TraceResult:
        """What the file holds. Raises ProfileTraceError where there is none, or no kernel although CUDA was used."""
        if self._file is None:
            warmup = self._schedule["warmup"]
            raise ProfileTraceError(
                f"no trace was recorded: the run ended after {self._num_stepped} steps; expected more than {warmup}, "
                f"which warm up, and {self.num_steps} for a whole trace"
            )
        events = _events(self._file)
        durations = [event for event in events if event.get("ph") == "X" and "dur" in event]
        names = [event.get("name") for event in durations if event.get("cat") == "user_annotation"]
        ran = sorted(self._ran)
        found = TraceResult(
            file=self._file,
            size_bytes=self._file.stat().st_size,
            num_events=len(durations),
            num_kernels=sum(event.get("cat") == "kernel" for event in durations),
            ranges={name: names.count(name) for name in ran if name in names},
            missing=tuple(name for name in ran if name not in names),
        )
        if self._device.type == "cuda" and not found.num_kernels:
            raise ProfileTraceError(
                f"the trace has no GPU kernel, though it was asked for on {self._device}: {_no_kernels()}; "
                f"what was recorded of the CPU is kept in {self._file}"
            )
        if found.missing:
            logger.warning("not in the trace, though they ran meanwhile: %s", ", ".join(found.missing))
        return found

    def __enter__(self) -> Trace:
        import torch

        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda" and torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(**self._schedule),
            on_trace_ready=self._write,
            # Stages run in threads that are older than the profiler, which else sees its own and new ones alone.
            experimental_config=torch._C._profiler._ExperimentalConfig(profile_all_threads=True),
        )
        self._profiler.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_recording = False
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        with warnings.catch_warnings():
            # A run that ends while the profiler warms up is told about in `result`.
            warnings.filterwarnings("ignore", message="Profiler won't be using warmup")
            profiler.__exit__(kind, error, traceback)

    def _write(self, profiler: torch.profiler.profile) -> None:
        self._is_recording = False
        # The name that torch-tb-profiler looks for. Before the first dot, people's own tools put the host's name.
        file = self._folder / f"fovcache.{time.time_ns()}.pt.trace.json"
        try:
            profiler.export_chrome_trace(str(file))
        except (OSError, RuntimeError) as error:
            raise ProfileTraceError(f"the trace cannot be written to {file}: {error}") from error
        if not file.exists():
            raise ProfileTraceError(f"the trace was not written to {file}: is the disk full?")
        self._file = file


def trace_run(
    run: Callable[[Trace], None],
    folder: Path | str,
    device: torch.device | str,
    *,
    active_steps: int = 3,
    warmup_steps: int = 1,
) -> TraceResult:
    """Trace what `run` does with a Trace: its stages inside `trace.range(id)`, `trace.step()` after each batch.

    It makes `trace.num_steps` of them; further ones are not recorded. Raises what `run` raises, and ProfileTraceError.
    """
    trace = Trace(folder, device, active_steps=active_steps, warmup_steps=warmup_steps)
    with trace:
        run(trace)
    return trace.result()


def _writable(folder: Path) -> Path:
    """The folder, made, after a file could be written into it."""
    probe = folder / f".fovcache-{os.getpid()}-{time.time_ns()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"traces cannot be written to {folder}: it, or what it lies in, is a file") from error
    except OSError as error:
        raise environment_failure(error, f"write traces to {folder}") from error
    return folder


def _events(file: Path) -> list[dict[str, Any]]:
    try:
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProfileTraceError(f"the trace {file} is no Chrome trace: {error}; is the disk full?") from error
    return [event for event in events if isinstance(event, dict)]


def _no_kernels() -> str:
    import torch

    if not torch.cuda.is_available():
        return "torch has no CUDA device here"
    return (
        "nothing ran on it in the traced steps, or CUPTI could not record, as when another profiler (nsys, ncu, dcgm) "
        "holds it or the driver keeps performance counters from users (NVreg_RestrictProfilingToAdminUsers=0 lets them)"
    )
