"""Training runs in processes of their own, some at a time: what becomes of one is no matter of the others."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fovcache.builder.progress import Progress
from fovcache.child_process import start_child
from fovcache.errors import environment_failure
from fovcache.typed_json import revive

from ...running.ended import error_of, how_ended, last_words
from ..result import Plan, Run
from .suite_config import Cell
from .worker import request

logger = logging.getLogger(__name__)

SAVING_S = 600.0
"""A run that was asked to save and end, and has not by then, is killed."""
_LOOK_EVERY_S = 1.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


OnPlan = Callable[[Cell, Plan], None]
"""Told of each run before it trains."""


def unheard(cell: Cell, plan: Plan) -> None:
    """Nobody reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run that is to be done."""

    cell: Cell
    """Which."""
    folder: Path
    """Where it writes."""
    resume: bool = False
    """Whether it goes on from its last checkpoint."""
    plan_only: bool = False
    """Whether it is only planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run's process is gone."""

    asked: Asked
    """What it was for."""
    run: Run | None = None
    """What the run came to; None where the process did not tell."""
    error: Exception | None = None
    """What it raised on purpose."""
    how: str = ""
    """How it ended, in words."""


@dataclass(slots=True, kw_only=True)
class _Running:
    asked: Asked
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    read: bytes = b""
    run: Run | None = None
    error: Exception | None = None


class RunProcesses:
    """At most `jobs` at a time, each with `num_threads` threads."""

    def __init__(
        self,
        *,
        jobs: int,
        num_threads: int,
        on_progress: Callable[[Cell, Progress], None] = lambda *_: None,
        on_plan: OnPlan = unheard,
    ) -> None:
        self._jobs, self._num_threads, self._on_progress, self._on_plan = jobs, num_threads, on_progress, on_plan
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Running] = {}
        self._logged: set[str] = set()

    def run(self, asked: Sequence[Asked]) -> Iterator[Ended]:
        """Do them all, and tell of each when it has ended. Raises EnvironmentFailure where no process can be started.

        Where the caller does not want the rest, `stop` must be called.
        """
        waiting = deque(asked)
        while waiting or self._running:
            while waiting and len(self._running) < self._jobs:
                self._start(waiting.popleft())
            yield from self._wait(None)

    def stop(self, saving_s: float = SAVING_S) -> list[Ended]:
        """Ask all that run to save and end, and wait for them; what is not gone by then, or when this is interrupted,
        is killed."""
        ended: list[Ended] = []
        deadline = time.monotonic() + saving_s
        try:
            for running in self._running.values():
                _close(running.process.stdin)
            while self._running and time.monotonic() < deadline:
                ended += self._wait(deadline - time.monotonic())
        finally:
            for running in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGKILL)
            while self._running:
                ended += self._wait(None)
        return ended

    def _start(self, asked: Asked) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        threads = dict.fromkeys(_THREADS, str(self._num_threads))
        try:
            process = start_child("fovcache.probes.train.suite.worker", environment=threads, stderr=said)
        except OSError as error:
            raise environment_failure(error, "start a process that trains") from error
        assert process.stdin is not None
        assert process.stdout is not None
        running = _Running(asked=asked, process=process, said=said)
        self._running[process.pid] = running
        self._selector.register(process.stdout, selectors.EVENT_READ, running)
        cell = asked.cell
        message = request(
            cell.config,
            asked.folder,
            seed=cell.seed,
            arm=cell.arm,
            task=cell.task,
            resume=asked.resume,
            plan_only=asked.plan_only,
        )
        with contextlib.suppress(BrokenPipeError):  # its output says what became of it
            process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            process.stdin.flush()

    def _wait(self, timeout_s: float | None) -> list[Ended]:
        """Take in what is told, until something is; those that ended."""
        ended = []
        for key, _ in self._selector.select(_LOOK_EVERY_S if timeout_s is None else min(timeout_s, _LOOK_EVERY_S)):
            running: _Running = key.data
            data = os.read(key.fd, 1 << 16)
            *lines, running.read = (running.read + data).split(b"\n")
            for line in lines:
                self._take(running, line)
            if not data:
                self._selector.unregister(key.fileobj)
                del self._running[running.process.pid]
                ended.append(_ended(running))
        for running in self._running.values():
            _end_orphans(running.process)
        return ended

    def _take(self, running: _Running, line: bytes) -> None:
        message = json.loads(line)
        if "log" in message:
            name, level, text = message["log"]
            if text not in self._logged:  # what is the dataset's is so for every run
                logging.getLogger(name).log(level, "%s: %s", running.asked.cell, text)
            self._logged.add(text)
        elif "error" in message:
            running.error = error_of(message["error"])
        elif "run" in message:
            running.run = revive(Run, message["run"])
        elif "plan" in message:
            self._on_plan(running.asked.cell, revive(Plan, message["plan"]))
        elif "progress" in message:
            self._on_progress(running.asked.cell, revive(Progress, message["progress"]))


def _ended(running: _Running) -> Ended:
    process = running.process
    status = process.wait()
    _close(process.stdin)
    _close(process.stdout)
    how = f"the process that ran it {how_ended(status)}{last_words(running.said)}"
    running.said.close()
    return Ended(asked=running.asked, run=running.run, error=running.error, how=how)


def _end_orphans(process: subprocess.Popen[bytes]) -> None:
    """Of a process that is gone, end those that it started: they would hold its pipe open."""
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    with contextlib.suppress(OSError):
        pipe.close()
