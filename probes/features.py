"""Opening what an ablation is about: the cached layers, the samples that have them all, and what is derived of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from fovcache.derived.derivation import Derivation, input_of
from fovcache.derived.derive import derive
from fovcache.derived.matrices import has_frames, matrices
from fovcache.derived.representation import Representation, resolve_representation
from fovcache.errors import SelectionError, UsageError
from fovcache.loaders.select import describe, fits, open_features
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.inventory import weights_in_words
from fovcache.store.dataset import read_table
from fovcache.store.refs import DatasetRef, find_ref

from .config import AblationConfig, EncoderChoice, RepresentationChoice
from .layer_sets import CachedLayer, LayerSets, choose_layers
from .one_shape import check_one_shape
from .result import FeatureUsed
from .samples import LabelledSamples, labelled_samples

if TYPE_CHECKING:
    from fovcache.cache import Cache
    from fovcache.loaders.feature_set import FeatureSet

FLAT = "flat_vec"
"""The rows themselves: they are read where they lie, and no second copy is kept."""
_MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class AblationInput:
    """The layers, opened."""

    cache: Cache
    """The cache."""
    ref: DatasetRef
    """The dataset."""
    sets: LayerSets
    """Which layers each experiment takes."""
    samples: LabelledSamples
    """Those that have every layer."""
    features: Mapping[str, FeatureSet]
    """By layer, of these samples."""
    used: tuple[FeatureUsed, ...]
    """Provenance of each layer."""
    representations: Mapping[RepresentationChoice, Representation]
    """Those that were chosen."""
    digests: Mapping[tuple[RepresentationChoice, str], str]
    """Of the feature that holds the numbers of a representation of a layer."""

    def num_features(self, choice: RepresentationChoice, layers: Sequence[str]) -> int:
        """Numbers a sample when these layers are concatenated. Raises SelectionError for rows of several shapes."""
        representation = self.representations[choice]
        return sum(representation.num_features(*self._matrix_shape(layer)) for layer in layers)

    def _matrix_shape(self, layer: str) -> tuple[int, int]:
        import torch

        row = torch.empty((1, *self.features[layer].row_shape), device="meta")
        _, num_tokens, num_channels = matrices(row, has_frames=has_frames(self.sets.layers[layer].recipe)).shape
        return num_tokens, num_channels

    def derive(self, choice: RepresentationChoice, layer: str, device: str) -> FeatureSet:
        """The numbers of one layer. Raises UsageError when a sample has none."""
        features = self.features[layer]
        if choice.name == FLAT:
            return features
        derived = derive(self.cache.storage, features, self.representations[choice], device=device).features
        if len(derived) != len(features):
            raise UsageError(
                f"{choice.label} of {layer} is not finite for {len(features) - len(derived)} samples: leave that "
                "representation or that layer out"
            )
        return derived


def open_input(config: AblationConfig, cache: Cache) -> AblationInput:
    """Find and open what a configuration names. Raises UsageError and its kin, DamageError."""
    storage = cache.storage
    ref = find_ref(storage, config.dataset)
    catalog = Catalog(storage)
    table = read_table(storage, ref.dataset)
    has: dict[str, np.ndarray] = {
        feature.digest: catalog.has(feature, table)
        for feature in catalog.features
        if input_of(catalog.recipes[feature.recipe]) is None
    }
    plain = [
        CachedLayer(feature=feature, recipe=catalog.recipes[feature.recipe])
        for feature in catalog.features
        if feature.digest in has and has[feature.digest].any()
    ]
    if not plain:
        raise SelectionError(f"dataset {ref.name!r} has no features yet; `fovcache build` computes them")
    sets = choose_layers(config, _candidates(config, catalog, plain, ref.name))
    features = [open_features(storage, ref.dataset, each.feature) for each in sets.layers.values()]
    present = [has[each.feature.digest] for each in sets.layers.values()]
    representations = {each: resolve_representation(each.name, each.parameters) for each in config.representations}
    samples, cut = labelled_samples(table, features, present, ref.name)
    for cached, features_of_layer in zip(sets.layers.values(), cut, strict=True):
        check_one_shape(cached, features_of_layer.rows.shape_counts, ref.name)
    return AblationInput(
        cache=cache,
        ref=ref,
        sets=sets,
        samples=samples,
        features=dict(zip(sets.layers, cut, strict=True)),
        used=tuple(_used(catalog, sets, name, features) for name, features in zip(sets.layers, cut, strict=True)),
        representations=representations,
        digests={
            (choice, name): _digest(choice, representation, cached)
            for choice, representation in representations.items()
            for name, cached in sets.layers.items()
        },
    )


def _candidates(
    config: AblationConfig, catalog: Catalog, plain: Sequence[CachedLayer], dataset: str
) -> dict[str, list[CachedLayer]]:
    """The features that each alias stands for."""
    found = {}
    for alias, choice in (config.encoders or {"": EncoderChoice()}).items():
        fitting = [each for each in plain if fits(catalog, each.feature, asdict(choice))]
        found[alias] = [each for each in fitting if not each.feature.is_integer]
        if fitting and not found[alias]:
            raise SelectionError(
                f"[encoders.{alias}]: {describe(catalog, fitting[0].feature)} holds token ids, not vectors"
            )
        if not found[alias]:
            asked = ", ".join(f"{key} = {value!r}" for key, value in asdict(choice).items() if value is not None)
            shown = "; ".join(describe(catalog, each.feature) for each in plain[:_MAX_SHOWN])
            more = f" and {len(plain) - _MAX_SHOWN} more" if len(plain) > _MAX_SHOWN else ""
            raise SelectionError(
                f"[encoders.{alias}]: no feature of dataset {dataset!r} has {asked}; there are: {shown}{more}"
            )
    return found


def _digest(choice: RepresentationChoice, representation: Representation, cached: CachedLayer) -> str:
    if choice.name == FLAT:
        return cached.feature.digest
    return Derivation.of(representation, cached.feature, cached.recipe).feature.digest


def _used(catalog: Catalog, sets: LayerSets, name: str, features: FeatureSet) -> FeatureUsed:
    cached = sets.layers[name]
    return FeatureUsed(
        encoder=sets.aliases[name],
        layer=cached.feature.layer,
        pool=cached.feature.pool,
        row_shape=features.row_shape,
        feature=cached.feature.digest,
        recipe=cached.feature.recipe,
        weights=weights_in_words(cached.recipe["extractor"], catalog.index(cached.feature.recipe)),
    )
