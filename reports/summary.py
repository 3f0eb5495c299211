"""A report in ten seconds: a few sentences, a few figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fovcache.bench.profiler.result import Profile
from fovcache.maintain.contents import CacheContents
from fovcache.probes.result import RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, ArmComparison, Estimate
from fovcache.probes.train.result import TrainSuite

from .baseline import baseline_accuracy, linear_baseline
from .cells import chance, choosable, chosen, key_of, trials_by_cell
from .difference_forest import LEVEL, is_told
from .names import listed, shown
from .numbers import SPACE, count, digits, duration, interval, percent, rate, size
from .quality_view import in_a_sentence
from .results import Build, Results
from .table import Cell
from .train_view import in_a_sentence as training_in_a_sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One figure."""

    title: str
    """What it is of."""
    figure: Cell
    """The number."""
    note: str
    """In small letters below it."""


def sentences(results: Results) -> list[str]:
    """What a colleague should know, in the order of the report."""
    said = [sentence for profile in results.profiles.values() for sentence in _of_profile(profile)]
    said += _of_builds(results.builds)
    said += [_of_cache(cache) for cache in results.caches]
    said += [in_a_sentence(quality) for quality in results.qualities.values()]
    for file, ablation in results.ablations.items():
        of = f"Ablation {shown(ablation.name, 40)}: " if len(results.ablations) > 1 else ""
        said += [f"{of}{sentence}" for sentence in _of_ablation(ablation, results.arms.get(file, ()))]
    return said + [training_in_a_sentence(suite) for suite in results.trainings.values()]


def cards(results: Results) -> list[Card]:
    """Of the first profile, the builds, the first ablation and the first training."""
    found = [card for profile in list(results.profiles.values())[:1] for card in _cards_of_profile(profile)]
    found += list(_cards_of_builds(results.builds))
    found += [card for each in list(results.ablations.values())[:1] for card in _cards_of_ablation(each)]
    return found + [card for each in list(results.trainings.values())[:1] for card in _cards_of_training(each)]


def shuffled_above_chance(ablation: Ablation) -> tuple[int, int]:
    """(how many shuffled-label estimates have an interval that lies above chance, how many there are)."""
    found = [each for each in ablation.estimates if each.control == SHUFFLED_LABELS]
    return sum(each.ci95 is not None and each.ci95[0] > each.chance for each in found), len(found)


def _of_profile(profile: Profile) -> Iterator[str]:
    if profile.overlapped is None:
        return
    now = profile.overlapped
    text = f"A sample takes {duration(now.s_per_sample)} ({rate(now.samples_per_hour)}), stages overlapped"
    if profile.bottleneck is not None:
        names = {stage.id: stage.name for stage in profile.stages}
        text += f"; the bottleneck is {shown(names.get(profile.bottleneck.stage, profile.bottleneck.stage))}"
    text += f": the device waits {percent(now.stall)} of the time."
    best = max(profile.predicted, key=lambda each: each.samples_per_hour, default=None)
    if best is not None and best.speedup > 1:
        measured = f" ({rate(best.measured.samples_per_hour)} measured)" if best.measured else ""
        text += f" Largest predicted gain: {shown(best.change)}, ×{digits(best.speedup)}{measured}."
    yield text


def _cold_and_warm(builds: Sequence[Build]) -> tuple[Build, Build] | None:
    """A build that computed something, and one of the same dataset that had nothing to compute."""
    for cold in builds:
        for warm in builds:
            if cold.computed and warm.reused and not warm.computed and warm.dataset == cold.dataset:
                return cold, warm
    return None


def _of_builds(builds: Sequence[Build]) -> Iterator[str]:
    pair = _cold_and_warm(builds)
    if pair is not None:
        cold, warm = pair
        yield (
            f"Building the features of {count(cold.computed)} samples took {duration(cold.seconds)}; building again "
            f"computed none of {count(warm.samples)} and took {duration(warm.seconds)}."
        )
    elif builds:
        computed, reused = (sum(getattr(each, name) for each in builds) for name in ("computed", "reused"))
        seconds = duration(sum(each.seconds for each in builds))
        yield f"Building the cache computed {count(computed)} samples and reused {count(reused)}, in {seconds}."


def _of_cache(cache: CacheContents) -> str:
    plain = [each for each in cache.features if each.representation is None]
    samples = sum(each.num_samples for each in cache.datasets)
    failed = sum(group.num_samples for each in cache.datasets for group in each.failures)
    datasets = f" in {count(len(cache.datasets))} datasets" if len(cache.datasets) > 1 else ""
    text = f"The cache holds {count(samples)} samples{datasets} ({listed(each.name for each in cache.datasets)})"
    text += f" and {count(len(plain))} features of {listed(sorted({each.encoder for each in plain}), 4)}"
    derived = len(cache.features) - len(plain)
    text += f", {count(derived)} derived from them" if derived else ""
    text += f", in {size(cache.shard_bytes)}"
    text += f"; {count(failed)} samples failed and are in the ledger" if failed else "; no sample failed"
    return text + (f"; {count(cache.num_lost)} blocks are damaged or gone." if cache.num_lost else ".")


def _of_ablation(ablation: Ablation, arms: Sequence[ArmComparison]) -> Iterator[str]:
    best, num_cells = chosen(ablation), len(choosable(ablation))
    if best is not None:
        within = f", 95{SPACE}% interval {interval(best.ci95)}" if best.ci95 else ""
        among = f", which of {count(num_cells)} cells has the highest validation accuracy" if num_cells > 1 else ""
        yield (
            f"Test accuracy of {shown(best.representation, 40)} of {shown(best.experiment, 40)}{among}: "
            f"{percent(best.mean)}{within}, where chance is {percent(best.chance)}, with {count(best.num_effective)} "
            f"effective features{_sizes(ablation, best)}.{_linear(ablation, arms, best)}"
        )
    said = []
    above, num = shuffled_above_chance(ablation)
    if num:
        those = "none" if not above else count(above)
        said.append(
            f"{those} of {count(num)} estimates with shuffled labels {'lie' if above > 1 else 'lies'} above chance (by "
            f"accident about {0.025 * num:.1f} do)"
        )
    better, compared = _better_than_random(ablation)
    if compared:
        said.append(
            f"{count(better)} of {count(compared)} sets of layers are better than as many random ones (p < {LEVEL:g}, "
            "all differences counted)"
        )
    if said:
        yield f"Controls: {'; '.join(said)}."


def _sizes(ablation: Ablation, best: Estimate) -> str:
    trials = trials_by_cell(ablation).get(key_of(best))
    return f" and {count(trials[0].num_train)} samples in train" if trials else ""


def _linear(ablation: Ablation, arms: Sequence[ArmComparison], best: Estimate) -> str:
    arm = linear_baseline(ablation, arms)
    reached = baseline_accuracy(arm, best) if arm else None
    return (
        "" if arm is None or reached is None else f" A linear head, arm {shown(arm.arm)}, reaches {percent(reached)}."
    )


def _better_than_random(ablation: Ablation) -> tuple[int, int]:
    """(how many experiments are better than as many random layers when all differences are counted, of how many)."""
    found = [each for each in ablation.differences if each.other_control == RANDOM_LAYERS and each.p_holm is not None]
    return sum(is_told(each) and each.mean > 0 for each in found), len(found)


def _cards_of_profile(profile: Profile) -> Iterator[Card]:
    now = profile.overlapped
    if now is None:
        return
    yield Card(
        title="Samples an hour, measured",
        figure=Cell(text=digits(now.samples_per_hour), value=now.samples_per_hour),
        note=f"{duration(now.s_per_sample)} a sample; the device waits {percent(now.stall)} of the time",
    )
    best = max(profile.predicted, key=lambda each: each.samples_per_hour, default=None)
    if best is not None and best.speedup > 1:
        yield Card(
            title="Largest gain, predicted",
            figure=Cell(text=f"×{digits(best.speedup)}", value=best.speedup),
            note=shown(best.change),
        )


def _cards_of_builds(builds: Sequence[Build]) -> Iterator[Card]:
    pair = _cold_and_warm(builds)
    if pair is not None:
        cold, warm = pair
        yield Card(
            title="Building again",
            figure=Cell(text=duration(warm.seconds), value=warm.seconds),
            note=f"nothing computed; the first time {duration(cold.seconds)}",
        )


def _cards_of_ablation(ablation: Ablation) -> Iterator[Card]:
    best = chosen(ablation)
    if best is not None:
        within = f"{interval(best.ci95)}; " if best.ci95 else ""
        among = ", the best on validation" if len(choosable(ablation)) > 1 else ""
        yield Card(
            title="Test accuracy",
            figure=Cell(text=percent(best.mean), value=best.mean),
            note=f"{within}chance {percent(best.chance)}; "
            f"{shown(best.representation, 40)} of {shown(best.experiment, 40)}{among}",
        )
    shuffled = [each.mean for each in ablation.estimates if each.control == SHUFFLED_LABELS]
    if shuffled:
        yield Card(
            title="Control: shuffled labels",
            figure=Cell(text=percent(statistics.fmean(shuffled)), value=statistics.fmean(shuffled)),
            note=f"mean of {count(len(shuffled))} estimates; chance {percent(chance(ablation))}",
        )


def _cards_of_training(suite: TrainSuite) -> Iterator[Card]:
    if suite.verdict is None:
        return
    conditions = suite.verdict.conditions
    num = sum(each.holds is True for each in conditions)
    yield Card(
        title=f"Verdict: {shown(suite.name, 40)}",
        figure=Cell(text="helps" if suite.verdict.helps else "no benefit claimed"),
        note=f"{count(num)} of {count(len(conditions))} conditions hold",
    )
