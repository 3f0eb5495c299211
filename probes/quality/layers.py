"""Which cached layers are looked at, and their twins: the same layers of the same encoder with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fovcache.derived.derivation import input_of
from fovcache.errors import SelectionError
from fovcache.extract.layers import layer_order, select_layers
from fovcache.keys.recipe import Feature, differences
from fovcache.loaders.select import describe, fits
from fovcache.maintain.catalog import Catalog

from .request import QualityRequest

_WEIGHTS = ("extractor.weights.", "extractor.state.")
"""Where recipes say which weights: in nothing else may twins differ."""
_RANDOM = "random:"
_MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class ChosenLayers:
    """Features of one recipe, pooling and dtype."""

    features: Mapping[str, Feature]
    """By layer, in the encoder's order."""
    twins: Mapping[str, Feature]
    """By layer; those that the dataset has, all of one recipe."""
    recipe: Mapping[str, Any]
    """The recipe's document."""
    is_random: bool
    """Whether the weights are random themselves."""


def choose_layers(catalog: Catalog, request: QualityRequest, present: Sequence[Feature], dataset: str) -> ChosenLayers:
    """What is asked for, of the features that a dataset has.

    Where there is the same encoder with random weights and with others, the random one is the twin unless `weights` or
    `recipe` ask for it. Raises SelectionError for none and where recipes, poolings or dtypes would be mixed, LayerError
    for a glob without layers.
    """
    encoded = [feature for feature in present if input_of(catalog.recipes[feature.recipe]) is None]
    if not encoded:
        raise SelectionError(f"dataset {dataset!r} has no features yet; `fovcache build` computes them")
    plain = [feature for feature in encoded if not feature.is_integer]
    fitting = [feature for feature in plain if fits(catalog, feature, request.wanted)]
    if not fitting:
        for feature in encoded:
            if feature.is_integer and fits(catalog, feature, request.wanted):
                raise SelectionError(f"{describe(catalog, feature)} holds token ids, which have no quality of vectors")
        asked = ", ".join(f"{key} {value!r}" for key, value in request.wanted.items() if value is not None)
        raise SelectionError(f"no feature of dataset {dataset!r} has {asked}; there are: {_shown(catalog, plain)}")
    if request.weights is None and request.recipe is None:
        fitting = _without_twins(catalog, fitting)
    _check_one_kind(catalog, fitting, dataset)
    known = sorted({feature.layer for feature in fitting}, key=layer_order)
    by_layer = {feature.layer: feature for feature in fitting}
    features = {layer: by_layer[layer] for layer in select_layers(request.layers, known)}
    first = fitting[0]
    return ChosenLayers(
        features=features,
        twins=_twins(catalog, plain, features),
        recipe=catalog.recipes[first.recipe],
        is_random=is_random(catalog, first),
    )


def is_random(catalog: Catalog, feature: Feature) -> bool:
    """Whether a feature's encoder has random weights."""
    return any(name.startswith(_RANDOM) for name in catalog.weights(feature))


def are_twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two recipes differ, and in nothing but weights."""
    fields = [field for field, _, _ in differences(one, other)]
    return bool(fields) and all(f"{field}.".startswith(_WEIGHTS) for field in fields)


def _without_twins(catalog: Catalog, features: Sequence[Feature]) -> list[Feature]:
    """Features less those with random weights of whose encoder there are others."""
    trained = {feature.recipe for feature in features if not is_random(catalog, feature)}
    return [
        feature
        for feature in features
        if feature.recipe in trained
        or not any(are_twins(catalog.recipes[feature.recipe], catalog.recipes[recipe]) for recipe in trained)
    ]


def _twins(catalog: Catalog, plain: Sequence[Feature], features: Mapping[str, Feature]) -> dict[str, Feature]:
    """The recipe that has most of the layers; of several the one whose seed comes first."""
    first = next(iter(features.values()))
    if is_random(catalog, first):
        return {}
    found: dict[str, dict[str, Feature]] = {}
    for each in plain:
        kind = each.pool, each.dtype, each.pool_time
        if each.layer not in features or kind != (first.pool, first.dtype, first.pool_time):
            continue
        if is_random(catalog, each) and are_twins(catalog.recipes[first.recipe], catalog.recipes[each.recipe]):
            found.setdefault(each.recipe, {})[each.layer] = each
    if not found:
        return {}
    best = min(found.values(), key=lambda some: (-len(some), catalog.weights(next(iter(some.values())))))
    return {layer: best[layer] for layer in features if layer in best}


def _check_one_kind(catalog: Catalog, features: Sequence[Feature], dataset: str) -> None:
    """Raise SelectionError unless features are of one recipe, one pooling and one dtype."""
    kinds = {(each.recipe, each.pool, each.dtype): each for each in features}
    if len(kinds) == 1:
        return
    first, *others = kinds.values()
    fields = [
        field
        for other in others
        for field, _, _ in differences(catalog.recipes[first.recipe], catalog.recipes[other.recipe])
    ]
    fields += [name for name in ("pool", "dtype") if len({getattr(each, name) for each in kinds.values()}) > 1]
    shown = _shown(catalog, list(kinds.values()))
    raise SelectionError(
        f"features of {len(kinds)} kinds of dataset {dataset!r} would be mixed: {shown}. "
        f"They differ in {', '.join(dict.fromkeys(fields))}: name --encoder, --weights, --pool, --store-dtype or "
        "--recipe"
    )


def _shown(catalog: Catalog, features: Sequence[Feature]) -> str:
    more = f" and {len(features) - _MAX_SHOWN} more" if len(features) > _MAX_SHOWN else ""
    return "; ".join(describe(catalog, each) for each in features[:_MAX_SHOWN]) + more
