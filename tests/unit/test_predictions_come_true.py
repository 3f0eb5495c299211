"""Predictions against measurements, on pipelines whose costs are injected.

A stage sleeps, hashes with the interpreter's lock released, waits for a child process, or gives an asynchronous device
something to do. Costs are even or log-normal; fetch, decode and step are about as fast as each other, where a bound
alone promises too much.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from simulated_device import SimulatedDevice

from fovcache.bench.profiler.predict import CORES, DEVICE, STEP, pipeline_model
from fovcache.bench.profiler.profile import measure, measure_overlapped
from fovcache.bench.profiler.result import Bottleneck, OverlappedRun, WhatIf
from fovcache.bench.profiler.verdict import bottleneck
from fovcache.bench.profiler.verify import verified
from fovcache.bench.profiler.what_if import Artefact, Caching, Options, what_ifs
from fovcache.bench.profiler.workload import Workload
from fovcache.pipeline.stage import Stage

pytestmark = pytest.mark.alone

THROUGHPUT_ERROR = 0.10
CACHING_ERROR = 0.15
BATCH_SIZE = 4
NUM_SAMPLES = 32
NUM_TRIES = 3
"""A shared machine may be busy with something else for a moment; a wrong model is wrong each time."""


def even(mean_s: float) -> Callable[[int], float]:
    return lambda number: mean_s


def uneven(mean_s: float, seed: int, sigma: float = 0.7) -> Callable[[int], float]:
    """Log-normal, the same for a sample each time."""
    chance = random.Random(seed)
    factors = [math.exp(chance.gauss(0.0, sigma)) for _ in range(NUM_SAMPLES)]
    scale = mean_s / (sum(factors) / len(factors))
    return lambda number: scale * factors[number % len(factors)]


def sleeps(cost: Callable[[int], float]) -> Callable[[int], int]:
    def run(number: int) -> int:
        time.sleep(cost(number))
        return number

    return run


def hashes(num_bytes: int) -> Callable[[Any], Any]:
    data = bytes(num_bytes)

    def run(item: Any) -> Any:
        hashlib.sha256(data)
        return item

    return run


def child_sleeps(duration_s: float) -> Callable[[int], int]:
    command = [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({duration_s})"]

    def run(number: int) -> int:
        subprocess.run(command, check=True)
        return number

    return run


def step_sleeps(duration_s: float) -> Callable[[Any], Any]:
    """For a batch."""

    def run(batch: Any) -> Any:
        time.sleep(duration_s * BATCH_SIZE)
        return batch

    return run


def pipeline(
    fetch: Callable[[int], int],
    decode: Callable[[int], int],
    steps: Sequence[tuple[str, Callable[[Any], Any]]],
    *,
    threads: tuple[int, int] = (2, 2),
    **settings: Any,
) -> Workload:
    return Workload(
        source=itertools.count,
        inputs=(
            Stage(id="fetch", name="download", resource="network", run=fetch, num_workers=threads[0]),
            Stage(id="decode", name="decode", resource="cpu", run=decode, num_workers=threads[1], max_queued=4),
        ),
        steps=tuple(Stage(id=id_, name=id_, resource="gpu", run=run, max_queued=8) for id_, run in steps),
        batch_size=BATCH_SIZE,
        num_distinct=NUM_SAMPLES,
        **settings,
    )


def cached(workload: Workload) -> Workload:
    """As `with_cache` predicts it when every encoder is cached and reading takes no time."""
    return Workload(
        source=itertools.count,
        steps=tuple(stage for stage in workload.steps if stage.id not in ("copy", "encode")),
        batch_size=workload.batch_size,
        device=workload.device,
    )


def asynchronous() -> Workload:
    """The device has most of the work, the input nearly as much."""
    device = SimulatedDevice()

    def gives(duration_s: float) -> Callable[[Any], Any]:
        def run(batch: Any) -> Any:
            device.give(duration_s * BATCH_SIZE)
            return batch

        return run

    steps = [("copy", gives(0.002)), ("encode", gives(0.015)), ("backward", gives(0.008))]
    return pipeline(sleeps(uneven(0.03, 1)), sleeps(uneven(0.045, 2)), steps, device=device)


def sleeping() -> Workload:
    """All are about as fast as each other."""
    steps = [("encode", step_sleeps(0.012)), ("backward", step_sleeps(0.008))]
    return pipeline(sleeps(uneven(0.04, 3)), sleeps(uneven(0.04, 4)), steps)


def hashing() -> Workload:
    """More threads that work than cores."""
    steps = [("encode", hashes(40 << 20)), ("backward", step_sleeps(0.002))]
    return pipeline(sleeps(even(0.02)), hashes(60 << 20), steps, threads=(2, 3))


def with_children() -> Workload:
    steps = [("encode", step_sleeps(0.008)), ("backward", step_sleeps(0.005))]
    return pipeline(sleeps(even(0.02)), child_sleeps(0.04), steps)


@pytest.fixture
def num_cores() -> Iterator[int]:
    """Two cores, or the only one, for threads that the test starts."""
    if not hasattr(os, "sched_setaffinity"):
        yield os.cpu_count() or 1
        return
    all_cores = os.sched_getaffinity(0)
    some = set(sorted(all_cores)[-2:])
    os.sched_setaffinity(0, some)
    yield len(some)
    os.sched_setaffinity(0, all_cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One profile with its predictions, measured."""

    entries: dict[str, WhatIf]
    cause: Bottleneck

    def errors(self) -> dict[str, float]:
        return {id_: entry.measured.error for id_, entry in self.entries.items() if entry.measured}

    def holds(self) -> bool:
        return all(
            abs(error) <= (CACHING_ERROR if id_.startswith("cached") else THROUGHPUT_ERROR)
            for id_, error in self.errors().items()
        )


def profiled(workload: Workload, num_cores: int) -> Trial:
    measured = measure(workload, num_samples=NUM_SAMPLES, warmup_batches=1)
    assert measured.fault is None
    assert measured.serial is not None
    assert measured.overlapped is not None
    model = pipeline_model(
        workload, measured.stages, num_samples=measured.serial.n, num_cores=num_cores, units_s=measured.units_s
    )
    caching = Caching(artefacts=(Artefact(stage="encode", what="features", bytes_per_sample=1),), num_samples=1)
    entries = what_ifs(model, measured.stages, measured.overlapped, Options(caching=caching))
    changes: dict[str, Callable[[WhatIf], Workload]] = {
        "fetch_workers": lambda entry: workload.with_workers({"fetch": entry.apply["workers"]}),
        "decode_workers": lambda entry: workload.with_workers({"decode": entry.apply["workers"]}),
        "cached_features": lambda entry: cached(workload),
    }

    def runnable(id_: str) -> Callable[[WhatIf], OverlappedRun]:
        return lambda entry: measure_overlapped(changes[id_](entry), num_samples=NUM_SAMPLES, warmup_batches=1)

    entries = verified(entries, {id_: runnable(id_) for id_ in changes})
    return Trial(entries={entry.id: entry for entry in entries}, cause=bottleneck(model, measured.overlapped.stall))


def first_that_holds(make: Callable[[], Workload], num_cores: int, is_fair: Callable[[], bool] = lambda: True) -> Trial:
    """Fails the test if there is none; skips it if the trials were not fair."""
    errors = []
    for _ in range(NUM_TRIES):
        was_fair = is_fair()
        workload = make()
        trial = profiled(workload, num_cores)
        if isinstance(workload.device, SimulatedDevice):
            workload.device.close()
        if trial.holds():
            return trial
        if was_fair and is_fair():
            errors.append(trial.errors())
    if len(errors) < NUM_TRIES - 1:
        pytest.skip(f"something else used the {num_cores} cores at the same time: {errors}")
    pytest.fail(f"predicted over measured − 1: {errors}")


@pytest.mark.parametrize(
    ("make", "limits", "causes", "kind"),
    [
        (sleeping, {"fetch", "decode", STEP}, {"fetch", "decode", "encode"}, "mixed"),
        (with_children, {"decode"}, {"decode"}, "input"),
        (asynchronous, {DEVICE}, {"encode"}, "device"),
    ],
)
def test_predictions_come_true(make: Callable[[], Workload], limits: set[str], causes: set[str], kind: str) -> None:
    trial = first_that_holds(make, num_cores=8)  # nothing here keeps a core busy
    assert list(trial.errors()) == ["overlap", "fetch_workers", "decode_workers", "cached_features"]
    assert trial.entries["overlap"].limited_by in limits
    assert trial.cause.stage in causes
    assert trial.cause.kind == kind


def test_predictions_come_true_where_cores_are_short(num_cores: int) -> None:
    trial = first_that_holds(hashing, num_cores, lambda: _are_free(num_cores))
    assert trial.entries["overlap"].limited_by == CORES
    # Which of them waits for a core, and so whether the step waits for its input, is the scheduler's choice.
    assert (trial.cause.stage, trial.cause.kind) in {("decode", "input"), ("decode", "mixed"), ("encode", "device")}


def _are_free(num_cores: int) -> bool:
    """Does a thread for each core get nearly all of it?"""
    run = hashes(100 << 20)
    threads = [threading.Thread(target=run, args=(0,)) for _ in range(num_cores)]
    start_s, start_core_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - start_core_s > 0.95 * num_cores * (time.perf_counter() - start_s)
