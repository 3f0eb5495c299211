"""The pipeline: order, bounds, failures, units, accounting, and what it lets go of."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pipeline_stages import fail_on, pairs, stage

from fovcache.errors import SampleError, UsageError
from fovcache.pipeline.channel import Channel
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.serial import SerialPipeline
from fovcache.pipeline.stage import Failed, Stage


def test_results_come_in_order_however_the_workers_finish() -> None:
    def run(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * 10

    finished: list[int] = []
    stages = [stage(run, num_workers=4), stage(lambda item: finished.append(item) or item, "encode")]
    assert list(Pipeline(stages).run(range(21))) == [item * 10 for item in range(21)] == finished


def test_no_items_are_no_results() -> None:
    stages = [stage(num_workers=3), stage(name="encode", regroup=pairs), stage(name="write", in_caller=True)]
    assert list(Pipeline(stages).run([])) == list(SerialPipeline(stages).run([])) == []


@pytest.mark.parametrize("kind", [Pipeline, SerialPipeline])
def test_a_failed_item_passes_in_its_turn_through_stages_that_do_not_run_on_it(kind: type[Pipeline]) -> None:
    seen: list[int] = []
    stages = [stage(fail_on(1, 4), num_workers=2), stage(lambda item: seen.append(item) or item + 1, "encode")]
    pipeline = kind(stages)
    results = list(pipeline.run(range(6)))
    assert [result for result in results if not isinstance(result, Failed)] == [1, 21, 31, 51]
    assert [at for at, result in enumerate(results) if isinstance(result, Failed)] == [1, 4]
    assert (results[1].item, results[1].error.stage, results[1].error.reason) == (1, "decode", "1 is damaged")
    assert results[1].error.permanent
    assert seen == [0, 20, 30, 50]
    decode, encode = pipeline.stats().stages
    assert (decode.n, decode.num_failed, encode.n, encode.num_failed) == (6, 2, 4, 0)


@pytest.mark.parametrize("kind", [Pipeline, SerialPipeline])
def test_a_stage_that_regroups_sees_failed_items_in_order_and_runs_on_units(kind: type[Pipeline]) -> None:
    def names(unit: tuple[Any, ...]) -> list[Any]:
        return ["failed" if isinstance(item, Failed) else item for item in unit]

    pipeline = kind([stage(fail_on(1), num_workers=2), stage(names, "encode", regroup=pairs)])
    assert list(pipeline.run(range(5))) == [[0, "failed"], [20, 30], [40]]
    assert pipeline.stats().stages[1].n == 3


def test_a_unit_can_fail_too() -> None:
    def run(unit: tuple[int, ...]) -> int:
        if 2 in unit:
            raise SampleError("encode", "no", permanent=False)
        return sum(unit)

    first, failed, last = Pipeline([stage(run, "encode", regroup=pairs), stage(name="write")]).run(range(6))
    assert (first, failed.item, last) == (1, (2, 3), 9)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_stage_runs_in_the_callers_thread_and_the_others_do_not(place: int) -> None:
    ran_by: dict[str, set[threading.Thread]] = {}

    def runner(name: str) -> Callable[[int], int]:
        return lambda item: ran_by.setdefault(name, set()).add(threading.current_thread()) or item

    names = ("decode", "encode", "write")
    stages = [stage(runner(name), name, in_caller=at == place, max_queued=2) for at, name in enumerate(names)]
    assert list(Pipeline(stages).run(range(50))) == list(range(50))
    here = threading.current_thread()
    assert [ran_by[name] == {here} for name in names] == [at == place for at in range(3)]
    assert all(thread.daemon for name in names for thread in ran_by[name] - {here})


def test_all_that_wait_for_items_get_those_that_were_there_before_their_turn() -> None:
    channel = Channel()
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(channel.get()), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)  # until they wait
    for number in (2, 1, 0):
        channel.put(number, str(number))
    for thread in threads:
        thread.join(10)
    assert sorted(got) == [(0, "0", 0), (1, "1", 0), (2, "2", 0)]


def test_the_source_is_read_no_further_ahead_than_the_queues_hold() -> None:
    taken = itertools.count()
    source = (next(taken) for _ in itertools.count())
    pipeline = Pipeline([stage(max_queued=3, num_workers=2), stage(name="encode", max_queued=2)], max_results=1)
    results = pipeline.run(source)
    assert next(results) == 0
    time.sleep(0.05)  # for it to go too far, if it does
    # The consumer has one; in a queue wait its bound and one, and each thread (the feeder too) has one in hand.
    assert next(taken) <= 1 + (3 + 1) + (2 + 1) + (1 + 1) + 4
    results.close()


def test_queued_bytes_exceed_their_bound_by_one_item_at_most() -> None:
    def slow(item: int) -> int:
        time.sleep(0.001)
        return item

    sizes = [7, 1, 30, 2, 2, 9, 100, 1, 1, 1, 5, 8] * 3
    fetch = stage(num_workers=4, size_of=lambda item: item)
    pipeline = Pipeline([fetch, stage(slow, "encode", max_queued=50, max_queued_bytes=20)])
    assert list(pipeline.run(sizes)) == sizes
    assert pipeline.stats().stages[1].queue.peak_bytes <= 20 + max(sizes)
    assert pipeline.stats().stages[1].queue.size_bytes == 0


def test_what_a_failed_item_holds_still_counts_as_queued() -> None:
    """A decoder's input stays with the failure until somebody takes it."""
    gate = threading.Event()
    stages = [
        stage(name="fetch", size_of=lambda item: 10),
        stage(fail_on(*range(100)), size_of=lambda item: 1),
        stage(name="encode", max_queued_bytes=25, regroup=lambda items: (gate.wait() and item for item in items)),
    ]
    pipeline = Pipeline(stages)
    results = pipeline.run(range(20))
    threading.Timer(0.05, gate.set).start()
    assert len(list(results)) == 20
    assert 10 <= pipeline.stats().stages[2].queue.peak_bytes <= 35


def test_a_stage_in_step_is_waited_for() -> None:
    """No slot of the next block is encoded before this block is written."""
    for in_caller in (False, True):
        events: list[str] = []

        def write(unit: tuple[int, ...], events: list[str] = events) -> None:
            time.sleep(0.002)
            events.append(f"wrote {unit}")

        stages = [
            stage(lambda item, events=events: events.append(f"encoding {item}") or item, in_caller=in_caller),
            stage(write, "write", regroup=pairs, in_step=True),
        ]
        assert len(list(Pipeline(stages).run(range(5)))) == 3
        assert events == [
            *("encoding 0", "encoding 1", "wrote (0, 1)"),
            *("encoding 2", "encoding 3", "wrote (2, 3)"),
            *("encoding 4", "wrote (4,)"),
        ]


@pytest.mark.parametrize("in_caller", [None, "encode", "write", "forget"])
def test_nothing_is_kept_of_an_item_that_was_consumed(in_caller: str | None) -> None:
    class Frames:
        pass

    alive: list[weakref.ref[Frames]] = []

    def decode(number: int) -> Frames:
        frames = Frames()
        alive.append(weakref.ref(frames))
        if number == 1:
            raise SampleError("decode", "no", permanent=True) from ValueError(frames)
        return frames

    stages = [
        stage(decode),
        stage(name="encode", in_caller=in_caller == "encode"),
        stage(name="write", regroup=iter, in_caller=in_caller == "write"),
        stage(lambda item: None, "forget", in_caller=in_caller == "forget"),
    ]
    failed: list[bool] = []

    def consume(results: Iterator[Any]) -> None:
        failed.extend(isinstance(result, Failed) for result in results)

    source = waiting([0, 1, 2], (done := threading.Event()))
    consumer = threading.Thread(target=consume, args=[Pipeline(stages).run(source)], daemon=True)
    consumer.start()
    deadline = time.monotonic() + 10
    while (len(alive) < 3 or any(reference() for reference in alive)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [reference() for reference in alive] == [None] * 3
    done.set()
    consumer.join()
    assert failed == [False, True, False]


def waiting(items: list[int], done: threading.Event) -> Iterator[int]:
    """The items, and no end before it is said."""
    yield from items
    done.wait()


def test_a_pipeline_runs_again_and_not_twice_at_a_time() -> None:
    pipeline = Pipeline([stage()])
    assert list(pipeline.run(range(3))) == list(pipeline.run(range(3)))
    results = pipeline.run(itertools.count())
    next(results)
    with pytest.raises(UsageError, match="one run at a time"):
        next(pipeline.run([]))
    pipeline.close()
    assert list(results) == []
    assert list(pipeline.run(range(3))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 0}, "num_workers of stage 'decode' is 0; expected at least 1"),
        ({"max_queued": 0}, "max_queued of stage 'decode' is 0; expected at least 1"),
        ({"max_queued_bytes": 0}, "max_queued_bytes of stage 'decode' is 0"),
        ({"timeout_s": 0.0}, "timeout_s of stage 'decode' is 0.0"),
        ({"timeout_s": float("inf")}, "timeout_s of stage 'decode' is inf"),
        ({"regroup": pairs, "num_workers": 2}, "regroups its items and has 2 workers; expected 1"),
        ({"in_caller": True, "num_workers": 2}, "runs in the caller's thread and has 2 workers; expected 1"),
        ({"in_step": True, "num_workers": 2}, "goes in step and has 2 workers; expected 1"),
        ({"in_caller": True, "timeout_s": 1.0}, "runs in the caller's thread, which knows no timeout_s"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stage(**settings)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "at least one"),
        ([stage(), stage()], "each with an id of its own"),
        ([stage(in_caller=True), stage(name="encode", in_caller=True)], "at most one"),
        (
            [stage(num_workers=2), stage(name="write", in_step=True)],
            "stage 'write' goes in step with 'decode', which has 2 workers; expected 1",
        ),
        ([stage(max_queued_bytes=1)], "would be ignored: it is the first stage"),
        ([stage(), stage(name="encode", max_queued_bytes=1)], "would be ignored: stage 'decode' has no size_of"),
    ],
)
def test_stages_that_cannot_be_joined_are_refused(stages: list[Stage], message: str) -> None:
    for kind in (Pipeline, SerialPipeline):
        with pytest.raises(UsageError, match=message):
            kind(stages)


def test_max_results_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="max_results is 0"):
        Pipeline([stage()], max_results=0)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'av', 'pyarrow'} & set(sys.modules)"
    code = f"import sys, fovcache.pipeline.pipeline, fovcache.pipeline.serial; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux threads have a priority of their own")
def test_a_nice_stage_gives_way_and_no_other_thread_does() -> None:
    def niceness(_: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness(0)
    pipeline = Pipeline([stage(lambda item: niceness(item), "decode", niceness=10, num_workers=2)])
    assert list(pipeline.run(range(4))) == [10] * 4
    assert list(Pipeline([stage(niceness, "encode")]).run(range(2))) == [own] * 2
    assert niceness(0) == own


@pytest.mark.parametrize("options", [{"niceness": -1}, {"niceness": 20}, {"niceness": 1, "in_caller": True}])
def test_a_niceness_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="niceness of stage"):
        stage(**options)
