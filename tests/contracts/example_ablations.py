"""Ablations for tests of reports: made up, but such as `fovbench ablate` writes."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fovcache.probes.result import (
    CONTROLS,
    NO_CONTROL,
    RANDOM_LAYERS,
    SHUFFLED_LABELS,
    Ablation,
    ArmComparison,
    Difference,
    Estimate,
    FeatureUsed,
    Metrics,
    Trial,
)
from fovcache.probes.statistics.metrics import Calibration, calibration, confusion_matrix, macro_f1, recalls

REPRESENTATIONS = (
    "simple_stats", "stats", "rank_based", "distribution", "spectral", "matrix_norms", "frequency", "info_theoretic",
    "ensemble", "flat_vec",
)  # fmt: skip
CHANCE = 0.104
_WIDTHS = dict(zip(REPRESENTATIONS, (5, 7, 11, 12, 32, 7, 14, 2, 67, 192), strict=True))
_STRENGTH_OF = dict(zip(REPRESENTATIONS, (0.45, 0.5, 0.55, 0.57, 0.62, 0.5, 0.6, 0.3, 0.7, 0.82), strict=True))
_T_95 = {2: 12.71, 3: 4.303, 5: 2.776, 10: 2.262}
_NUM_TEST = 240
_NUM_CLASSES = 10


def made_ablation(
    representations: Sequence[str] = REPRESENTATIONS[:6],
    experiments: Mapping[str, int] = {"all": 12, "early": 4, "late": 4},
    num_layers: int = 12,
    num_seeds: int = 5,
    controls: Sequence[str] = CONTROLS,
) -> Ablation:
    """Experiments are name → number of layers; the later the layers the better, and the more."""
    layers = tuple(f"blocks.{number}" for number in range(num_layers))
    chosen = {
        name: layers[-num:] if name.startswith("late") else layers[:num] for name, num in experiments.items()
    }  # fmt: skip
    generator = np.random.default_rng(5)
    cells = list(itertools.product(representations, chosen.items(), controls))
    cells += [(name, (layer, (layer,)), NO_CONTROL) for name in representations for layer in layers]
    trials = [
        _trial(name, experiment, control, used, layers, seed, generator)
        for name, (experiment, used), control in cells
        for seed in range(num_seeds)
    ]
    groups = itertools.groupby(trials, key=lambda trial: (trial.representation, trial.experiment, trial.control))
    by_cell = [list(group) for _, group in groups]
    return Ablation(
        name="digits",
        cache="cache",
        dataset="digits",
        dataset_digest="697d81e70825d7266703439aaacd27f414d85fc249fd7d33aa2541a0a7ecfd0e",
        num_samples=1197,
        num_missing=3,
        classes=tuple(str(digit) for digit in range(_NUM_CLASSES)),
        class_counts=(120, 124, 119, 121, 118, 120, 119, 117, 119, 120),
        experiments=chosen,
        single_layers=layers,
        protocol={
            "version": 2,
            "split": {"kind": "resplit", "test": 0.2, "validation": 0.15, "group": True},
            "head": "linear",
            "settings": {"learning_rates": [0.0001, 0.001], "weight_decays": [0.0]},
            "seeds": list(range(num_seeds)),
            "seed_varies": "the split into train, validation and test, and which layers the random control draws",
            "standardised": "each column, by train's mean and standard deviation",
            "num_groups": 599,
        },
        estimand="the expected test accuracy of a head trained on a random 65 % of samples such as these",
        interval="Student's t over seeds with the corrected resampled variance (Nadeau & Bengio 2003)",
        features=tuple(
            FeatureUsed(
                encoder="vit",
                layer=layer,
                pool="tokens",
                row_shape=(197, 192),
                feature=f"{number:02x}" * 32,
                recipe="07e4030cc2152de6a9645190e32bbb266c0c7300805eae272ce9b5d76d4b41ff",
                weights="random:0",
            )
            for number, layer in enumerate(layers, 16)
        ),
        estimates=tuple(map(_estimate, by_cell)),
        metrics=tuple(map(_metrics, by_cell)),
        trials=tuple(trials),
        differences=tuple(_corrected(list(_differences(trials, list(chosen))))),
        environment={
            "cpu": "AMD EPYC 7B13",
            "cores": 4,
            "versions": {"fovcache": "0.1.0", "torch": "2.13.0", "scikit-learn": "1.8.0"},
        },
        warnings=("3 of 1,200 samples have no features and are left out: the cache's ledger says why",),
    )


def _trial(
    name: str, experiment: str, control: str, used: tuple[str, ...], layers: tuple[str, ...], seed: int,
    generator: np.random.Generator,
) -> Trial:  # fmt: skip
    if control == RANDOM_LAYERS:
        used = tuple(sorted(str(layer) for layer in generator.choice(layers, len(used), replace=False)))
    depth = statistics.mean(layers.index(layer) + 1 for layer in used) / len(layers)
    truth = CHANCE + (1 - CHANCE) * _STRENGTH_OF.get(name, 0.5) * (0.35 + 0.65 * depth) * (1 + 0.1 * len(used) / 12)
    truth = CHANCE - 0.004 if control == SHUFFLED_LABELS else min(truth, 0.985)
    found = [int(generator.binomial(num, share)) / num for num, share in ((780, min(truth + 0.05, 1)), (177, truth))]
    num_features = _WIDTHS.get(name, 8) * len(used)
    return Trial(
        key=f"{name}/{experiment}/{control}/{seed}",
        representation=name,
        experiment=experiment,
        control=control,
        seed=seed,
        layers=used,
        head="linear",
        setting={"learning_rate": 0.001, "weight_decay": 0.0},
        num_train=780,
        num_validation=177,
        num_test=_NUM_TEST,
        num_features=num_features,
        num_effective=num_features - len(used) // 2,
        train_accuracy=found[0],
        validation_accuracy=found[1],
        test_accuracy=int(generator.binomial(_NUM_TEST, truth)) / _NUM_TEST,
        chance=CHANCE + 0.002 * (seed - 1),
        seconds=0.031,
        samples_seen=780 * 20,
        notes=("not converged after 1000 iterations",) if (control, seed) == (NO_CONTROL, 1) else (),
    )


def _estimate(trials: list[Trial]) -> Estimate:
    accuracies = [trial.test_accuracy for trial in trials]
    mean, num = statistics.mean(accuracies), len(trials)
    sd = statistics.stdev(accuracies) if num > 1 else 0.0
    half = _half(accuracies) if num > 1 else math.nan
    first = trials[0]
    return Estimate(
        representation=first.representation,
        experiment=first.experiment,
        control=first.control,
        num_seeds=num,
        mean=mean,
        sd=sd,
        ci95=(max(mean - half, 0.0), min(mean + half, 1.0)) if num > 1 else None,
        chance=statistics.mean(trial.chance for trial in trials),
        num_layers=len(first.layers),
        num_features=first.num_features,
        num_effective=first.num_effective,
    )


def _differences(trials: list[Trial], experiments: list[str]) -> Iterator[Difference]:
    """Each experiment less its random layers, and less the first."""
    by_cell: dict[tuple[str, str, str], list[float]] = {}
    for trial in trials:
        cell = trial.representation, trial.experiment, trial.control
        by_cell.setdefault(cell, []).append(trial.test_accuracy)
    for (name, experiment, control), mine in by_cell.items():
        if control != NO_CONTROL or experiment not in experiments:
            continue
        for other, other_control in ((experiment, RANDOM_LAYERS), (experiments[0], NO_CONTROL)):
            theirs = by_cell.get((name, other, other_control))
            if theirs is None or theirs is mine:
                continue
            pairs = [one - two for one, two in zip(mine, theirs, strict=True)]
            mean = statistics.mean(pairs)
            half = _half(pairs) if len(pairs) > 1 else None
            sd = statistics.stdev(pairs) if half else 0.0
            yield Difference(
                representation=name,
                experiment=experiment,
                other=other,
                other_control=other_control,
                num_seeds=len(pairs),
                mean=mean,
                ci95=(mean - half, mean + half) if half is not None else None,
                p=math.exp(-2 * abs(mean) / half) if half else None,
                test="corrected resampled t over resplits, paired, two-sided (Nadeau & Bengio 2003)" if half else "",
                effect_size=mean / sd if sd else None,
                smallest_p=2.0 ** (1 - len(pairs)),
                to_resolve="half the interval is 4.1 points: 1 point takes about 20,000 samples" if half else "",
            )


def _corrected(differences: list[Difference]) -> Iterator[Difference]:
    """With all p by Holm's method."""
    at_least = 0.0
    p_holm: dict[int, float] = {}
    tested = sorted((each.p, place) for place, each in enumerate(differences) if each.p is not None)
    for rank, (p, place) in enumerate(tested):
        at_least = p_holm[place] = max(at_least, min(1.0, p * (len(tested) - rank)))
    yield from (replace(each, p_holm=p_holm.get(place)) for place, each in enumerate(differences))


def _metrics(trials: list[Trial]) -> Metrics:
    """Of answers that are right as often as the trials say."""
    found = [_answers(trial) for trial in trials]
    confusions = [confusion_matrix(labels, predictions, _NUM_CLASSES) for labels, predictions, _ in found]
    recalls_SK = np.stack([recalls(each) for each in confusions])
    told = [calibration(*each) for each in found]
    first = trials[0]
    return Metrics(
        representation=first.representation,
        experiment=first.experiment,
        control=first.control,
        num_seeds=len(trials),
        confusion=tuple(map(tuple, np.sum(confusions, 0).tolist())) if first.control == NO_CONTROL else (),
        class_accuracies=tuple(recalls_SK.mean(0).tolist()),
        class_intervals=tuple(_interval(each) for each in recalls_SK.T.tolist()),
        balanced_accuracy=float(recalls_SK.mean()),
        macro_f1=statistics.mean(map(macro_f1, confusions)),
        calibration_error=statistics.mean(each.error for each in told),
        brier=statistics.mean(each.brier for each in told),
        log_loss=statistics.mean(each.log_loss for each in told),
        reliability=_reliability(told),
    )


def _answers(trial: Trial) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and probabilities of a trial: so many right, the others a neighbour, mostly the next."""
    chance = np.random.default_rng(trial.seed)
    labels = np.arange(_NUM_TEST) % _NUM_CLASSES
    off = np.where(chance.random(_NUM_TEST) < 0.8, 1, 3)
    off[chance.permutation(_NUM_TEST)[: round(trial.test_accuracy * _NUM_TEST)]] = 0
    predictions = (labels + off) % _NUM_CLASSES
    confidence = np.where(off == 0, 1 - 0.5 * chance.random(_NUM_TEST) ** 2, 0.3 + 0.6 * chance.random(_NUM_TEST))
    probabilities = np.repeat(((1 - confidence) / (_NUM_CLASSES - 1))[:, None], _NUM_CLASSES, axis=1)
    probabilities[np.arange(_NUM_TEST), predictions] = confidence
    return labels, predictions, probabilities


def _reliability(told: list[Calibration]) -> tuple[tuple[int, float, float], ...]:
    num, confidence, right = (
        np.sum([getattr(each, name) for each in told], 0) for name in ("num_B", "confidence_B", "correct_B")
    )
    at_least_one = np.maximum(num, 1)
    return tuple(zip(num.tolist(), (confidence / at_least_one).tolist(), (right / at_least_one).tolist(), strict=True))


def _interval(values: list[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    mean, half = statistics.mean(values), _half(values)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _half(values: list[float]) -> float:
    """Half of a 95 % interval of the mean over resplits."""
    num = len(values)
    return _T_95.get(num, 2.1) * statistics.stdev(values) * math.sqrt(1 / num + 0.25)


@functools.cache
def full_ablation() -> Ablation:
    """Six representations, three experiments, twelve layers, five seeds, both controls."""
    return made_ablation()


def minimal_ablation() -> Ablation:
    """One representation, one experiment, one seed: no interval, no control, no single layers, no warning."""
    ablation = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=1, controls=[NO_CONTROL])
    kept = [each for each in ablation.estimates if each.experiment == "all"]
    return replace(
        ablation,
        single_layers=(),
        estimates=tuple(kept),
        metrics=tuple(each for each in ablation.metrics if each.experiment == "all"),
        trials=tuple(trial for trial in ablation.trials if trial.experiment == "all"),
        num_missing=0,
        differences=(),
        warnings=(),
    )


def hostile_ablation(text: str) -> Ablation:
    """`text` in place of every name that comes from files, told apart by a number where they must be."""
    ablation = made_ablation(["stats", "spectral"], {"all": 3, "late": 2}, num_layers=3)
    names: dict[str, str] = {}

    def hostile(name: str) -> str:
        return names.setdefault(name, f"{text}{len(names)}")

    return replace(
        ablation,
        name=text,
        cache=text,
        dataset=text,
        classes=tuple(map(hostile, ablation.classes)),
        experiments={hostile(name): tuple(map(hostile, layers)) for name, layers in ablation.experiments.items()},
        single_layers=tuple(map(hostile, ablation.single_layers)),
        protocol={text: text, "nested": {text: [text]}},
        estimand=text,
        interval=text,
        features=tuple(
            replace(each, encoder=text, layer=hostile(each.layer), pool=text, feature=text, recipe=text, weights=text)
            for each in ablation.features
        ),
        estimates=tuple(
            replace(each, representation=hostile(each.representation), experiment=hostile(each.experiment))
            for each in ablation.estimates
        ),
        trials=tuple(
            replace(
                trial,
                representation=hostile(trial.representation),
                experiment=hostile(trial.experiment),
                layers=tuple(map(hostile, trial.layers)),
                notes=(text,),
            )
            for trial in ablation.trials
        ),
        differences=tuple(
            replace(
                each,
                representation=hostile(each.representation),
                experiment=hostile(each.experiment),
                other=hostile(each.other),
                test=text,
                to_resolve=text,
            )
            for each in ablation.differences
        ),
        metrics=tuple(
            replace(each, representation=hostile(each.representation), experiment=hostile(each.experiment))
            for each in ablation.metrics
        ),
        environment={text: text},
        warnings=(text,),
    )


def made_arms(ablation: Ablation) -> tuple[ArmComparison, ...]:
    """An arm with fewer seeds, and one with a linear head."""
    told = [
        each for each in ablation.estimates if each.control == NO_CONTROL and each.experiment in ablation.experiments
    ]
    differences = [_of_arm(each, number) for number, each in enumerate(told)]
    return (
        ArmComparison(
            arm="small", setting="split.shots", base_value=None, arm_value=5, differences=tuple(differences[:1]),
            unpaired=("1 of its estimates leave out all seeds",),
        ),
        ArmComparison(
            arm="ridge", setting="head", base_value={"kind": "mlp"}, arm_value={"kind": "ridge"},
            differences=tuple(differences), unpaired=(),
        ),
    )  # fmt: skip


def _of_arm(estimate: Estimate, number: int) -> Difference:
    mean = -0.01 * (number + 1)
    return Difference(
        representation=estimate.representation,
        experiment=estimate.experiment,
        other=estimate.experiment,
        other_control=NO_CONTROL,
        num_seeds=estimate.num_seeds,
        mean=mean,
        ci95=(mean - 0.015, mean + 0.015),
        p=0.01 * (5 - number),
        p_holm=0.02 * (5 - number),
        effect_size=-0.8,
    )


def hostile_arms(text: str) -> tuple[ArmComparison, ...]:
    """`text` in every place of arms that holds any."""
    ablation = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=2)
    return tuple(
        replace(
            arm, arm=text, setting=text, base_value=text, arm_value={text: text}, unpaired=(text,),
            differences=tuple(
                replace(each, representation=text, experiment=text, other=text, test=text, to_resolve=text)
                for each in arm.differences
            ),
        )
        for arm in made_arms(ablation)
    )  # fmt: skip
