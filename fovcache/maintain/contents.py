"""What a cache holds and where it came from, as values: what reports show. `inventory.py` reads them from a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Samples that failed for the same reason and have no feature."""

    stage: str
    """`fetch`, `decode` or `encode`."""
    reason: str
    """Why, in words."""
    permanent: bool
    """False where trying again may help."""
    num_samples: int
    """How many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetContents:
    """One named dataset, the newest of its name."""

    name: str
    """Its name."""
    digest: str
    """Its digest."""
    created: str
    """When a build named it: ISO 8601, UTC."""
    sources: tuple[str, ...]
    """As they were given, without secrets."""
    num_samples: int
    """Samples that the sources held, unreadable ones included."""
    num_distinct: int
    """Of the readable ones, by content."""
    num_groups: int
    """Distinct groups; 0 where no sample names one."""
    splits: Mapping[str, int]
    """Readable samples of each split; `""` for those of none."""
    labels: Mapping[str, int]
    """Readable samples of each label, in the labels' order; those without are in none."""
    rows: Mapping[str, int]
    """By feature digest: readable samples that have it."""
    failures: tuple[FailureGroup, ...]
    """What is missing and why, the commonest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeContents:
    """What decides an encoder's activations."""

    digest: str
    """Of the recipe."""
    encoder: str
    """The encoder's name."""
    clip: str
    """Frames and how they are chosen."""
    geometry: str
    """Size and fit."""
    decoder: str
    """Its name and device; its version is in the numerics."""
    weights: str
    """`random:0`, or what was asked for and the beginning of its digest."""
    compute_dtype: str
    """`float32`, `bfloat16` or `float16`."""
    document: Mapping[str, Any]
    """All of it, as the digest is of."""
    numerics: tuple[Mapping[str, Any], ...]
    """The distinct numerics ids of its blocks: what can move the last bits. More than one is worth a look."""
    written: str
    """When the newest of its blocks was: ISO 8601, UTC; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedContents:
    """What decides a derived feature: a representation of the rows of another feature."""

    digest: str
    """Of the recipe."""
    function: str
    """The representation's name."""
    version: int
    """Its implementation's."""
    parameters: Mapping[str, Any]
    """What was chosen."""
    input: str
    """Digest of the feature that it is computed from."""
    numerics: tuple[Mapping[str, Any], ...]
    """As a recipe's."""
    written: str
    """As a recipe's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureContents:
    """One feature, over all datasets."""

    digest: str
    """Its digest."""
    recipe: str
    """Digest of its recipe: a `RecipeContents`, or a `DerivedContents`."""
    encoder: str
    """The encoder's name; a derived feature has its input's, empty when that is gone."""
    representation: str | None
    """What a derived feature is of its input; None for an encoder's."""
    layer: str
    """A canonical layer name; a derived feature has its input's."""
    pool: str
    """`cls`, `mean` or `tokens`."""
    dtype: str
    """Storage dtype: bf16, fp16 or fp32."""
    row_shape: tuple[int, ...] | None
    """Of a row; None where rows differ."""
    num_rows: int
    """Rows in the cache; one for each distinct sample."""
    size_bytes: int
    """Of these rows, without keys and headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheContents:
    """All of it."""

    path: str
    """The cache's folder."""
    datasets: tuple[DatasetContents, ...]
    """By name."""
    recipes: tuple[RecipeContents, ...]
    """By encoder."""
    derived: tuple[DerivedContents, ...]
    """By function and input."""
    features: tuple[FeatureContents, ...]
    """Those with rows: encoders' first, by name and layer, then derived ones."""
    num_shards: int
    """Files of rows."""
    shard_bytes: int
    """Their length."""
    total_bytes: int
    """Of every file in the cache's folder."""
    num_lost: int
    """Blocks that are damaged or gone: `fovcache verify` names them."""
