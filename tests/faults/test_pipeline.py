"""Pipelines that are interrupted, that break, and whose threads get stuck."""

from __future__ import annotations

import _thread
import contextlib
import gc
import itertools
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from thread_checks import no_hang_and_no_thread_left, wait_for

from fovcache.errors import SampleError
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.stage import Stage

NAMES = ("fetch", "decode", "encode", "write")


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    with no_hang_and_no_thread_left():
        yield


def build_like(**runs: Callable[[Any], Any]) -> list[Stage]:
    """The stages of a build; `runs` are what some of them do."""
    settings: dict[str, dict[str, Any]] = {
        "fetch": {"num_workers": 3},
        "decode": {"num_workers": 2, "timeout_s": 600},
        "encode": {"in_caller": True, "regroup": lambda items: zip(*[items] * 4, strict=False)},
        "write": {"regroup": lambda items: (item for item in items), "in_step": True},
    }
    run_of = {name: runs.get(name, lambda item: item) for name in NAMES}
    return [Stage(id=name, name=name, resource="cpu", run=run_of[name], **settings[name]) for name in NAMES]


class Broken(Exception):
    pass


def break_down(item: Any) -> Any:
    """A name to find in tracebacks."""
    if item == 50 or (isinstance(item, tuple) and 50 in item):
        raise Broken(item)
    return item


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_a_stage_is_raised_in_the_caller_with_its_traceback(name: str) -> None:
    pipeline = Pipeline(build_like(**{name: break_down}))
    results = []
    with pytest.raises(Broken) as caught:
        results += pipeline.run(itertools.count())
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "break_down"
    assert caught.value.__context__ is None
    assert pipeline.num_left_behind == 0


def test_an_error_of_the_source_is_raised_in_the_caller() -> None:
    with pytest.raises(Broken) as caught:
        list(Pipeline(build_like()).run(map(break_down, itertools.count())))
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "break_down"


@pytest.mark.parametrize("in_caller", [False, True])
@pytest.mark.parametrize("moment", ["at once", "between", "after the last"])
def test_an_error_of_a_regrouping_is_raised_in_the_caller(in_caller: bool, moment: str) -> None:
    def regroup(items: Iterator[int]) -> Iterator[int]:
        if moment == "at once":
            raise Broken
        for item in items:
            yield item
            if item == 5 and moment == "between":
                raise SampleError("encode", "no sample to blame", permanent=True)
        raise Broken

    stages = [Stage(id="a", name="a", resource="cpu", run=str, regroup=regroup, in_caller=in_caller)]
    results: list[str] = []
    with pytest.raises(SampleError if moment == "between" else Broken):
        results.extend(Pipeline(stages).run(range(10)))
    assert results == [str(item) for item in range(10)][: len(results)]


@pytest.mark.parametrize("in_caller", [False, True])
@pytest.mark.parametrize("means", ["error before it", "error of its own", "break"])
def test_a_regrouping_is_cleaned_up_when_the_run_ends_early_and_yields_nothing_more(
    in_caller: bool, means: str
) -> None:
    """A block that is not whole must not be written."""
    units: list[list[int]] = []
    cleaned = []

    def blocks(items: Iterator[int]) -> Iterator[list[int]]:
        block: list[int] = []
        try:
            for item in items:
                block.append(item)
                if len(block) == 10:
                    yield block
                    block = []
            yield block
        finally:
            cleaned.append(threading.current_thread())

    def write(unit: list[int]) -> None:
        units.append(unit)
        if means == "error of its own":
            raise Broken

    run = break_down if means == "error before it" else int
    stages = [
        Stage(id="decode", name="decode", resource="cpu", run=run),
        Stage(id="write", name="write", resource="disk", run=write, regroup=blocks, in_caller=in_caller),
    ]
    pipeline = Pipeline(stages)
    with contextlib.suppress(Broken):
        for _ in pipeline.run(itertools.count()):
            if means == "break":
                break
    assert len(cleaned) == 1
    assert (cleaned[0] is threading.current_thread()) == in_caller
    assert all(len(unit) == 10 for unit in units)


def test_the_first_error_is_the_one_that_is_raised() -> None:
    began, failed = threading.Event(), threading.Event()

    def first(item: int) -> int:
        began.wait()
        failed.set()
        raise Broken("first")

    def second(item: int) -> int:
        began.set()
        failed.wait()
        time.sleep(0.05)
        raise Broken("second")

    for in_caller in (False, True):
        began.clear()
        failed.clear()
        stages = [
            Stage(id="decode", name="decode", resource="cpu", run=lambda item: item if item == 0 else first(item)),
            Stage(id="encode", name="encode", resource="gpu", run=second, in_caller=in_caller),
        ]
        with pytest.raises(Broken, match="first"):
            list(Pipeline(stages).run(range(3)))


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_of_the_consumer_ends_the_run(error: type[BaseException]) -> None:
    """Whatever thread waits for whatever: for the consumer, for room, for items, for the source."""

    def consume(pipeline: Pipeline, source: Iterator[int]) -> None:
        for _ in pipeline.run(source):
            raise error

    for source in (itertools.count(), never_ending(20)):
        pipeline = Pipeline(build_like())
        with pytest.raises(error):
            consume(pipeline, source)
        # The interpreter finalises the iterator when the loop's frame lets go of it.
        wait_for(lambda pipeline=pipeline: pipeline.stats().stages)
        assert pipeline.num_left_behind == 0


def never_ending(count: int) -> Iterator[int]:
    yield from range(count)
    while True:
        time.sleep(0.01)
        yield count


def test_a_system_exit_in_a_workers_thread_reaches_the_caller() -> None:
    def leave(item: int) -> None:
        raise SystemExit(7)

    with pytest.raises(SystemExit, match="7"):
        list(Pipeline(build_like(decode=leave)).run(range(100)))


def test_leaving_a_pipelines_with_block_ends_its_run() -> None:
    with Pipeline(build_like()) as pipeline:
        results = pipeline.run(itertools.count())
        next(results)
    assert pipeline.num_left_behind == 0
    assert list(results) == []


def test_a_signal_that_raises_at_any_moment_ends_the_run() -> None:
    """The main thread is interrupted wherever it is, between any two of its steps on the queues."""

    class Alarm(BaseException):
        pass

    rung = threading.Event()

    def ring(number: int, frame: object) -> None:
        rung.set()
        raise Alarm

    def consume(pipeline: Pipeline) -> None:
        for count, _ in enumerate(pipeline.run(itertools.count())):
            if count == 0:
                rung.clear()
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() * 0.01)
            elif rung.is_set():
                raise Alarm  # the interpreter ignored it

    chance = random.Random(0)
    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()  # what a signal raises in a finaliser is ignored, with a warning
    try:
        for _ in range(200):
            pipeline = Pipeline(build_like()[: chance.choice([2, 3, 4])], max_results=2)
            with pytest.raises(Alarm):
                consume(pipeline)
            assert pipeline.num_left_behind == 0
            assert pipeline.stats().stages
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


@pytest.mark.parametrize("place", ["source", "write"])
def test_a_signal_just_before_the_main_thread_falls_asleep_ends_the_run(place: str) -> None:
    """It does not end the sleep: the handler in C has run, and what it noted waits. In `get`, and in `put`."""

    class Alarm(BaseException):
        pass

    def ring(number: int, frame: object) -> None:
        raise Alarm

    def stuck(item: Any) -> Any:
        if item in (5, (4, 5, 6, 7)):
            asleep.set()
            stays_asleep.append(not over.wait(20))
        return item

    def signal_without_interrupting() -> None:
        asleep.wait(20)
        time.sleep(0.1)  # until the main thread waits as well
        _thread.interrupt_main(signal.SIGALRM)

    asleep, over = threading.Event(), threading.Event()
    stays_asleep: list[bool] = []
    pipeline = Pipeline(build_like(**{place: stuck} if place != "source" else {}))
    signaller = threading.Thread(target=signal_without_interrupting)
    before = signal.signal(signal.SIGALRM, ring)
    signaller.start()
    try:
        with pytest.raises(Alarm):
            list(pipeline.run(map(stuck, range(100)) if place == "source" else range(100)))
        assert stays_asleep == []
        assert pipeline.num_left_behind == 1
    finally:
        over.set()
        signaller.join()
        signal.signal(signal.SIGALRM, before)


# A build-like pipeline; in the stage named on its command line, everybody sleeps in C, for ever. It leaves as a
# command of ours does, with what it cleaned up, and how many threads it left behind.
SCRIPT = """
    import itertools, os, signal, sys, threading, time
    from fovcache.console import STATUS_INTERRUPTED, STATUS_TERMINATED, _Stopped, _stop
    from fovcache.pipeline.pipeline import Pipeline
    from fovcache.pipeline.stage import Stage

    def sleep_for_ever():
        os.write(1, b"asleep\\n")
        while threading.current_thread() is threading.main_thread():
            time.sleep(0.1)  # not longer: a signal that comes just before a sleep does not end it
        time.sleep(1e6)

    def stage(name, **settings):
        def run(item):
            if name == sys.argv[1] and item > 20:
                sleep_for_ever()
            return item
        return Stage(id=name, name=name, resource="cpu", run=run, **settings)

    def source():
        for item in itertools.count():
            if sys.argv[1] == "source" and item > 20:
                sleep_for_ever()
            yield item

    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    stages = [
        stage("fetch", num_workers=3), stage("decode", num_workers=2, timeout_s=600),
        stage("encode", in_caller=True), stage("write", regroup=iter, in_step=True),
    ]
    pipeline = Pipeline(stages)
    try:
        for count, result in enumerate(pipeline.run(source())):
            assert count == result
            if sys.argv[1] == "consumer" and count > 20:
                sleep_for_ever()
            if sys.argv[1] == "nobody" and count > 20:
                break
    except _Stopped as stopped:
        print(pipeline.num_left_behind, "left behind", flush=True)
        sys.exit(stopped.args[1])
"""


def test_a_signal_ends_a_process_whose_threads_sleep_for_ever() -> None:
    numbers = {signal.SIGINT: 130, signal.SIGTERM: 143}
    # How many threads cannot be woken; the caller's can.
    left_behind = {"source": 1, "fetch": 3, "decode": 2, "encode": 0, "write": 1, "consumer": 0}
    running = {}
    for place, number in itertools.product(left_behind, numbers):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), place]
        running[place, number] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
    try:
        for (place, number), process in running.items():
            for _ in range(max(1, left_behind[place])):  # all of them are asleep
                assert process.stdout is not None
                assert process.stdout.readline() == "asleep\n"
            process.send_signal(number)
        for (place, number), process in running.items():
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (numbers[number], ""), place
            assert out == f"{left_behind[place]} left behind\n", place
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
