"""The drop of an ablation whose truth is known: how often its sign and its interval are right.

    python -m fovcache.bench.lora_truth [--suites 1000] [--seed 0] [--processes N] [--only SCENARIO]

A suite is a small ablation by the protocol's own code: 300 made LoRAs, `simple_stats` of each matrix, ridge with its
strength chosen on validation, ten seeds, all matrices beside some of them. The drop is the accuracy of all less that of
some, paired by seed. It is estimated on each of many suites, and known from fresh samples.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.console import progress_bar
from fovcache.probes.one_thread import one_thread
from fovcache.probes.splits import GIVEN, RESPLIT, TEST, TRAIN, SplitRule
from fovcache.probes.statistics.coverage import Draw, joined, split_of, trial_of, truth_of
from fovcache.probes.statistics.intervals import Interval, corrected_resampled_interval, items_interval
from fovcache.probes.statistics.resplits import resplits_interval

from .made_loras.gauge import ORTHOGONAL
from .made_loras.population import TEXT_DOWN, LoraPopulation

NUM_SUITES = 1000
TEST_SHARE, VALIDATION_SHARE = 0.201, 0.099
"""Of a resplit, as in the experiment that this is a small copy of."""
_NUM_WINDOWS = 6
"""Sets of fresh samples, which suites take in turn: one would be wrong in the same way for all."""
_BLOCKS = (
    "down_blocks.0.attentions.0",
    "down_blocks.2.attentions.0",
    "mid_block.attentions.0",
    "up_blocks.2.attentions.1",
)
_NARROWING = 16

SUBSETS: Mapping[str, Callable[[str], bool]] = {
    "visual": lambda name: not name.endswith(TEXT_DOWN),
    "attn1": lambda name: ".attn1." in name,
}
"""Which matrices each experiment takes, by name; it is compared with all of them."""
BY_ANSWERS, BY_SEEDS = "resplit, by answers", "resplit, corrected t over seeds"
BY_ITEMS = "given"
INTERVALS = (BY_ANSWERS, BY_SEEDS, BY_ITEMS)
"""How a suite is divided and its interval is made. The truth is of heads fitted on a new train set in all of them."""
HEADER = """
| signal in | all less | interval | truth | mean estimate | coverage | median width | right sign | wrong side of 0 |
|---|---|---|---:|---:|---:|---:|---:|---:|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSize:
    """How much a suite takes."""

    num_samples: int = 300
    """That resplits divide, or that train and validation are of; a given test set has half as many more."""
    num_seeds: int = 10
    """Of each experiment."""
    num_fresh: int = 10_000
    """Test samples that a truth is computed from: some of those that no suite is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A population, and which drops it must show."""

    name: str
    """What the table calls it."""
    population: LoraPopulation
    """Of four blocks, a sixteenth as wide, so that a thousand suites take minutes."""

    def loses(self, subset: str) -> bool:
        """Whether matrices with signal are left out of a subset."""
        population = self.population
        return bool(population.text_signal or (population.attn2_signal and subset == "attn1"))


def _scenario(name: str, **knobs: Any) -> Scenario:
    blocks = tuple(f"{block}.transformer_blocks.0" for block in _BLOCKS)
    made = LoraPopulation(blocks=blocks, narrowing=_NARROWING, gauge=ORTHOGONAL)
    return Scenario(name=name, population=replace(made, **knobs))


SCENARIOS = (
    _scenario("attn1", attn1_signal=0.8),
    _scenario("attn2", attn2_signal=0.8),
    _scenario("both", attn1_signal=0.6, attn2_signal=0.6),
    _scenario("attn2.to_v.down", text_signal=0.6),
    _scenario("both, groups of 3", attn1_signal=0.6, attn2_signal=0.6, group_effect=0.4, group_size=3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One drop in one suite."""

    mean: float
    """The estimate."""
    bounds: tuple[float, float] | None
    """Its interval."""
    truth: float
    """Of one head on fresh samples; expected is the mean over suites."""


Suite = dict[tuple[str, str], Drop]
"""By subset and kind of interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCoverage:
    """What one drop came to over all suites."""

    scenario: str
    """Its name."""
    subset: str
    """What is compared with all matrices."""
    interval: str
    """One of INTERVALS."""
    num_suites: int
    """Over which."""
    loses: bool
    """Whether the subset leaves matrices with signal out, so that the truth is a drop."""
    truth: float
    """Expected drop, by Monte Carlo."""
    truth_error: float
    """Its standard error."""
    mean: float
    """Of the estimates."""
    coverage: float
    """Share of intervals that held the truth; a suite without an interval does not."""
    median_width: float
    """Of the intervals."""
    right_sign: float
    """Share of estimates with the truth's sign."""
    wrong_side: float
    """Share of intervals that lie wholly on the other side of zero than the truth."""
    num_without: int
    """Suites without an interval, because every seed gave the same difference."""

    @property
    def error(self) -> float:
        """Standard error of `coverage`, from the number of suites."""
        return math.sqrt(self.coverage * (1 - self.coverage) / self.num_suites)


def simulate(
    scenario: Scenario,
    num_suites: int,
    *,
    size: SuiteSize | None = None,
    seed: int = 0,
    processes: int = 1,
    on_progress: OnProgress = silent,
) -> list[DropCoverage]:
    """One for each subset and kind of interval; the same for any number of processes."""
    seeded = replace(scenario, population=replace(scenario.population, seed=seed))
    run = functools.partial(run_suite, seeded, size or SuiteSize())
    suites: list[Suite] = []
    for suite in _mapped(run, num_suites, processes):
        suites.append(suite)
        on_progress(Progress(stage=scenario.name, done=len(suites), total=num_suites))
    return [
        _summary(scenario, subset, interval, [suite[subset, interval] for suite in suites])
        for subset in SUBSETS
        for interval in INTERVALS
    ]


@one_thread()
def run_suite(scenario: Scenario, size: SuiteSize, number: int) -> Suite:
    """The drops of suite `number`, by subset and kind of interval: of samples that are in no other suite."""
    population = scenario.population
    sizes = [_whole(population, num) for num in (size.num_samples, size.num_samples // 2, size.num_samples)]
    num_fresh = _whole(population, size.num_fresh)
    starts = _NUM_WINDOWS * num_fresh + number * sum(sizes) + np.cumsum([0, *sizes[:-1]])
    data, test, other = (lora_draw(population, num, int(start)) for num, start in zip(sizes, starts, strict=True))
    fresh = _fresh(population, num_fresh, number % _NUM_WINDOWS)
    resplit, given = (
        SplitRule(kind=kind, test=TEST_SHARE, validation=VALIDATION_SHARE, group=population.group_size > 1)
        for kind in (RESPLIT, GIVEN)
    )
    both, splits = joined(data, test), [TRAIN] * len(data.y) + [TEST] * len(test.y)
    divided = [split_of(data, resplit, seed) for seed in range(size.num_seeds)]
    redrawn = [split_of(both, given, seed, splits) for seed in range(size.num_seeds)]
    found = {}
    for name, columns in _columns(population).items():
        seen = {each: _seen(draw, columns) for each, draw in enumerate((data, both, other, fresh))}
        found[name] = _Answers(
            resplit=[trial_of(seen[0].x, data.y, side).correct for side in divided],
            given=np.stack([trial_of(seen[1].x, both.y, side).correct for side in redrawn]),
            of_new=truth_of(seen[2], resplit, [0], seen[3]),
            of_given=truth_of(seen[1], given, [size.num_seeds], seen[3], splits),
        )
    drops: Suite = {}
    for subset in SUBSETS:
        off = found["all"].less(found[subset])
        num_test = len(divided[0].test)
        num_rest = len(data.y) - num_test
        tested = [side.test for side in divided]
        by_answers = resplits_interval(off.resplit, tested, [data.y[each] for each in tested], num_rest, data.groups)
        means = [float(each.mean()) for each in off.resplit]
        by_seeds = corrected_resampled_interval(means, num_rest, num_test, difference=True)
        by_items = items_interval(off.given, test.groups, test.y, difference=True)
        drops[subset, BY_ANSWERS] = _drop(by_answers, off.of_new)
        drops[subset, BY_SEEDS] = _drop(by_seeds, off.of_new)
        drops[subset, BY_ITEMS] = _drop(by_items, off.of_given)
    return drops


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """Of heads that see some columns; or differences of two such."""

    resplit: list[np.ndarray]
    """Right or wrong [test samples] for each seed."""
    given: np.ndarray
    """Right or wrong [seeds, test samples]."""
    of_new: float
    """The accuracy on fresh samples of a head from a new data set that was resplit."""
    of_given: float
    """That of another head from the given train set, which is another one in every suite."""

    def less(self, other: _Answers) -> _Answers:
        """The differences."""
        return _Answers(
            resplit=[one.astype(np.int64) - two for one, two in zip(self.resplit, other.resplit, strict=True)],
            given=self.given.astype(np.int64) - other.given,
            of_new=self.of_new - other.of_new,
            of_given=self.of_given - other.of_given,
        )


@functools.lru_cache(maxsize=_NUM_WINDOWS)
def _fresh(population: LoraPopulation, num: int, window: int) -> Draw:
    return lora_draw(population, num, window * num)


def _whole(population: LoraPopulation, num: int) -> int:
    """At least `num` samples, as many of each class, and no part of a group."""
    unit = len(population.classes) * population.group_size
    return -(-num // unit) * unit


def lora_draw(population: LoraPopulation, num: int, start: int) -> Draw:
    """Samples as `simple_stats` of each matrix, in the order of `_columns`."""
    import torch
    from blake3 import blake3

    from fovcache.derived.batches import compute_rows
    from fovcache.derived.representation import resolve_representation

    stats = resolve_representation("simple_stats")
    factors = population.draw(num, start)
    rows = [compute_rows(stats, torch.from_numpy(factor), device="cpu").numpy() for factor in factors.values()]
    x_ND = np.concatenate(rows, axis=1)
    keys = np.frombuffer(b"".join(blake3(row.tobytes()).digest() for row in x_ND), np.uint8).reshape(num, 32)
    return Draw(x=x_ND, y=population.labels(num, start), keys=keys, groups=population.groups(num, start))


def _columns(population: LoraPopulation) -> dict[str, np.ndarray]:
    """Columns of all matrices, and of each subset."""
    names = population.layout.names
    width = 5  # of simple_stats
    takes = {"all": lambda name: True, **SUBSETS}
    return {key: np.repeat([take(name) for name in names], width).nonzero()[0] for key, take in takes.items()}


def _seen(draw: Draw, columns: np.ndarray) -> Draw:
    return replace(draw, x=draw.x[:, columns])


def _drop(interval: Interval, truth: float) -> Drop:
    return Drop(mean=interval.mean, bounds=interval.bounds, truth=truth)


def _summary(scenario: Scenario, subset: str, interval: str, drops: Sequence[Drop]) -> DropCoverage:
    truths = np.array([drop.truth for drop in drops])
    truth = float(truths.mean())
    bounds = np.array([drop.bounds or (drop.mean, drop.mean) for drop in drops])
    means = np.array([drop.mean for drop in drops])
    holds = (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
    sign = np.sign(truth)
    return DropCoverage(
        scenario=scenario.name,
        subset=subset,
        interval=interval,
        num_suites=len(drops),
        loses=scenario.loses(subset),
        truth=truth,
        truth_error=float(truths.std(ddof=1)) / math.sqrt(len(drops)),
        mean=float(means.mean()),
        coverage=float(holds.mean()),
        median_width=float(np.median(bounds[:, 1] - bounds[:, 0])),
        right_sign=float((np.sign(means) == sign).mean()),
        wrong_side=float(((bounds * -sign).min(axis=1) > 0).mean()),
        num_without=sum(drop.bounds is None for drop in drops),
    )


def _mapped(run: Callable[[int], Suite], num: int, processes: int) -> Iterator[Suite]:
    if processes == 1:
        yield from map(run, range(num))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, range(num), chunksize=4)


def table_row(row: DropCoverage) -> str:
    """A row of the table that HEADER begins."""
    without = f", {row.num_without} without" if row.num_without else ""
    return (
        f"| {row.scenario} | {row.subset} | {row.interval} | {row.truth:+.4f} ± {row.truth_error:.4f} "
        f"| {row.mean:+.4f} | {row.coverage:.3f} ± {row.error:.3f}{without} | {row.median_width:.3f} "
        f"| {row.right_sign:.3f} | {row.wrong_side:.3f} |\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate all scenarios and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=NUM_SUITES, metavar="N", help="of each scenario")
    parser.add_argument("--seed", type=int, default=0, help="of the populations")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="at work at once")
    usual = SuiteSize()
    parser.add_argument("--samples", type=int, default=usual.num_samples, metavar="N", help="of a suite")
    parser.add_argument("--seeds", type=int, default=usual.num_seeds, metavar="N", help="of each experiment")
    parser.add_argument("--fresh", type=int, default=usual.num_fresh, metavar="N", help="samples that a truth is from")
    parser.add_argument("--only", choices=[each.name for each in SCENARIOS], help="one scenario; else all")
    options = parser.parse_args(arguments)
    size = SuiteSize(num_samples=options.samples, num_seeds=options.seeds, num_fresh=options.fresh)
    sys.stdout.write(HEADER)
    with progress_bar() as show:
        for scenario in SCENARIOS:
            if options.only not in (None, scenario.name):
                continue
            rows = simulate(
                scenario,
                options.suites,
                size=size,
                seed=options.seed,
                processes=options.processes,
                on_progress=show,
            )
            sys.stdout.writelines(map(table_row, rows))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
