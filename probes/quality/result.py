"""What a look at feature quality came to: numbers of each layer, of its random twin, and how alike layers are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError
from fovcache.typed_json import revive

FORMAT = "fovbench quality 1"
RESULT_FILE = "quality.json"
CONSTANT, COLLAPSED, LOW_RANK, UNDECIDED, NOT_SEEN = (
    "constant",
    "collapsed",
    "low rank",
    "undecided",
    "no collapse seen",
)
VERDICTS = (CONSTANT, COLLAPSED, LOW_RANK, UNDECIDED, NOT_SEEN)
"""The worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What N vectors of D numbers are like. `Quality.definitions` has the formulas."""

    num_vectors: int
    """N."""
    num_dimensions: int
    """D."""
    rankme: float
    """RankMe, of the vectors as they are: 1 to min(N, D), and a little more; 0 where all is zero."""
    effective_rank: float
    """Of the centred vectors' singular values: 1 to min(N - 1, D); 0 where nothing varies."""
    variance_rank: float
    """Effective rank of the variance, that is of the covariance's eigenvalues: 1 to min(N - 1, D); 0 where nothing
    varies."""
    gaussian_variance_rank: float
    """What `variance_rank` is of N vectors of D independent standard normal numbers."""
    participation_ratio: float
    """Of the covariance's eigenvalues: 1 to min(N - 1, D); 0 where nothing varies."""
    largest_share: float
    """Of the variance, in the direction that has most of it: a fraction; 0 where nothing varies."""
    mean_variance: float
    """Of a dimension, ddof 1, mean over dimensions."""
    num_constant: int
    """Dimensions that do not vary beyond rounding."""
    mean_cosine: float | None
    """Between different vectors as they are, not centred: -1 to 1; None where some vector is zero."""
    isotropy: float | None
    """Of the centred vectors at unit length: 1/D, all on one line, to about 1, no direction preferred; None where
    fewer than 3 vectors differ from the mean."""
    uniformity: float | None
    """Of the centred vectors at unit length: 0, all in one place, to about -4, even; None as above."""

    def __post_init__(self) -> None:
        if self.num_dimensions < 1 or not self.gaussian_variance_rank >= 1:
            raise ValueError(f"{self.num_dimensions} dimensions of Gaussian rank {self.gaussian_variance_rank}")

    @property
    def gaussian_share(self) -> float:
        """`variance_rank` as a fraction of an isotropic Gaussian's."""
        return self.variance_rank / self.gaussian_variance_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerQuality:
    """One layer."""

    layer: str
    """Canonical name."""
    feature: str
    """Digest."""
    row_shape: tuple[int, ...]
    """Of the cached rows."""
    num_averaged: int
    """Tokens, places or frames of a sample that one vector is the mean of; 1 for rows as they are."""
    numbers: Numbers
    """The layer's."""
    verdict: str
    """One of VERDICTS."""
    reason: str
    """Why, in a sentence with N and D."""
    twin: Numbers | None = None
    """Those of the same layer of the encoder with random weights; None where the dataset does not have it."""
    cka_with_twin: float | None = None
    """Debiased CKA of the two."""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is not one of {', '.join(VERDICTS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The layers of one encoder, of one dataset."""

    cache: str
    """Path, as it was given."""
    dataset: str
    """Name."""
    dataset_digest: str
    """Digest."""
    split: str | None
    """None for all samples."""
    encoder: str
    """Name."""
    weights: str
    """In a few words: `random:0`, or what was asked for and the beginning of their digest."""
    pool: str
    """Pooling of the cached rows."""
    store_dtype: str
    """`bf16`, `fp16` or `fp32`."""
    recipe: str
    """Digest."""
    num_samples: int
    """That were looked at."""
    num_available: int
    """That have every layer."""
    num_missing: int
    """That lack a layer, and are left out everywhere."""
    num_distinct: int
    """Of those that were looked at, how many differ in content."""
    vectors: str
    """What is a vector, in a sentence."""
    seed: int
    """Decides which samples are looked at where there are more than are."""
    layers: tuple[LayerQuality, ...]
    """In the encoder's order."""
    cka: tuple[tuple[float | None, ...], ...]
    """[layers][layers]: debiased CKA, symmetric; None where a layer does not vary, or of fewer than 4 vectors."""
    twin_weights: str | None
    """Of the encoder with random weights that stands beside; None where there is none."""
    twin_recipe: str | None
    """Digest."""
    twin_advice: str
    """How to get a twin, where there is none; empty where there is one, or none is needed."""
    definitions: Mapping[str, str]
    """What each number is, with its source; and how verdicts are made."""
    environment: Mapping[str, Any]
    """Machine and versions."""
    seconds: float
    """Of reading and computing."""
    warnings: tuple[str, ...] = ()
    """What a reader should know."""

    @property
    def verdicts(self) -> str:
        """`1 undecided; 11 no collapse seen`, the worst first."""
        counts = Counter(each.verdict for each in self.layers)
        return "; ".join(f"{counts[kind]} {kind}" for kind in VERDICTS if counts[kind])

    @property
    def findings(self) -> tuple[tuple[tuple[str, ...], str, str], ...]:
        """(layers, verdict, reason) where the verdict is not that no collapse is seen; layers alike together."""
        alike: dict[tuple[str, str], list[str]] = {}
        for each in self.layers:
            if each.verdict != NOT_SEEN:
                alike.setdefault((each.verdict, each.reason), []).append(each.layer)
        return tuple((tuple(layers), *why) for why, layers in alike.items())

    def document(self) -> dict[str, Any]:
        """As RESULT_FILE and `--json` have it."""
        return {"format": FORMAT, **asdict(self)}


def read_quality(path: Path) -> Quality:
    """What `fovbench quality` wrote. Raises UsageError for anything else, OSError."""
    try:
        document = json.loads(path.read_bytes())
        if document.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        quality: Quality = revive(Quality, document)
        if {len(quality.cka), *map(len, quality.cka)} != {len(quality.layers)}:
            raise ValueError("cka is not of as many rows and columns as there are layers")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not what `fovbench quality` writes: {error}") from error
    return quality
