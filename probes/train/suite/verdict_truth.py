"""How often the verdict claims a benefit where there is none, and finds one that there is.

`python -m fovcache.probes.train.suite.verdict_truth` prints the numbers of docs/training.md, by the code that judges
runs, on final losses drawn as those of training runs are: a seed moves all arms alike, and each run by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...statistics.equivalence import equivalence
from ..config import VerdictChoice
from ..result import BASE, CONTROL, DONE, MAIN, Evaluation, Run, Spent
from .verdict import judge

NUM_REPEATS = 2000
NUM_SEEDS = (3, 5)
CHOICE = VerdictChoice()
HEADER = """
| what is true | seeds | claimed | better than coarse | matched | shuffled worse | random fails | control |
|---|---|---|---|---|---|---|---|
"""
RATIO_HEADER = """
| true ratio | spread of a seed's ratio | seeds | found equivalent |
|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Mean final losses that are true."""

    name: str
    """What is true, in words."""
    means: Mapping[str, float] = field(hash=False)
    """By arm, on the task."""
    seed_sd: float
    """By which a seed moves all arms alike."""
    run_sd: float
    """Of a run by itself."""
    control_ratio: float = 1.0
    """Coarse by base on the control task."""
    control_sd: float = 0.004
    """Of a run of the control task by itself, relative."""


def _means(base: float, coarse: float, matched: float, random: float, shuffled: float) -> dict[str, float]:
    names = (BASE, CHOICE.coarse, CHOICE.coarse_matched, CHOICE.random, CHOICE.shuffled)
    return dict(zip(names, (base, coarse, matched, random, shuffled), strict=True))


WORLDS = (
    World(name="nothing helps", means=_means(1.3, 1.3, 1.3, 1.3, 1.3), seed_sd=0.02, run_sd=0.01),
    World(
        name="any second look helps, also at random", means=_means(1.2, 1.3, 1.3, 1.2, 1.25), seed_sd=0.02, run_sd=0.01
    ),
    World(name="only more compute helps", means=_means(1.2, 1.3, 1.2, 1.3, 1.3), seed_sd=0.02, run_sd=0.01),
    World(
        name="the control gains 10 % too",
        means=_means(0.01, 1.3, 1.29, 1.3, 1.31),
        seed_sd=0.02,
        run_sd=0.01,
        control_ratio=1.1,
    ),
    World(name="the cue task", means=_means(0.01, 1.3, 1.29, 1.3, 1.31), seed_sd=0.005, run_sd=0.005),
    World(name="5 % better", means=_means(1.235, 1.3, 1.3, 1.3, 1.3), seed_sd=0.02, run_sd=0.01),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Shares of repeats, from 0 to 1."""

    claimed: float
    """In which the verdict said that it helps."""
    conditions: tuple[float, ...]
    """In which each condition held."""


def simulate(world: World, num_seeds: int, num_repeats: int, *, seed: int = 0) -> Claims:
    """What the verdict says over and over."""
    chance = np.random.default_rng(seed)
    verdicts = [judge(_runs(world, num_seeds, chance), CHOICE) for _ in range(num_repeats)]
    held = np.mean([[each.holds is True for each in verdict.conditions] for verdict in verdicts], 0)
    return Claims(claimed=float(np.mean([verdict.helps for verdict in verdicts])), conditions=tuple(held.tolist()))


def simulate_ratio(ratio: float, sd: float, num_seeds: int, num_repeats: int, *, seed: int = 0) -> float:
    """Share of repeats in which a ratio is found equivalent to 1; at a bound of the tolerance .05 at most is right."""
    chance = np.random.default_rng(seed)
    ratios = ratio * np.exp(sd * chance.standard_normal((num_repeats, num_seeds)))
    return float(np.mean([equivalence(row, CHOICE.tolerance)[0] for row in ratios.tolist()]))


def _runs(world: World, num_seeds: int, chance: np.random.Generator) -> list[Run]:
    found = []
    for seed in range(num_seeds):
        shift = world.seed_sd * chance.standard_normal()
        for arm, mean in world.means.items():
            loss = mean + shift * min(1.0, mean) + world.run_sd * min(1.0, mean) * chance.standard_normal()
            found.append(run_of(arm, MAIN, seed, loss))
        for arm, mean in ((BASE, 0.7), (CHOICE.coarse, 0.7 * world.control_ratio)):
            loss = mean * (1 + shift + world.control_sd * chance.standard_normal())
            found.append(run_of(arm, CONTROL, seed, loss))
    return found


def run_of(arm: str, task: str, seed: int, loss: float) -> Run:
    """A finished run that ended with a loss, and nothing else of note."""
    return Run(
        arm=arm,
        task=task,
        seed=seed,
        state=DONE,
        samples_seen=1,
        steps=1,
        evaluations=(Evaluation(samples_seen=1, values={CHOICE.metric: loss}, seconds=0.0),),
        validation_hash="",
        num_validation=1,
        parameters=(),
        samples_per_second=1.0,
        data_wait_share=0.0,
        kernel_active_share=None,
        peak_memory_bytes=0,
        num_resumed=0,
        spent=Spent(compute_s=1.0, data_s=0.0, evaluation_s=0.0, checkpoint_s=0.0, other_s=0.0),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=NUM_REPEATS, help="suites of each world")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    sys.stdout.write(HEADER)
    for world in WORLDS:
        for num_seeds in NUM_SEEDS:
            found = simulate(world, num_seeds, options.repeats, seed=options.seed)
            shares = " | ".join(f"{share:.3f}" for share in (found.claimed, *found.conditions))
            sys.stdout.write(f"| {world.name} | {num_seeds} | {shares} |\n")
    sys.stdout.write(RATIO_HEADER)
    for ratio in (1.0, 1.01, 1.03, 0.97, 1.05):
        for sd in (0.005, 0.01, 0.02):
            for num_seeds in NUM_SEEDS:
                share = simulate_ratio(ratio, sd, num_seeds, 10 * options.repeats, seed=options.seed)
                sys.stdout.write(f"| {ratio:.2f} | {sd:.1%} | {num_seeds} | {share:.3f} |\n")


if __name__ == "__main__":
    main()
