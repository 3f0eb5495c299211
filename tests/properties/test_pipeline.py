"""Any pipeline gives what its stages give one at a time, in order, within its bounds, and accounts for its time."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import SampleError
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.serial import serial
from fovcache.pipeline.stage import Failed, Stage

TOLERANCE_S = 1e-6
DURATIONS_S = (0.0, 0.0, 0.0001, 0.001)


@dataclass(frozen=True)
class Item:
    """The numbers of the samples in it, and its size, that changes from stage to stage."""

    numbers: tuple[int, ...]
    size_bytes: int


class Fatal(Exception):
    """Ends the run."""


@st.composite
def stage_lists(draw: st.DrawFn) -> list[Stage]:
    count = draw(st.integers(1, 4))
    in_caller = draw(st.integers(-1, count - 1))
    stages: list[Stage] = []
    for number in range(count):
        regroups = draw(st.booleans()) and draw(st.booleans())
        is_alone = regroups or number == in_caller
        in_step = (number == 0 or stages[-1].num_workers == 1) and draw(st.integers(0, 3)) == 0
        queued_bytes = st.none() | st.integers(1, 60)
        stages.append(
            Stage(
                id=str(number),
                name=f"stage {number}",
                resource="cpu",
                run=work(str(number), draw(st.lists(behaviours, min_size=1, max_size=12))),
                num_workers=1 if is_alone or in_step else draw(st.integers(1, 4)),
                max_queued=draw(st.integers(1, 4)),
                max_queued_bytes=draw(queued_bytes) if number else None,
                size_of=lambda item: item.size_bytes,
                timeout_s=None if number == in_caller else draw(st.sampled_from([None, 600])),
                regroup=regroup(draw(st.integers(1, 3))) if regroups else None,
                in_step=in_step,
                in_caller=number == in_caller,
            )
        )
    return stages


behaviours = st.tuples(st.sampled_from(DURATIONS_S), st.integers(0, 50), st.integers(0, 7).map(lambda n: n == 0))
"""How long it takes, what size comes out, whether it fails."""


def work(stage: str, plan: list[tuple[float, int, bool]]) -> Callable[[Item], Item]:
    """A stage's `run`, that does what the plan says for the item's first number."""

    def run(item: Item) -> Item:
        duration_s, size_bytes, fails = plan[item.numbers[0] % len(plan)]
        if duration_s:
            time.sleep(duration_s)
        if fails:
            raise SampleError(stage, f"{item.numbers} is bad", permanent=True)
        return Item(item.numbers, size_bytes)

    return run


def regroup(size: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Units of `size` sound items; a failed item ends the unit before it, and comes next."""

    def units(items: Iterator[Any]) -> Iterator[Any]:
        unit: list[Item] = []
        for item in items:
            if not isinstance(item, Failed):
                unit.append(item)
            if unit and (len(unit) == size or isinstance(item, Failed)):
                yield joined(unit)
                unit = []
            if isinstance(item, Failed):
                yield item
        if unit:
            yield joined(unit)

    return units


def joined(items: list[Item]) -> Item:
    return Item(tuple(itertools.chain.from_iterable(item.numbers for item in items)), 0)


def plain(result: Any) -> Any:
    return (result.error.stage, result.error.reason, result.item) if isinstance(result, Failed) else result


def source(num_items: int) -> Iterator[Item]:
    return (Item((number,), 0) for number in range(num_items))


@examples(75)
@given(stages=stage_lists(), num_items=st.integers(0, 30), max_results=st.integers(1, 3))
def test_overlapped_equals_serial_within_bounds_and_accounts_for_its_time(
    stages: list[Stage], num_items: int, max_results: int
) -> None:
    expected, alone = serial(stages, source(num_items))
    before = set(threading.enumerate())
    pipeline = Pipeline(stages, max_results=max_results)
    results = [plain(result) for result in pipeline.run(source(num_items))]
    assert results == [plain(result) for result in expected]
    assert set(threading.enumerate()) <= before
    assert pipeline.num_left_behind == 0
    stats = pipeline.stats()
    for stage, each, its_own in zip(stages, stats.stages, alone.stages, strict=True):
        assert (each.n, each.num_failed, each.num_stuck) == (its_own.n, its_own.num_failed, 0)
        assert each.queue.items == each.queue.size_bytes == 0
        assert each.queue.peak_items <= stage.max_queued + 1
        assert stage.max_queued_bytes is None or each.queue.peak_bytes <= stage.max_queued_bytes + 50
        assert len(each.workers) == stage.num_workers
    assert_adds_up(pipeline)


@examples(50)
@given(stages=stage_lists(), num_items=st.integers(1, 20), data=st.data())
def test_an_error_anywhere_is_raised_and_leaves_no_thread(
    stages: list[Stage], num_items: int, data: st.DataObject
) -> None:
    expected = [plain(result) for result in serial(stages, source(num_items))[0]]
    error = Fatal()
    place = data.draw(st.integers(-1, len(stages) - 1), "-1 is the source")
    bad = data.draw(st.integers(0, num_items - 1), "the item")

    def check(item: Item) -> Item:
        if bad in item.numbers:
            raise error
        return item

    def feed() -> Iterator[Item]:
        return (check(item) if place == -1 else item for item in source(num_items))

    if place >= 0:
        run = stages[place].run
        stages[place] = replace(stages[place], run=lambda item: run(check(item)))
    reaches_it = raised_by(lambda: serial(stages, feed())) is error  # it may have failed in a stage before
    before = set(threading.enumerate())
    pipeline = Pipeline(stages)
    results: list[Any] = []
    raised = raised_by(lambda: results.extend(map(plain, pipeline.run(feed()))))
    assert raised is (error if reaches_it else None)
    assert results == expected[: len(results)]
    assert set(threading.enumerate()) <= before
    assert pipeline.num_left_behind == 0
    assert_adds_up(pipeline)


@examples(25)
@given(stages=stage_lists(), num_items=st.integers(1, 20), at=st.integers(0, 19), means=st.sampled_from("bce"))
def test_leaving_the_loop_by_break_close_or_error_leaves_no_thread(
    stages: list[Stage], num_items: int, at: int, means: str
) -> None:
    before = set(threading.enumerate())
    pipeline = Pipeline(stages)
    num_results = 0
    with contextlib.suppress(Fatal):
        for _ in pipeline.run(source(num_items)):
            num_results += 1
            if num_results > at:
                if means == "e":
                    raise Fatal
                if means == "b":
                    break
                pipeline.close()
    assert num_results <= at + 1
    assert set(threading.enumerate()) <= before
    assert pipeline.num_left_behind == 0
    assert_adds_up(pipeline)
    assert not any(each.queue.items or each.queue.size_bytes for each in pipeline.stats().stages)  # all let go of
    assert list(pipeline.run([])) == []  # it can run again


def raised_by(run: Callable[[], object]) -> Fatal | None:
    try:
        run()
    except Fatal as error:
        return error
    return None


def assert_adds_up(pipeline: Pipeline) -> None:
    stats = pipeline.stats()
    for each in stats.stages:
        for worker in each.workers:
            times = (worker.busy_s, worker.starved_s, worker.blocked_s, worker.idle_s)
            assert min(times) >= 0
            assert abs(sum(times) - stats.wall_s) < TOLERANCE_S


def test_the_bounds_hold_at_every_moment() -> None:
    """Seen from inside, by the items themselves, rather than by the pipeline's own count."""
    lock = threading.Lock()
    waiting = [0]
    most = [0]

    def fetch(number: int) -> int:
        time.sleep(0.0005 * (number % 3))
        return number

    def size_of(number: int) -> int:
        with lock:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
        return 1

    def encode(number: int) -> int:
        with lock:
            waiting[0] -= 1
        time.sleep(0.001)
        return number

    stages = [
        Stage(id="fetch", name="fetch", resource="network", run=fetch, num_workers=3, size_of=size_of),
        Stage(id="encode", name="encode", resource="gpu", run=encode, max_queued=2),
    ]
    assert list(Pipeline(stages).run(range(150))) == list(range(150))
    # Two and one in the queue, one in each fetcher's hand, one taken and not yet counted by the encoder.
    assert 3 <= most[0] <= 2 + 1 + 3 + 1


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    """A deadlock shows where it is, and ends the tests."""
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
