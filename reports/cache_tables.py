"""The tables of a cache: datasets, recipes, features, what was derived from them, what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fovcache.maintain.contents import CacheContents, DatasetContents, DerivedContents

from . import numbers
from .names import listed, shown
from .table import Cell, Table, count, digest, moment, size, table, text

_MAX_FEATURES = 300
_MAX_FAILURES = 50


def cache_tables(cache: CacheContents, prefix: str = "") -> dict[str, Table]:
    """By name: `datasets`, `recipes`, `features`, `derived`, `failures`; empty ones too. Ids begin with `prefix`."""
    return {
        "datasets": _datasets(cache, f"{prefix}datasets"),
        "recipes": _recipes(cache, f"{prefix}recipes"),
        "features": _features(cache, f"{prefix}features"),
        "derived": _derived(cache, f"{prefix}derived"),
        "failures": _failures(cache, f"{prefix}failures"),
    }


def _datasets(cache: CacheContents, id: str) -> Table:
    columns = (
        "dataset",
        "samples",
        "distinct",
        "without features",
        "<splits",
        "<labels",
        "groups",
        "<built (UTC)",
        "<digest",
    )
    rows = (
        [
            text(each.name, note=listed(each.sources, 4)),
            count(each.num_samples),
            count(each.num_distinct),
            count(sum(group.num_samples for group in each.failures)),
            Cell(text=_splits(each)),
            Cell(text=_labels(each), note=listed(each.labels) if len(each.labels) > 1 else ""),
            count(each.num_groups),
            moment(each.created),
            digest(each.digest),
        ]
        for each in cache.datasets
    )
    return table(id, "Datasets, the newest of each name; distinct samples by content.", columns, rows)


def _splits(dataset: DatasetContents) -> str:
    if set(dataset.splits) <= {""}:
        return numbers.ABSENT
    return ", ".join(f"{shown(name, 40) or 'none'} {numbers.count(num)}" for name, num in dataset.splits.items())


def _labels(dataset: DatasetContents) -> str:
    if not dataset.labels:
        return numbers.ABSENT
    least, most = min(dataset.labels.values()), max(dataset.labels.values())
    each = numbers.count(least) if least == most else f"{numbers.count(least)} to {numbers.count(most)}"
    return f"{numbers.count(len(dataset.labels))} of {each} samples"


def _recipes(cache: CacheContents, id: str) -> Table:
    columns = (
        "encoder",
        "<weights",
        "<clip",
        "<geometry",
        "<decoder",
        "<compute",
        "<computed with",
        "<written (UTC)",
        "<recipe",
    )
    rows = (
        [
            text(each.encoder),
            _weights(each.weights),
            text(each.clip),
            text(each.geometry),
            text(each.decoder),
            text(each.compute_dtype),
            Cell(text=_numerics(each.numerics)),
            moment(each.written),
            digest(each.digest),
        ]
        for each in cache.recipes
    )
    return table(id, "Recipes: what decides the activations. Any change of it is another recipe.", columns, rows)


def _weights(weights: str) -> Cell:
    """Not broken where it fits."""
    return Cell(text=shown(weights) or numbers.ABSENT, is_code=0 < len(weights) <= 24)


def _numerics(numerics: Sequence[Mapping[str, Any]]) -> str:
    told = [
        ", ".join(
            f"{name} {shown(str(each[key]), 40)}".strip()
            for key, name in (("torch", "torch"), ("device_name", ""), ("decoder", ""))
            if each.get(key)
        )
        for each in numerics
    ]
    return "; ".join(dict.fromkeys(told)) or numbers.ABSENT


def _features(cache: CacheContents, id: str) -> Table:
    plain = [each for each in cache.features if each.representation is None]
    caption = "Features: layers of encoders, as they are stored; one row for each distinct sample."
    if len(plain) > _MAX_FEATURES:
        caption += f" The first {_MAX_FEATURES} of {numbers.count(len(plain))}."
    columns = ("encoder", "<layer", "<pool", "<dtype", "<row shape", "rows", "bytes", "<feature", "<recipe")
    rows = (
        [
            text(each.encoder),
            text(each.layer),
            text(each.pool),
            text(each.dtype),
            Cell(text="various" if each.row_shape is None else " × ".join(map(str, each.row_shape))),
            count(each.num_rows),
            size(each.size_bytes),
            digest(each.digest),
            digest(each.recipe),
        ]
        for each in plain[:_MAX_FEATURES]
    )
    return table(id, caption, columns, rows)


def _derived(cache: CacheContents, id: str) -> Table:
    caption = (
        "Derived features: representations of cached layers, by function and parameters. Each layer's has a key of its "
        "own, which names its input's."
    )
    columns = ("representation", "version", "<parameters", "<encoder", "layers", "rows", "bytes", "<computed with")
    return table(id, caption, columns, _derived_rows(cache))


def _derived_rows(cache: CacheContents) -> Iterator[list[Cell]]:
    groups: dict[tuple[str, int, str], list[DerivedContents]] = {}
    for each in cache.derived:
        parameters = json.dumps(dict(each.parameters), sort_keys=True, ensure_ascii=False, default=str)
        groups.setdefault((each.function, each.version, parameters), []).append(each)
    for (function, version, parameters), recipes in groups.items():
        digests = {recipe.digest for recipe in recipes}
        mine = [feature for feature in cache.features if feature.recipe in digests]
        numerics = [each for recipe in recipes for each in recipe.numerics]
        yield [
            text(function),
            count(version),
            text("" if parameters == "{}" else parameters.strip("{}").replace('"', "")),
            Cell(text=listed(sorted({feature.encoder or "what is gone" for feature in mine}), 4)),
            count(len({feature.digest for feature in mine}), note=listed((feature.layer for feature in mine), 3)),
            count(sum(feature.num_rows for feature in mine)),
            size(sum(feature.size_bytes for feature in mine)),
            Cell(text=_numerics(numerics)),
        ]


def _failures(cache: CacheContents, id: str) -> Table:
    groups = [(dataset.name, group) for dataset in cache.datasets for group in dataset.failures]
    caption = "Samples without features, and why. Transient failures are tried again by the next build."
    if len(groups) > _MAX_FAILURES:
        caption += f" The first {_MAX_FAILURES} of {numbers.count(len(groups))} reasons."
    columns = ("dataset", "samples", "<stage", "<reason", "<tried again")
    rows = (
        [
            text(name),
            count(group.num_samples),
            text(group.stage),
            text(group.reason),
            Cell(text="when the decoder changes" if group.permanent else "by the next build"),
        ]
        for name, group in groups[:_MAX_FAILURES]
    )
    return table(id, caption, columns, rows)
