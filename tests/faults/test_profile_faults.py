"""Pipelines that raise, hang, or let nothing through: the stage is named, the rest is told, in bounded time."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from injected_costs import Cost, numbers, stage
from simulated_device import Mark, SimulatedDevice
from thread_checks import no_hang_and_no_thread_left, wait_for

from fovcache.bench.profiler.faults import ProfileFault
from fovcache.bench.profiler.profile import Measurement, measure, measure_overlapped
from fovcache.bench.profiler.workload import Workload
from fovcache.errors import EnvironmentFailure, SampleError

SETTINGS = {"num_samples": 20, "warmup_batches": 1}
BATCH = 4
HANGS_S = 0.8
"""Of a stage that takes longer."""
NUM_SERIAL = BATCH + 20
"""Samples of the serial run."""
NUM_STEPS = NUM_SERIAL // BATCH
"""Its batches."""


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with no_hang_and_no_thread_left():
        yield


def workload(
    fetch: Callable[[int], Any] = lambda item: item,
    forward: Callable[[Any], Any] = lambda batch: batch,
    source: Callable[[], Iterator[int]] = numbers,
    **settings: Any,
) -> Workload:
    return Workload(
        source=source,
        inputs=(stage("fetch", fetch, "network"), stage("decode", Cost(0.001))),
        steps=(stage("copy", Cost(0.001)), stage("forward", forward)),
        batch_size=BATCH,
        **settings,
    )


def at(call: int, happens: Callable[[], object]) -> Callable[[Any], Any]:
    """A stage to which something happens at one of its calls, counted from 0."""
    calls = itertools.count()

    def run(item: Any) -> Any:
        if next(calls) == call:
            happens()
        return item

    return run


def broken() -> None:
    raise RuntimeError("CUDA error:\n an illegal memory access")


def ids(found: Measurement) -> list[str]:
    return [row.id for row in found.stages]


def check_overlapped(found: Measurement) -> None:
    """The fault came in the overlapped run: the serial one is there, whole."""
    assert ids(found) == ["fetch", "decode", "copy", "forward"]
    assert {row.n for row in found.stages} == {20}
    assert found.serial is not None
    assert found.warmup_dropped == BATCH


def test_a_stage_that_raises_is_named_and_what_was_measured_until_then_is_told() -> None:
    found = measure(workload(fetch=at(BATCH + 9, broken)), **SETTINGS)
    assert found.fault is not None
    assert found.fault.stage == "fetch"
    assert found.fault.reason == "raised RuntimeError: CUDA error: an illegal memory access"
    assert ids(found) == ["fetch", "decode", "copy", "forward"]
    assert [row.n for row in found.stages] == [9, 9, 8, 8]
    assert 0 < sum(row.share for row in found.stages) < 1
    assert found.serial is found.overlapped is found.overhead is None
    assert found.warmup_dropped == BATCH


def test_in_the_warm_up_that_is_what_was_measured() -> None:
    found = measure(workload(forward=at(0, broken)), **SETTINGS)
    assert found.fault is not None
    assert found.fault.stage == "forward"
    assert ids(found) == ["fetch", "decode"]
    assert [row.n for row in found.stages] == [BATCH, BATCH]
    assert found.warmup_dropped == 0


def test_a_stage_that_raises_in_the_overlapped_run() -> None:
    for settings in ({"fetch": at(NUM_SERIAL + 5, broken)}, {"forward": at(NUM_STEPS + 2, broken)}):
        found = measure(workload(**settings), **SETTINGS)
        assert found.fault is not None
        assert found.fault.stage == next(iter(settings))
        assert found.overlapped is None
        check_overlapped(found)


def test_an_error_of_ours_says_what_it_says() -> None:
    def full() -> None:
        raise EnvironmentFailure("the disk is full")

    with pytest.raises(ProfileFault, match=r"^fetch: the disk is full$") as caught:
        measure_overlapped(workload(fetch=at(3, full)), **SETTINGS)
    assert isinstance(caught.value.__cause__, EnvironmentFailure)


@pytest.mark.parametrize("is_overlapped", [False, True])
@pytest.mark.parametrize(
    ("where", "call", "num_serial"), [("fetch", 5, NUM_SERIAL), ("forward", 2, NUM_SERIAL // BATCH)]
)
def test_a_stage_that_hangs_is_left_behind(where: str, call: int, num_serial: int, is_overlapped: bool) -> None:
    release = threading.Event()
    start = time.monotonic()
    hanging = workload(**{where: at(call + num_serial * is_overlapped, release.wait)})
    found = measure(hanging, timeout_s=HANGS_S, **SETTINGS)
    assert time.monotonic() - start < 10
    assert found.fault is not None
    assert (found.fault.stage, found.fault.reason) == (where, f"was not done with an item after {HANGS_S} s")
    if is_overlapped:
        check_overlapped(found)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fovcache-")]
    release.set()


def test_a_stage_that_is_slow_but_within_its_time_does_not_hang() -> None:
    assert measure(workload(fetch=at(5, lambda: time.sleep(0.3))), timeout_s=2, **SETTINGS).fault is None


def test_a_source_that_raises_hangs_or_ends() -> None:
    release = threading.Event()

    def raising() -> Iterator[int]:
        yield from range(6)
        raise ValueError("no such row")

    def hanging() -> Iterator[int]:
        yield from range(6)
        release.wait()

    for source, reason in (
        (raising, "raised ValueError: no such row"),
        (hanging, f"was not done with an item after {HANGS_S} s"),
        (lambda: iter(range(6)), "ended after 6 samples; expected no end"),
        (lambda: iter(()), "ended after 0 samples; expected no end"),
    ):
        found = measure(workload(source=source), timeout_s=HANGS_S, **SETTINGS)
        assert found.fault is not None
        assert (found.fault.stage, found.fault.reason) == ("source", reason)
        with pytest.raises(ProfileFault) as caught:
            measure_overlapped(workload(source=source), timeout_s=HANGS_S, **SETTINGS)
        assert (caught.value.stage, caught.value.reason) == ("source", reason)
    release.set()


def gone(item: Any) -> Any:
    raise SampleError("fetch", "HTTP 404", permanent=True)


def test_nothing_comes_through() -> None:
    for num_distinct, num_failed in ((None, 64), (7, 7), (500, 64)):
        failing = workload(fetch=gone, num_distinct=num_distinct, uri_of=lambda number: f"row {number}")
        found = measure(failing, **SETTINGS)
        assert found.fault is not None
        assert found.fault.stage == "fetch"
        expected = f"{num_failed} samples in a row failed, none came through; the last: HTTP 404"
        assert found.fault.reason == expected
        assert found.stages == ()
        assert found.failures[0] == {"uri": "row 0", "stage": "fetch", "reason": "HTTP 404", "n": 1}
        assert len(found.failures) == num_failed
        with pytest.raises(ProfileFault, match=expected):
            measure_overlapped(failing, **SETTINGS)


def test_nothing_comes_through_for_too_long() -> None:
    def slow(item: Any) -> Any:
        time.sleep(0.15)
        return gone(item)

    found = measure(workload(fetch=slow), timeout_s=0.5, **SETTINGS)
    assert found.fault is not None
    assert re.fullmatch(r"[2-5] samples in a row failed, none came through; the last: HTTP 404", found.fault.reason)


def test_no_batch_comes_through() -> None:
    for run in (measure, measure_overlapped):
        try:
            fault: Any = run(workload(forward=gone), **SETTINGS).fault
        except ProfileFault as error:
            fault = error
        assert fault.stage == "fetch"
        assert fault.reason == "4 batches in a row failed, none came through; the last: HTTP 404"


class HangingDevice(SimulatedDevice):
    """Does its work, and never says so."""

    def __init__(self, release: threading.Event, num_waits: int) -> None:
        super().__init__()
        self._release = release
        self._num_waits = num_waits

    def wait(self, mark: Mark) -> None:
        self._num_waits -= 1
        if self._num_waits < 0:
            self._release.wait()


def test_a_device_that_hangs() -> None:
    for run in (measure, measure_overlapped):
        release = threading.Event()
        device = HangingDevice(release, num_waits=3)
        try:
            fault: Any = run(workload(device=device), timeout_s=HANGS_S, **SETTINGS).fault
        except ProfileFault as error:
            fault = error
        assert fault.stage in ("copy", "forward")
        assert fault.reason == f"was not done with an item after {HANGS_S} s"
        release.set()
        device.close()


def test_who_interrupts_is_heard_at_once() -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(progress: Any) -> None:
        if progress.done >= 8:
            raise Interrupted

    start = time.monotonic()
    slow = workload(fetch=Cost(0.02))
    with pytest.raises(Interrupted):
        measure(slow, on_progress=interrupt, **SETTINGS)
    with pytest.raises(Interrupted):
        measure_overlapped(slow, on_progress=interrupt, **SETTINGS)
    assert time.monotonic() - start < 5
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("fovcache-")])


def test_a_process_exits_without_waiting_for_what_hangs() -> None:
    script = """
        import itertools, time
        from fovcache.bench.profiler.profile import measure
        from fovcache.bench.profiler.workload import Workload
        from fovcache.pipeline.stage import Stage
        forward = Stage(id="forward", name="forward", resource="cpu", run=lambda batch: time.sleep(1e6))
        found = measure(Workload(source=itertools.count, steps=(forward,)), timeout_s=0.3)
        print(found.fault.stage)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["forward"]
