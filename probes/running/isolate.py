"""Running cells in a process that can end without taking the run with it.

What ends it (a crash, the end of memory, a kill, a limit of time) costs what it was at: those cells are run again, each
by itself, and one that ends its process again has no trial but a reason.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import signal
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fovcache.child_process import start_child
from fovcache.errors import EnvironmentFailure, UsageError, environment_failure

from .batches import Batch
from .ended import error_of, how_ended, last_words
from .events import AtWork, Event, Failed, event_of
from .memory import Room
from .result_folder import sweep
from .task import Task

_START_S = 120.0
"""A process that is not ready by then never will be."""


class Isolated:
    """An Executor. Its process starts at once, so as to load its libraries while the caller opens the input."""

    def __init__(self, timeout_s: float | None = None) -> None:
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise UsageError(f"a time limit of {timeout_s} s, expected more than 0, or none")
        self._timeout_s = timeout_s
        self._worker = _Worker()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()

    def run(self, task: Task, room: Room, folder: Path, batches: Sequence[Batch]) -> Generator[Event, None, None]:
        """As in Executor. Raises EnvironmentFailure also where no process can be started."""
        waiting = deque(batches)
        if waiting:
            self._open(task, room, folder)
        while waiting:
            batch = waiting.popleft()
            told: list[int] = []
            try:
                for event in self._worker.run(batch, self._timeout_s):
                    if not isinstance(event, AtWork):
                        told.append(event.cell)
                    yield event
            except _Ended as ended:
                why = self._worker.end(ended)
                sweep(folder)
                rest = batch.without(told)
                again = [] if rest is None else rest.again(is_trained=task.protocol.head.is_trained)
                if rest is not None and not again:
                    yield from (Failed(cell=index, reason=why) for index in rest.wanted)
                waiting.extendleft(reversed(again))
                if waiting:
                    self._worker = _Worker()
                    self._open(task, room, folder)

    def _open(self, task: Task, room: Room, folder: Path) -> None:
        from .worker import opening

        try:
            digest = self._worker.open(opening(task, room, folder))
        except _Ended as ended:
            raise EnvironmentFailure(f"cannot start running trials: {self._worker.end(ended)}") from None
        if digest != task.digest:
            raise UsageError("the cache was changed while its features were opened: run the same command again")


class _Ended(Exception):
    """A process that answers no more, or had to be ended for the reason that this says."""


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self) -> None:
        """Raises EnvironmentFailure."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            self._process = start_child("fovcache.probes.running.worker", stderr=self._said)
        except OSError as error:
            raise environment_failure(error, "start a process that runs trials") from error
        self._is_ready = False
        self._read = b""

    def open(self, message: Mapping[str, Any]) -> str:
        """Make it open a task; the task's digest, as it is there. Raises _Ended, and what opening raises."""
        self._ask({"open": message})
        if not self._is_ready:
            next(self._answers(_START_S))
            self._is_ready = True
        return str(next(self._answers(None))["opened"])

    def run(self, batch: Batch, timeout_s: float | None) -> Iterator[Event]:
        """What it tells. Raises _Ended, and what running raises."""
        self._ask({"run": asdict(batch)})
        for message in self._answers(timeout_s):
            if "finished" in message:
                return
            event = event_of(message)
            if event is None:
                raise _Ended("it answered nonsense")
            yield event

    def end(self, ended: _Ended | None = None) -> str:
        """Leave nothing of it; in words, why it ended. Any number of times."""
        if self._process.poll() is None and ended is not None and not str(ended):
            with contextlib.suppress(Exception):
                self._process.wait(1)  # its pipe closed first
        was_killed = self._process.poll() is None
        if was_killed:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        said = last_words(self._said)
        self._said.close()
        if was_killed:
            return f"the process that ran it was ended: {ended}"
        return f"the process that ran it {how_ended(status)}{said}"

    def _ask(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _Ended from error

    def _answers(self, timeout_s: float | None) -> Iterator[dict[str, Any]]:
        """Messages, for each of which is waited so long. What is logged there is logged here."""
        while True:
            try:
                message = json.loads(self._line(timeout_s))
            except (ValueError, RecursionError) as error:
                raise _Ended("it answered nonsense") from error
            if "log" in message:
                name, level, text = message["log"]
                logging.getLogger(name).log(level, "%s", text)
            elif "error" in message:
                raise error_of(message["error"])
            else:
                yield message

    def _line(self, timeout_s: float | None) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._read:
            left_s = None if timeout_s is None else max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                raise _Ended(f"nothing came of it for {timeout_s:g} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise _Ended
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line
