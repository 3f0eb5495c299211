"""How near an overlapped pipeline comes to what its resources allow, and what an item costs it.

The stages sleep, as stand-ins for a network, cores, a GPU and a disk, or hash with the interpreter's lock released.
What each demands is measured one at a time, as `fovbench profile` does it; the bound is computed from that.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.pipeline.bound import resource_bound
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.serial import serial
from fovcache.pipeline.stage import Stage

LEAST_SHARE_OF_BOUND = 0.95
LEAST_ITEMS_PER_S = 20_000
NUM_ITEMS_ALONE = 64
NUM_ITEMS = 6 * NUM_ITEMS_ALONE
NUM_RUNS = 3

CAPACITIES = {"network": 8, "cpu": 2, "gpu": 1, "disk": 1}


class Machine:
    """Resources that serve no more items at a time than their capacities say."""

    def __init__(self) -> None:
        self._slots = {name: threading.Semaphore(capacity) for name, capacity in CAPACITIES.items()}

    def stage(self, name: str, resource: str, duration_ms: float, *, spread: float = 0.0, **settings: Any) -> Stage:
        """A stage that takes `duration_ms` on average; with a `spread` of 1, anything up to twice as long."""
        chance = random.Random(name)
        late = threading.local()  # what a sleep took too long, the thread's next one makes up for
        factors = [1 + spread * chance.uniform(-1, 1) for _ in range(NUM_ITEMS_ALONE)]
        scale = duration_ms / 1000 / statistics.fmean(factors)

        def run(item: int) -> int:
            with self._slots[resource]:
                start = time.perf_counter()
                duration_s = factors[item % len(factors)] * scale - getattr(late, "by_s", 0.0)
                time.sleep(max(0.0, duration_s))
                late.by_s = time.perf_counter() - start - duration_s
            return item

        settings = {"num_workers": CAPACITIES[resource], **settings}
        return Stage(id=name, name=name, resource=resource, run=run, **settings)


def build_like(
    fetch_ms: float, decode_ms: float, encode_ms: float, write_ms: float, spread: float = 0.0
) -> list[Stage]:
    machine = Machine()
    return [
        machine.stage("fetch", "network", fetch_ms, spread=spread),
        machine.stage("decode", "cpu", decode_ms, spread=spread, timeout_s=60),
        machine.stage("encode", "gpu", encode_ms, spread=spread, in_caller=True),
        machine.stage("write", "disk", write_ms, spread=spread),
    ]


def two_on_the_gpu() -> list[Stage]:
    """Two stages that share the GPU: their demands add up."""
    machine = Machine()
    return [
        machine.stage("decode", "cpu", 5),
        machine.stage("vae_encode", "gpu", 2.5),
        machine.stage("encode", "gpu", 2, in_caller=True),
        machine.stage("write", "disk", 1),
    ]


def hashing() -> list[Stage]:
    """Two workers that work rather than sleep, on two cores, beside a GPU that is nearly as busy."""
    data = bytes(6 << 20)
    machine = Machine()

    def decode(item: int) -> int:
        hashlib.sha256(data)
        return item

    return [
        machine.stage("fetch", "network", 8),
        Stage(id="decode", name="decode", resource="cpu", run=decode, num_workers=2),
        machine.stage("encode", "gpu", 2, in_caller=True),
    ]


def regrouping() -> list[Stage]:
    """As a build: slots of 8 for the encoder, blocks of 4 slots for the writer."""

    def by(count: int) -> Callable[[Any], Any]:
        return lambda items: zip(*[items] * count, strict=True)

    def encode(slot: tuple[int, ...]) -> int:
        time.sleep(0.002 * len(slot))
        return slot[0]

    def write(block: tuple[int, ...]) -> int:
        time.sleep(0.04)
        return block[0]

    machine = Machine()
    return [
        machine.stage("fetch", "network", 8),
        machine.stage("decode", "cpu", 3, spread=0.9),
        Stage(id="encode", name="encode", resource="gpu", run=encode, regroup=by(8), in_caller=True, max_queued=32),
        Stage(id="write", name="write", resource="disk", run=write, regroup=by(4)),
    ]


CASES: dict[str, Callable[[], list[Stage]]] = {
    "network_bound": lambda: build_like(32, 4, 2, 1),
    "cpu_bound": lambda: build_like(8, 8, 2, 1),
    "gpu_bound": lambda: build_like(16, 4, 4, 1),
    "disk_bound": lambda: build_like(8, 4, 1, 4),
    "all_equal": lambda: build_like(32, 8, 4, 4),
    "uneven": lambda: build_like(16, 5, 4, 2, spread=0.9),
    "two_on_the_gpu": two_on_the_gpu,
    "hashing": hashing,
    "regrouping": regrouping,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_throughput_against_the_resource_bound(case: str, benchmark: BenchmarkFixture) -> None:
    """The median run, filling and draining included, reaches 95 % of the bound."""
    is_regrouping = case == "regrouping"
    num_items = NUM_ITEMS * (3 if is_regrouping else 1)  # a block takes long to fill and to write
    shares: list[float] = []

    def measure() -> None:
        stages = CASES[case]()
        _, alone = serial(stages, range(NUM_ITEMS_ALONE))
        demands = [(stage.resource, stage.busy_s / NUM_ITEMS_ALONE) for stage in alone.stages]
        pipeline = Pipeline(stages)
        start = time.perf_counter()
        num_results = sum(1 for _ in pipeline.run(range(num_items)))
        wall_s = time.perf_counter() - start
        assert num_results == (num_items // 32 if is_regrouping else num_items)
        shares.append(resource_bound(demands, CAPACITIES) * num_items / wall_s)

    benchmark.pedantic(measure, rounds=NUM_RUNS)
    benchmark.extra_info |= {"share_of_bound": shares, "median_share": statistics.median(shares)}
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert statistics.median(shares) >= LEAST_SHARE_OF_BOUND, shares


@pytest.mark.parametrize("kind", ["one_worker", "four_workers", "build_like"])
def test_overhead_per_item(kind: str, benchmark: BenchmarkFixture, has_bars: bool) -> None:
    """Four stages that do nothing."""
    settings: list[dict[str, Any]] = {
        "one_worker": [{}, {}, {}, {}],
        "four_workers": [{"num_workers": 4}] * 4,
        "build_like": [{"num_workers": 4}, {"num_workers": 4, "timeout_s": 60}, {"in_caller": True}, {}],
    }[kind]
    stages = [
        Stage(id=str(number), name=str(number), resource="cpu", run=lambda item: item, **each)
        for number, each in enumerate(settings)
    ]
    num_items = 10_000

    def run() -> int:
        return sum(1 for _ in Pipeline(stages).run(range(num_items)))

    assert benchmark.pedantic(run, rounds=10, warmup_rounds=1) == num_items
    if benchmark.stats is not None:
        items_per_s = num_items / benchmark.stats.stats.median
        benchmark.extra_info["items_per_s"] = items_per_s
        assert not has_bars or items_per_s >= LEAST_ITEMS_PER_S


def test_overhead_per_item_one_at_a_time(benchmark: BenchmarkFixture) -> None:
    stages = [Stage(id=str(number), name="", resource="cpu", run=lambda item: item) for number in range(4)]
    assert len(benchmark.pedantic(lambda: serial(stages, range(10_000))[0], rounds=10, warmup_rounds=1)) == 10_000
