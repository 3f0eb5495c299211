"""Decoding in processes that can be killed, for input that nobody vouches for.

What hangs is killed, what crashes takes nothing with it, and what decodes may use so much memory and no more. No
sandbox: a process that is taken over can do what its user can.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from io import BufferedReader, BufferedWriter
from typing import Any, cast

import numpy as np

from ..child_process import start_child
from ..errors import EnvironmentFailure, FovcacheError, SampleError, UsageError, environment_failure
from .geometry import NATIVE, Geometry
from .limits import Limits
from .messages import Job, error_of, outcomes_of, receive
from .sampling import WHOLE, Sampling, Window
from .video import ClipOrError
from .video_file import VideoSource

MEMORY_BYTES = 4 << 30
"""Address space of a worker by default: frames of 8K, and some."""

_START_S = 60.0
"""A worker that is not ready by then never will be."""


class IsolatedDecoder:
    """Decodes as in this process, in `num_workers` others. Thread-safe: each call takes a free one.

    Processes start when they are first needed and are kept; one that is killed is replaced by the next call. They end
    when this one does, however it does.
    """

    def __init__(self, num_workers: int, timeout_s: float, *, memory_bytes: int = MEMORY_BYTES) -> None:
        if num_workers < 1 or not 0 < timeout_s <= threading.TIMEOUT_MAX or memory_bytes < 1:
            raise UsageError(
                f"{num_workers} workers, a timeout of {timeout_s} s, {memory_bytes} bytes; expected each above 0"
            )
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._num_workers = num_workers
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(num_workers):
            self._places.put(None)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._is_closed = False

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(
        self,
        source: VideoSource,
        sampling: Sampling,
        windows: Sequence[Window] = (WHOLE,),
        geometries: Sequence[Geometry] = (NATIVE,),
        *,
        limits: Limits | None = None,
        backend: str = "pyav",
    ) -> list[list[ClipOrError]]:
        """What the backend's own function gives; `pillow` decodes stills, the others videos.

        Raises SampleError for what takes too long (transient) or ends two processes that decode it (permanent),
        EnvironmentFailure where no process can be started.
        """
        job = Job(
            source=source,
            sampling=sampling,
            windows=tuple(windows),
            geometries=tuple(geometries),
            limits=limits or Limits(),
            backend=backend,
        )
        worker = self._places.get()
        try:
            if worker is None or not worker.is_usable:
                worker = self._replace(worker)
            try:
                return worker.decode(job)
            except _Ended:
                if worker.is_late or self._is_closed:
                    raise
            worker = self._replace(worker)  # the first may have been killed for another's sake, when memory ran out
            return worker.decode(job)
        except _Ended as error:
            assert worker is not None
            raise self._failure(worker, error) from None
        finally:
            self._places.put(worker)

    def close(self) -> None:
        """End all processes, those that decode included: their calls raise a transient SampleError."""
        with self._lock:
            self._is_closed = True
            for worker in self._workers:
                worker.kill()
        places = [self._places.get() for _ in range(self._num_workers)]
        for place in places:
            if place is not None:
                place.dispose()
            self._places.put(None)

    def _replace(self, worker: _Worker | None) -> _Worker:
        if worker is not None:
            worker.dispose()
        with self._lock:
            if self._is_closed:
                raise UsageError("this decoder is closed")
            self._workers.discard(worker)
            worker = _Worker(self._timeout_s, self._memory_bytes)
            self._workers.add(worker)
        try:
            worker.wait_until_ready()
        except _Ended as error:
            failure = self._failure(worker, error)
            raise EnvironmentFailure(
                f"a process that decodes cannot be started with {self._memory_bytes >> 20} MiB: {failure.reason}"
            ) from None
        return worker

    def _failure(self, worker: _Worker, error: _Ended) -> SampleError:
        worker.dispose()
        if self._is_closed:
            return SampleError("decode", "interrupted: the decoder was closed", permanent=False)
        return SampleError("decode", worker.why(error), permanent=not worker.is_late)


class _Ended(Exception):
    """A worker that answers no more, with what it said last."""


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        """Raises EnvironmentFailure."""
        self.is_late = False
        self._timeout_s = self._allowed_s = timeout_s
        self._memory_bytes = memory_bytes
        self._is_between_jobs = True
        limits = [str(memory_bytes), str(math.ceil(timeout_s) + 1)]
        try:
            self._process = start_child(
                f"{__package__}.worker",
                *limits,
                environment=_ENVIRONMENT,
                stderr=subprocess.DEVNULL,  # libraries' complaints about the input
            )
        except OSError as error:
            raise environment_failure(error, "start a process that decodes") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = cast("BufferedWriter", self._process.stdin)
        self._answers = cast("BufferedReader", self._process.stdout)

    @property
    def is_usable(self) -> bool:
        """Whether it waits for a job."""
        return self._is_between_jobs and not self.is_late and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Raises _Ended when it does not begin."""
        self._answer(None, _START_S)

    def decode(self, job: Job) -> list[list[ClipOrError]]:
        """Raises _Ended when it ends instead, or has to be ended."""
        header, payload = self._answer(job, self._timeout_s)
        try:
            if "error" in header:
                raise error_of(header["error"])
            if "refusal" in header:
                raise (EnvironmentFailure if header["is_environment"] else UsageError)(header["refusal"])
            return outcomes_of(header, payload)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FovcacheError):
                raise
            self.kill()
            raise _Ended("it answers nonsense") from error

    def kill(self) -> None:
        """End it, and what it started. Any thread may."""
        if self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def dispose(self) -> None:
        """Leave nothing of it."""
        self.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()

    def why(self, error: _Ended) -> str:
        """In words, how it ended; disposed of before."""
        if self.is_late:
            return f"it took longer than {self._allowed_s:g} s"
        if str(error):
            return f"the process that decodes it failed: {error}"
        status = self._process.returncode
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        memory = f" (it may use {self._memory_bytes >> 20} MiB)"
        return f"the process that decodes it ended {how}{memory}"

    def _answer(self, job: Job | None, timeout_s: float) -> tuple[dict[str, Any], np.ndarray]:
        """Send a job, if any, and wait for what comes back."""
        self._allowed_s = timeout_s
        timer = threading.Timer(timeout_s, self._end_late)
        timer.daemon = True
        timer.start()
        self._is_between_jobs = False
        try:
            if job is not None:
                job.send(self._requests)
            header, payload = receive(self._answers, self._memory_bytes)
        except (OSError, EOFError, ValueError, RecursionError) as error:
            self._process.wait()  # it ends, or is late
            raise _Ended from error
        finally:
            timer.cancel()
            timer.join()
        if "crash" in header:
            raise _Ended(str(header["crash"]))
        self._is_between_jobs = True
        return header, payload

    def _end_late(self) -> None:
        self.is_late = True
        self.kill()


_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Unused there, and each thread takes address space and time to start."""
