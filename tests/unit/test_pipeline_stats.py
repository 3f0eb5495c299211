"""What a pipeline says of its own time."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pipeline_stages import fail_on, pairs, stage

from fovcache.errors import UsageError
from fovcache.pipeline.bound import resource_bound
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.serial import SerialPipeline, serial

TOLERANCE_S = 1e-6


def waiting(items: list[int], done: threading.Event) -> Iterator[int]:
    """The items, and no end before it is said."""
    yield from items
    done.wait()


def test_each_workers_times_add_up_to_the_wall() -> None:
    def run(item: int) -> int:
        time.sleep(0.002)
        return item

    stages = [stage(run, "fetch", num_workers=3), stage(run, num_workers=2), stage(run, "encode", in_caller=True)]
    pipeline = Pipeline([*stages, stage(len, "write", regroup=pairs)])
    snapshots = [pipeline.stats() for _ in pipeline.run(range(20))]
    final = pipeline.stats()
    assert final is pipeline.stats()
    for stats in (*snapshots, final):
        for each in stats.stages:
            for worker in each.workers:
                times = (worker.busy_s, worker.starved_s, worker.blocked_s, worker.idle_s)
                assert min(times) >= 0
                assert abs(sum(times) - stats.wall_s) < TOLERANCE_S
    assert [each.n for each in final.stages] == [20, 20, 20, 10]
    assert [len(each.workers) for each in final.stages] == [3, 2, 1, 1]
    for each in final.stages[:3]:
        assert each.busy_s >= 20 * 0.002
    assert [a.wall_s <= b.wall_s for a, b in itertools.pairwise((*snapshots, final))] == [True] * 10


def test_waiting_is_told_apart() -> None:
    """A slow stage in the middle: what is before it is blocked, what is after it starved, before and after it idle."""

    def slow(item: int) -> int:
        time.sleep(0.01)
        return item

    pipeline = Pipeline([stage(name="fetch", max_queued=1), stage(slow, max_queued=1), stage(name="encode")])
    assert len(list(pipeline.run(range(10)))) == 10
    fetch, decode, encode = pipeline.stats().stages
    assert fetch.blocked_s > 0.05  # one item is in hand, two are in the queue, three at most with `decode`
    assert decode.busy_s >= 0.1
    assert encode.starved_s > 0.05
    assert encode.idle_s >= 0.01  # until the first item came
    assert decode.busy_share > max(fetch.busy_share, encode.busy_share)


def test_waiting_for_what_never_comes_is_idle() -> None:
    """After the last item, whether the source ends or the consumer leaves."""
    for leaves in (False, True):
        done = threading.Event()
        pipeline = Pipeline([stage(name="fetch"), stage()])
        results = pipeline.run(waiting([0], done))
        next(results)
        time.sleep(0.05)
        if leaves:
            results.close()
        done.set()
        assert list(results) == []
        for each in pipeline.stats().stages:
            assert each.idle_s >= 0.05


def test_stats_add_up_at_whatever_moment_they_are_read() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads are interrupted between any two steps
    try:
        pipeline = Pipeline([stage(), stage(name="encode", num_workers=2)])
        for _ in pipeline.run(range(3000)):
            stats = pipeline.stats()
            for worker in (worker for each in stats.stages for worker in each.workers):
                total_s = worker.busy_s + worker.starved_s + worker.blocked_s + worker.idle_s
                assert abs(total_s - stats.wall_s) < TOLERANCE_S
    finally:
        sys.setswitchinterval(before)


def test_the_time_in_regroup_is_busy_but_for_its_waits() -> None:
    def regroup(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.01)
            yield item
        time.sleep(0.01)

    def fetch(item: int) -> int:
        time.sleep(0.02)
        return item

    pipeline = Pipeline([stage(fetch, "fetch"), stage(name="write", regroup=regroup)])
    assert len(list(pipeline.run(range(5)))) == 5
    (worker,) = pipeline.stats().stages[1].workers
    assert worker.busy_s >= 0.06
    assert worker.idle_s >= 0.02  # until the first item came
    assert worker.starved_s > 0


def test_a_slow_consumer_blocks_the_last_stage() -> None:
    for in_caller in (False, True):
        pipeline = Pipeline([stage(), stage(name="encode", in_caller=in_caller)], max_results=1)
        for _ in pipeline.run(range(10)):
            time.sleep(0.01)
        assert pipeline.stats().stages[1].blocked_s > 0.04


def test_a_stage_reports_itself_as_a_document() -> None:
    pipeline = Pipeline([stage(fail_on(1), num_workers=2, max_queued=4)])
    assert len(list(pipeline.run(range(3)))) == 3
    (only,) = pipeline.stats().stages
    document = only.document()
    known = {"id": "decode", "name": "decode", "resource": "cpu", "workers": 2, "n": 3, "failed": 1, "stuck": 0}
    assert known.items() <= document.items()
    assert document["total_s"] == document["busy_s"] == only.busy_s
    total_s = sum(document[name] for name in ("busy_s", "starved_s", "blocked_s", "idle_s"))
    assert abs(total_s - 2 * pipeline.stats().wall_s) < TOLERANCE_S
    assert 1 <= document["peak_queued"] <= 5


def test_stats_before_the_first_run_are_empty() -> None:
    assert Pipeline([stage()]).stats() == SerialPipeline([stage()]).stats()
    assert Pipeline([stage()]).stats().stages == ()


def test_serial_runs_one_thing_at_a_time_and_counts_its_time() -> None:
    at_work = []

    def run(item: Any) -> Any:
        at_work.append(threading.current_thread())
        time.sleep(0.005)
        return item

    def regroup(items: Iterator[int]) -> Iterator[Any]:
        for unit in pairs(items):
            time.sleep(0.005)
            yield unit

    stages = [stage(run, num_workers=4, timeout_s=0.001), stage(run, "encode", regroup=regroup)]
    results, stats = serial(stages, range(4))
    assert results == [(0, 1), (2, 3)]
    assert set(at_work) == {threading.current_thread()}
    decode, encode = stats.stages
    assert (decode.n, encode.n, decode.stall_s, encode.stall_s) == (4, 2, 0, 0)
    assert decode.busy_s >= 0.02
    assert encode.busy_s >= 0.02
    assert decode.busy_s + encode.busy_s <= stats.wall_s
    for each in stats.stages:
        assert abs(each.busy_s + each.idle_s - stats.wall_s) < TOLERANCE_S


def test_the_resource_bound_adds_up_stages_that_share_a_resource() -> None:
    capacities = {"network": 8, "cpu": 4, "gpu": 1}
    demands = [("network", 0.08), ("cpu", 0.05), ("gpu", 0.01), ("gpu", 0.004), ("cpu", 0.003)]
    assert resource_bound(demands, capacities) == pytest.approx(0.014)
    assert resource_bound([*demands, ("network", 0.04)], capacities) == pytest.approx(0.015)
    assert resource_bound([], capacities) == 0
    with pytest.raises(UsageError, match="resource 'gpus' has no capacity; nearest: gpu"):
        resource_bound([("gpus", 1.0)], capacities)
    with pytest.raises(UsageError, match="-1 s per item of 'gpu'"):
        resource_bound([("gpu", -1)], capacities)
    with pytest.raises(UsageError, match="with capacity 0"):
        resource_bound([("gpu", 1)], {"gpu": 0})


@pytest.mark.parametrize("in_caller", [False, True])
def test_every_unit_that_an_item_makes_is_work(in_caller: bool) -> None:
    def slow(item: int) -> int:
        time.sleep(0.01)
        return item

    def twice(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            yield item
            yield item

    pipeline = Pipeline([stage(slow, regroup=twice, in_caller=in_caller), stage(name="write", max_queued=100)])
    assert len(list(pipeline.run(range(10)))) == 20
    first, _ = pipeline.stats().stages
    assert first.n == 20
    assert first.busy_s >= 20 * 0.01
