"""A pipeline's threads that get stuck: their items fail, the run goes on, and nobody waits for them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest
from thread_checks import no_hang_and_no_thread_left

from fovcache.errors import EnvironmentFailure
from fovcache.pipeline.pipeline import MIN_STUCK, Pipeline
from fovcache.pipeline.stage import Failed, Stage


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with no_hang_and_no_thread_left():
        yield


class Broken(Exception):
    pass


def test_a_stuck_item_fails_and_the_run_goes_on() -> None:
    release = threading.Event()

    def decode(item: int) -> str:
        if item in (3, 5):
            release.wait()
            if item == 5:
                raise Broken("too late to count")
        return f"decoded {item}"

    def source() -> Iterator[int]:
        yield from range(6)
        release.wait()
        time.sleep(0.3)  # the late results come while the run goes on
        yield from (6, 7)

    for num_workers in (1, 2):
        release.clear()
        stages = [
            Stage(id="decode", name="decode", resource="cpu", run=decode, num_workers=num_workers, timeout_s=0.3),
            Stage(id="encode", name="encode", resource="gpu", run=lambda item: item, in_caller=True),
        ]
        pipeline = Pipeline(stages)
        results = []
        for result in pipeline.run(source()):
            results.append(result)
            if len(results) == 6:
                release.set()
        failed = {at: result for at, result in enumerate(results) if isinstance(result, Failed)}
        assert [result for result in results if isinstance(result, str)] == [f"decoded {n}" for n in (0, 1, 2, 4, 6, 7)]
        assert list(failed) == [3, 5]
        error = failed[3].error
        assert (error.stage, error.reason, error.permanent) == ("decode", "took longer than 0.3 s", False)
        assert failed[3].item == 3
        stats = pipeline.stats()
        decode_stats = stats.stages[0]
        assert (decode_stats.n, decode_stats.num_failed, decode_stats.num_stuck) == (8, 2, 2)
        assert decode_stats.busy_s >= 2 * 0.3
        assert len(decode_stats.workers) == num_workers
        for worker in decode_stats.workers:
            total_s = worker.busy_s + worker.starved_s + worker.blocked_s + worker.idle_s
            assert abs(total_s - stats.wall_s) < 1e-6


def test_items_within_their_time_do_not_fail_however_long_the_run() -> None:
    stage = Stage(id="a", name="a", resource="cpu", run=lambda item: time.sleep(0.15), timeout_s=0.6)
    pipeline = Pipeline([stage])
    assert list(pipeline.run(range(6))) == [None] * 6
    assert pipeline.stats().stages[0].num_stuck == 0


def test_a_stuck_unit_fails_and_its_regrouping_goes_on() -> None:
    release = threading.Event()

    def write(unit: tuple[int, ...]) -> int:
        if 2 in unit:
            release.wait()
        return sum(unit)

    stage = Stage(
        id="write",
        name="write",
        resource="disk",
        run=write,
        regroup=lambda items: zip(items, items, strict=True),
        timeout_s=0.3,
    )
    pipeline = Pipeline([stage])
    first, stuck, last = pipeline.run(range(6))
    assert (first, last) == (1, 9)
    assert isinstance(stuck, Failed)
    assert stuck.item == (2, 3)
    assert pipeline.num_left_behind == 1
    release.set()


def test_too_many_stuck_threads_end_the_run() -> None:
    release = threading.Event()
    stage = Stage(
        id="fetch", name="download", resource="network", run=lambda item: release.wait(), num_workers=2, timeout_s=0.02
    )
    pipeline = Pipeline([stage])
    with pytest.raises(EnvironmentFailure, match=rf"{MIN_STUCK + 1} threads of download are stuck, each for more than"):
        list(pipeline.run(range(100)))
    assert pipeline.num_left_behind >= MIN_STUCK + 1
    assert pipeline.stats().stages[0].num_stuck == MIN_STUCK + 1
    release.set()


def test_a_process_exits_without_waiting_for_a_stuck_thread() -> None:
    """As after a break, an error or a signal: here a timeout, and the run comes to its end."""
    script = """
        import sys, time
        from fovcache.pipeline.pipeline import Pipeline
        from fovcache.pipeline.stage import Stage
        run = lambda item: time.sleep(1e6) if item == 3 else item
        stage = Stage(id="decode", name="decode", resource="cpu", run=run, num_workers=2, timeout_s=0.3)
        pipeline = Pipeline([stage])
        print(len(list(pipeline.run(range(10)))), pipeline.num_left_behind)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["10", "1"]
