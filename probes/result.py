"""What an ablation came to: trials, estimates over seeds, differences, and where the features came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError
from fovcache.typed_json import revive

FORMAT = "fovbench ablation 2"
NO_CONTROL, SHUFFLED_LABELS, RANDOM_LAYERS = "none", "shuffled_labels", "random_layers"
CONTROLS = (NO_CONTROL, SHUFFLED_LABELS, RANDOM_LAYERS)
RESULT_FILE = "ablation.json"
TRIALS_FILE = "trials.jsonl"
ARMS_FORMAT = "fovbench arms 1"
ARMS_FILE = "arms.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cell: a representation of an experiment's layers, under a control or none, with one seed."""

    key: str
    """Digest of everything that decides the numbers below; a trial with the same key is not run again."""
    representation: str
    """Its name."""
    experiment: str
    """The name of a set of layers; for single-layer rows of the heat map the layer's name."""
    control: str
    """One of CONTROLS."""
    seed: int
    """Decides what `Ablation.protocol["seed_varies"]` names."""
    layers: tuple[str, ...]
    """The layers whose numbers were concatenated, sorted; of a random control those that were drawn."""
    head: str
    """`ridge`, `logistic`, `linear`, `mlp` or `knn`."""
    setting: Mapping[str, float] = field(hash=False)
    """The candidate that was chosen, such as `{"strength": 10.0}`."""
    num_train: int
    """Samples that the head was fitted on."""
    num_validation: int
    """Samples that chose the setting."""
    num_test: int
    """Samples that were scored once."""
    num_features: int
    """Numbers a sample."""
    num_effective: int
    """Of these, columns that are neither constant on train nor equal to another."""
    train_accuracy: float
    """Fraction."""
    validation_accuracy: float
    """Fraction, of the chosen setting: optimistic."""
    test_accuracy: float
    """Fraction."""
    chance: float
    """Test accuracy of always answering train's most frequent class."""
    seconds: float
    """Of fitting and scoring."""
    samples_seen: int = 0
    """Samples of train that a trained head was stepped on, with all its candidates, each time counted; else 0."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as that a fit has not converged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTrial:
    """A cell that could not be run; the next run tries it again."""

    representation: str
    """As in Trial."""
    experiment: str
    """As in Trial."""
    control: str
    """As in Trial."""
    seed: int
    """As in Trial."""
    reason: str
    """What was raised, in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A cell's test accuracy over its seeds."""

    representation: str
    """As in Trial."""
    experiment: str
    """As in Trial."""
    control: str
    """As in Trial."""
    num_seeds: int
    """Trials."""
    mean: float
    """Of the test accuracies, a fraction."""
    sd: float
    """Standard deviation over seeds, ddof 1; 0 for one seed."""
    ci95: tuple[float, float] | None
    """Of the estimand that `Ablation.estimand` names, clipped to [0, 1]; None where the seeds allow none."""
    chance: float
    """Mean over seeds."""
    num_layers: int
    """Layers."""
    num_features: int
    """Median over seeds."""
    num_effective: int
    """Median over seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much more accurate an experiment is than another, or than its control, paired by seed."""

    representation: str
    """As in Trial."""
    experiment: str
    """As in Trial."""
    other: str
    """The experiment that it is compared with; itself, for a control."""
    other_control: str
    """NO_CONTROL, or RANDOM_LAYERS for as many layers drawn at random."""
    num_seeds: int
    """Pairs."""
    mean: float
    """Of the differences of the test accuracies, within [-1, 1]."""
    ci95: tuple[float, float] | None
    """Made as the estimates' are; not corrected for how many differences there are."""
    p: float | None = None
    """Two-sided, of the hypothesis that there is none, by `test`; None where the seeds allow none."""
    p_holm: float | None = None
    """The same, corrected by Holm's method (1979) for all differences of the ablation that have a p."""
    test: str = ""
    """How p is made, a sentence with its source."""
    effect_size: float | None = None
    """Mean difference in standard deviations of a single pair's difference (Cohen's d_z); None where these do not
    vary."""
    smallest_p: float | None = None
    """The smallest p that an exact test on so many pairs could give, whatever they are."""
    to_resolve: str = ""
    """How many samples or seeds it takes to tell a difference of one point from none, a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmComparison:
    """What one setting changes."""

    arm: str
    """Its name."""
    setting: str
    """The one that differs, by its dotted name; `head`, say, for all that a kind of head has."""
    base_value: Any
    """What it is in the base; None for what is not there, a mapping for a table."""
    arm_value: Any
    """What it is in the arm."""
    differences: tuple[Difference, ...]
    """Test accuracy of the arm less that of the base, paired; `p_holm` is over all arms."""
    unpaired: tuple[str, ...]
    """Which were not compared, and why, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a cell's stored predictions say beside accuracy. K classes, in the order of `Ablation.classes`."""

    representation: str
    """As in Trial."""
    experiment: str
    """As in Trial."""
    control: str
    """As in Trial."""
    num_seeds: int
    """Trials."""
    confusion: tuple[tuple[int, ...], ...]
    """[K][K]: test samples of a class (row) that were answered with a class (column), summed over seeds; empty for
    controls and for more than 100 classes, where `probes.metrics.confusion_matrix` of the predictions makes it."""
    class_accuracies: tuple[float | None, ...]
    """[K]: recall of each class, the mean over the seeds that test it; None for a class that none does."""
    class_intervals: tuple[tuple[float, float] | None, ...]
    """[K]: 95 %, made as the estimates' are."""
    balanced_accuracy: float
    """Mean of `class_accuracies`, over seeds."""
    macro_f1: float
    """Mean over classes that are tested or answered, then over seeds; 0 for a class that is never right, as
    scikit-learn has it."""
    calibration_error: float | None
    """Expected calibration error of the answer's probability, 15 bins of equal width (Guo et al. 2017), mean over
    seeds; None for a head without probabilities, or with some that are not finite, as of the next two."""
    brier: float | None
    """Mean squared distance of the probabilities to the truth, summed over classes (Brier 1950)."""
    log_loss: float | None
    """Mean negative log likelihood in nats; probabilities are clipped to at least 1e-7."""
    reliability: tuple[tuple[int, float, float], ...] = ()
    """Of each bin: samples over all seeds, their mean confidence, their accuracy (both 0 in a bin without samples);
    empty without probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureUsed:
    """Where the numbers of a layer came from."""

    encoder: str
    """Its name, or the alias that the configuration gives it."""
    layer: str
    """Canonical name."""
    pool: str
    """Pooling of the cached matrix."""
    row_shape: tuple[int, ...]
    """Of the cached rows."""
    feature: str
    """Digest."""
    recipe: str
    """Digest."""
    weights: str
    """In a few words: `random:0`, or the beginning of their digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Representations × experiments × seeds, with controls."""

    name: str
    """Of the configuration file, without its ending."""
    cache: str
    """Path, as it was given."""
    dataset: str
    """Name."""
    dataset_digest: str
    """Digest."""
    num_samples: int
    """That have every feature."""
    num_missing: int
    """Samples of the dataset that were left out because some feature failed."""
    classes: tuple[str, ...]
    """Names, in the order of their numbers."""
    class_counts: tuple[int, ...]
    """Samples of each class."""
    experiments: Mapping[str, tuple[str, ...]]
    """Layers of each, in the configuration's order."""
    single_layers: tuple[str, ...]
    """Experiments that are one layer each, in the encoder's order: the rows of the heat map."""
    protocol: Mapping[str, Any]
    """Split rule, shares, head, strengths, seeds, `seed_varies`, what is standardised, number of groups."""
    estimand: str
    """What the intervals are of, in a sentence."""
    interval: str
    """How they are made, in a sentence with its source."""
    features: tuple[FeatureUsed, ...]
    """Provenance."""
    estimates: tuple[Estimate, ...]
    """One for each representation × experiment × control."""
    trials: tuple[Trial, ...]
    """All of them; also in TRIALS_FILE."""
    environment: Mapping[str, Any]
    """Machine and versions."""
    differences: tuple[Difference, ...] = ()
    """Each experiment less its random layers, and less the first experiment."""
    metrics: tuple[Metrics, ...] = ()
    """One for each estimate, in their order."""
    failures: tuple[FailedTrial, ...] = ()
    """Cells without a trial."""
    warnings: tuple[str, ...] = ()
    """What a reader should know."""

    @property
    def exit_status(self) -> int:
        """1 where a cell failed."""
        return 1 if self.failures else 0

    def document(self) -> dict[str, Any]:
        """As RESULT_FILE and `--json` have it."""
        return {"format": FORMAT, **asdict(self)}

    def estimate(self, representation: str, experiment: str, control: str = NO_CONTROL) -> Estimate | None:
        """A cell's, or None where it was not run."""
        wanted = (representation, experiment, control)
        found = (each for each in self.estimates if (each.representation, each.experiment, each.control) == wanted)
        return next(found, None)


def read_ablation(path: Path) -> Ablation:
    """What `fovbench ablate` wrote. Raises UsageError for anything else, OSError."""
    try:
        document = json.loads(path.read_bytes())
        if document.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        ablation: Ablation = revive(Ablation, document)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not what `fovbench ablate` writes: {error}") from error
    return ablation


def read_arms(path: Path) -> tuple[ArmComparison, ...]:
    """What `fovbench ablate` wrote beside an ablation that has arms. Raises UsageError for anything else, OSError."""
    try:
        document = json.loads(path.read_bytes())
        if document.get("format") != ARMS_FORMAT:
            raise ValueError(f"its format is not {ARMS_FORMAT!r}")
        arms: tuple[ArmComparison, ...] = revive(tuple[ArmComparison, ...], document["arms"])
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not what `fovbench ablate` writes: {error}") from error
    return arms
