"""Opening what is looked at: the layers of a cache, the samples that have them, and their twins."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fovcache.errors import UsageError
from fovcache.loaders.select import open_features
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.inventory import weights_in_words
from fovcache.store.dataset import read_table
from fovcache.store.refs import DatasetRef, find_ref

from .layers import ChosenLayers, choose_layers
from .reading import matrix_shape
from .request import QualityRequest
from .samples import ChosenSamples, choose_samples, of_split
from .vectors import MIN_VECTORS

if TYPE_CHECKING:
    from fovcache.cache import Cache
    from fovcache.keys.recipe import Feature
    from fovcache.loaders.feature_set import FeatureSet


@dataclass(frozen=True, kw_only=True, eq=False)
class QualityInput:
    """The layers, opened, and cut to the samples."""

    ref: DatasetRef
    """The dataset."""
    layers: ChosenLayers
    """Which."""
    samples: ChosenSamples
    """Of whom."""
    features: Mapping[str, FeatureSet]
    """By layer, of these samples."""
    twins: Mapping[str, FeatureSet]
    """By layer; only those that all of these samples have."""
    num_tokens: Mapping[str, int]
    """Tokens, places and frames of a row, by layer."""
    weights: str
    """In a few words."""
    twin_weights: str | None
    """In a few words; None without a twin."""
    twin_advice: str
    """How to get one; empty where there is one or none is needed."""
    warnings: tuple[str, ...]
    """What a reader should know."""


def open_input(cache: Cache, request: QualityRequest, path: str) -> QualityInput:
    """Find and open what is asked for of the cache at `path`. Raises UsageError and its kin, DamageError."""
    storage = cache.storage
    ref = find_ref(storage, request.dataset)
    catalog = Catalog(storage)
    table = read_table(storage, ref.dataset)
    positions = of_split(table, request.split, ref.name)
    has = {feature.digest: catalog.has(feature, table) for feature in catalog.features}
    present = [feature for feature in catalog.features if has[feature.digest][positions].any()]
    layers = choose_layers(catalog, request, present, ref.name)

    def opened(feature: Feature) -> FeatureSet:
        return open_features(storage, ref.dataset, feature)

    whole = {layer: opened(feature) for layer, feature in layers.features.items()}
    num_tokens = {layer: matrix_shape(each, layers.recipe)[0] for layer, each in whole.items()}
    samples = choose_samples(
        table,
        positions,
        {layer: has[feature.digest][positions] for layer, feature in layers.features.items()},
        most=_most(request, num_tokens),
        seed=request.seed,
    )

    def cut(feature: Feature, features: FeatureSet) -> FeatureSet:
        place = np.cumsum(has[feature.digest]) - 1
        return features.subset(place[samples.positions].tolist())

    twins = {
        layer: cut(feature, opened(feature))
        for layer, feature in layers.twins.items()
        if has[feature.digest][samples.positions].all()
    }
    first = next(iter(layers.features.values()))
    twin = next(iter(layers.twins.values()), None)
    return QualityInput(
        ref=ref,
        layers=layers,
        samples=samples,
        features={layer: cut(layers.features[layer], each) for layer, each in whole.items()},
        twins=twins,
        num_tokens=num_tokens,
        weights=weights_in_words(layers.recipe["extractor"], catalog.index(first.recipe)),
        twin_weights=weights_in_words(catalog.recipes[twin.recipe]["extractor"], catalog.index(twin.recipe))
        if twins and twin
        else None,
        twin_advice="" if len(twins) == len(whole) else _advice(catalog, layers, ref, path),
        warnings=tuple(_warnings(layers, samples, twins)),
    )


def _most(request: QualityRequest, num_tokens: Mapping[str, int]) -> int:
    """Samples. Raises UsageError where each token is a vector and layers have other numbers of them."""
    if not request.each_token:
        return request.max_samples
    if len(set(num_tokens.values())) > 1:
        shown = ", ".join(f"{layer} {num}" for layer, num in num_tokens.items())
        raise UsageError(
            f"--tokens takes each token for a vector, and the layers have other numbers of them a sample ({shown}), so "
            "that CKA has nothing to compare: name layers of one size with --layers, or leave --tokens out"
        )
    return max(MIN_VECTORS, request.max_samples // next(iter(num_tokens.values())))


def _warnings(layers: ChosenLayers, samples: ChosenSamples, twins: Mapping[str, Any]) -> list[str]:
    said = []
    if samples.num_missing:
        total = samples.num_available + samples.num_missing
        said.append(f"{samples.num_missing} of {total} samples lack a layer and are left out everywhere")
    if copies := len(samples) - samples.num_distinct:
        said.append(f"{copies} of {len(samples)} samples are copies of others, which lowers every rank")
    if short := [layer for layer in layers.twins if layer not in twins]:
        said.append(
            f"the twin lacks some of these samples for {len(short)} of {len(layers.features)} layers "
            f"({', '.join(short)}), and is left out there"
        )
    elif layers.twins and len(layers.twins) < len(layers.features):
        said.append(f"{len(layers.features) - len(layers.twins)} layers have no twin")
    return said


def _advice(catalog: Catalog, layers: ChosenLayers, ref: DatasetRef, path: str) -> str:
    """A command that builds the twin, from how the layers were built; empty where there are no other weights."""
    extractor = layers.recipe["extractor"]
    if layers.is_random or not {"weights", "state"} & extractor.keys():
        return ""
    first = next(iter(layers.features.values()))
    requests = [manifest.provenance.get("request") or {} for manifest in catalog.index(first.recipe).manifests]
    asked = next((each for each in reversed(requests) if each.get("encoder")), {"encoder": extractor.get("name", "")})
    words = ["fovcache", "build", *(ref.sources or ("SOURCE…",)), "--cache", path, "--dataset", ref.name]
    words += ["--encoder", str(asked["encoder"]), "--weights", "random:0", "--layers", ",".join(layers.features)]
    words += ["--pool", first.pool, "--store-dtype", first.dtype]
    defaults = {"decoder": "pyav", "compute_dtype": "float32"}
    for name in ("posterior", "size", "fit", "frames", "fps", "decoder", "compute_dtype"):
        if asked.get(name) not in (None, defaults.get(name)):
            words += [f"--{name.replace('_', '-')}", str(asked[name])]
    return "a twin with random weights would show what the architecture alone gives: " + shlex.join(words)
