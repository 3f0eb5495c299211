"""Costs for pipelines, each of which records what it really took, by its own clock: the truth of a profile's tests."""

from __future__ import annotations

import functools
import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, ParamSpec

from fovcache.errors import SampleError
from fovcache.pipeline.stage import Stage

P = ParamSpec("P")

_BUFFER = bytes(1 << 20)
_CHILD = """
import hashlib, sys, time
buffer = bytes(1 << 20)
while time.process_time() < float(sys.argv[1]):
    hashlib.sha256(buffer)
print(time.process_time())
"""


class Call(NamedTuple):
    """On time.perf_counter, and by the clock of what worked."""

    start_s: float
    end_s: float
    core_s: float = 0.0

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Cost:
    """Waits."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.calls: list[Call] = []

    def __call__(self, item: Any) -> Any:
        start_s = time.perf_counter()
        core_s = self.spend()
        self.calls.append(Call(start_s, time.perf_counter(), core_s))
        return item

    def spend(self) -> float:
        time.sleep(self.cost_s)
        return 0.0


class Burn(Cost):
    """Keeps a core busy, without the interpreter's lock."""

    def spend(self) -> float:
        start_s = time.thread_time()
        while time.thread_time() - start_s < self.cost_s:
            hashlib.sha256(_BUFFER)
        return time.thread_time() - start_s


class Child(Cost):
    """Starts a process that keeps a core busy, and waits for it."""

    def spend(self) -> float:
        command = [sys.executable, "-I", "-S", "-c", _CHILD, str(self.cost_s)]
        return float(subprocess.run(command, capture_output=True, check=True).stdout)


class Flaky(Cost):
    """Fails after it has waited, for those items that `is_bad` picks."""

    def __init__(self, cost_s: float, is_bad: Callable[[Any], bool]) -> None:
        super().__init__(cost_s)
        self.failed: list[Call] = []
        self._is_bad = is_bad

    def __call__(self, item: Any) -> Any:
        super().__call__(item)
        if self._is_bad(item):
            self.failed.append(self.calls.pop())
            raise SampleError("fetch", "HTTP 404", permanent=False)
        return item


def up_to_3_times(test: Callable[P, None]) -> Callable[P, None]:
    """The test again where it fails: other work on the machine can come between a cost and its measurement once or
    twice, while what measures wrongly does so each time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(2):
            try:
                return test(*args, **kwargs)
            except AssertionError:
                pass
        return test(*args, **kwargs)

    return run


def stage(id_: str, run: Any, resource: str = "cpu", **settings: Any) -> Stage:
    return Stage(id=id_, name=id_, resource=resource, run=run, **settings)


def numbers() -> Iterator[int]:
    return itertools.count()


def mean_s(calls: Iterable[Call]) -> float:
    durations = [call.duration_s for call in calls]
    return sum(durations) / len(durations)
