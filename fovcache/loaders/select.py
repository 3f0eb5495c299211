"""Finding the one feature set that fits what a user asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SelectionError, nearest
from ..keys.digest import canonical_json
from ..keys.recipe import Feature, differences
from ..maintain.catalog import Catalog
from ..store.dataset import SampleTable, read_table
from ..store.documents import read_keyed
from ..store.index import RecipeIndex, open_index
from ..store.layout import recipe_name
from ..store.refs import find_ref
from ..store.storage import LocalStorage
from .feature_set import FeatureSet
from .rows import Rows

logger = logging.getLogger(__name__)


def select_features(
    storage: LocalStorage,
    *,
    dataset: str | None,
    split: str | None,
    strict: bool,
    representation: str | None,
    **wanted: str | None,
) -> FeatureSet:
    """See `Cache.features`; `wanted` are layer, encoder, weights, pool, store_dtype and recipe."""
    ref = find_ref(storage, dataset)
    table = read_table(storage, ref.dataset)
    positions = np.arange(len(table))
    if split is not None:
        codes, splits = table.categories("split")
        if split not in splits:
            raise SelectionError(f"dataset {ref.name!r} has no split {split!r}{nearest(split, splits)}")
        positions = np.flatnonzero(codes == splits.index(split))
    catalog = Catalog(storage)
    fitting = fitting_features(catalog, table, positions, representation=representation, **wanted)
    if len(fitting) != 1:
        alike = _alike(catalog, representation)
        present = _with_rows(catalog, alike, table, positions)
        present = present or _with_rows(catalog, catalog.features, table, positions)
        said = explain(ref.name, catalog, present, fitting)
        advice = "" if fitting or representation is None else f"; `Cache.derive(…, {representation!r})` computes it"
        raise SelectionError(said + advice)
    feature = fitting[0]
    keys = table.row_keys(catalog.recipes[feature.recipe])[positions]
    rows, found = rows_of(storage, catalog.index(feature.recipe), feature, keys, strict=strict)
    return FeatureSet(
        feature=feature,
        rows=rows,
        table=table,
        positions=positions[found],
        num_failed=len(positions) - len(found),
    )


def fitting_features(
    catalog: Catalog,
    table: SampleTable,
    positions: np.ndarray,
    *,
    representation: str | None = None,
    **wanted: str | None,
) -> list[Feature]:
    """The features that fit and that any of a dataset's samples at `positions` has; of encoders, or of a
    representation."""
    asked = {**wanted, "representation": representation}
    fitting = [f for f in _alike(catalog, representation) if fits(catalog, f, asked)]
    return _with_rows(catalog, fitting, table, positions)


def _alike(catalog: Catalog, representation: str | None) -> list[Feature]:
    return [f for f in catalog.features if (catalog.representation(f) is None) == (representation is None)]


def open_features(storage: LocalStorage, dataset: str, feature: Feature) -> FeatureSet:
    """The rows of a known feature for the dataset of a digest."""
    table = read_table(storage, dataset)
    keys = table.row_keys(read_keyed(storage, recipe_name(feature.recipe), feature.recipe))
    rows, found = rows_of(storage, open_index(storage, feature.recipe), feature, keys, strict=False)
    return FeatureSet(feature=feature, rows=rows, table=table, positions=found, num_failed=len(table) - len(found))


def rows_of(
    storage: LocalStorage, index: RecipeIndex, feature: Feature, keys: np.ndarray, *, strict: bool
) -> tuple[Rows, np.ndarray]:
    """The rows under some keys of a feature's recipe (`SampleTable.row_keys`, uint8 [n, 32]), and which of these have
    one, int64 [m].

    Warns of rows of several numerics, or under `strict` raises SelectionError.
    """
    shard, row = index.lookup(feature.digest, keys)
    found = np.flatnonzero(shard >= 0)
    rows = Rows(storage, feature.digest, index.shards, shard[found], row[found])
    rows.check_keys(keys[found])
    _check_numerics(index, np.unique(shard[found]).tolist(), strict)
    return rows, found


def _with_rows(
    catalog: Catalog, features: Sequence[Feature], table: SampleTable, positions: np.ndarray
) -> list[Feature]:
    """Those of `features` that any of the samples at `positions` has."""
    return [feature for feature in features if catalog.has(feature, table)[positions].any()]


def fits(catalog: Catalog, feature: Feature, wanted: Mapping[str, str | None]) -> bool:
    """Whether a feature is as asked for. Of a derived feature all but layer and representation speak of its root."""
    asked = {field: value for field, value in wanted.items() if value is not None}
    own = {"layer": feature.layer, "representation": catalog.representation(feature)}
    if any(own[field] != asked.pop(field) for field in own if field in asked):
        return False
    recipe = asked.pop("recipe", "")
    root = catalog.root(feature)
    if root is None:
        return not asked and feature.recipe.startswith(recipe)
    at_root = {"pool": root.pool, "store_dtype": root.dtype, "encoder": catalog.encoder(feature)}
    weights = asked.pop("weights", None)
    if "encoder" in asked:
        asked["encoder"] = _encoder_name(asked["encoder"])
    return (
        all(at_root[field] == value for field, value in asked.items())
        and (feature.recipe.startswith(recipe) or root.recipe.startswith(recipe))
        and (weights is None or any(_are_weights(named, weights) for named in catalog.weights(feature)))
    )


def _encoder_name(encoder: str) -> str:
    """As a recipe names it: the folder of `PATH.py:FACTORY` does not matter."""
    path, colon, factory = encoder.rpartition(":")
    return f"{Path(path).name}:{factory}" if colon and path.endswith(".py") else encoder


def _are_weights(named: str, asked: str) -> bool:
    """Whether what a build was given as weights is what is asked for: the folder of a path does not matter."""
    return named == asked or (Path(named).is_absolute() and Path(named).name == Path(asked).name)


def explain(dataset: str, catalog: Catalog, present: Sequence[Feature], fitting: Sequence[Feature]) -> str:
    """Why not one feature fits: none of those `present` does, or several do, and in what they differ."""
    if not present:
        return f"dataset {dataset!r} has no features yet; `fovcache build` computes them"
    if not fitting:
        shown = "; ".join(describe(catalog, feature) for feature in present[:12])
        return f"no feature of dataset {dataset!r} fits; there are: {shown}"
    documents = [_document(catalog, feature) for feature in fitting]
    fields = {field for other in documents[1:] for field, _, _ in differences(documents[0], other)}
    shown = "; ".join(describe(catalog, feature) for feature in fitting[:12])
    return (
        f"{len(fitting)} features of dataset {dataset!r} fit; they differ in {', '.join(sorted(fields))}: {shown}. "
        "Name layer, pool, store_dtype, encoder, weights or recipe"
    )


def _document(catalog: Catalog, feature: Feature) -> dict[str, Any]:
    root = catalog.root(feature) or feature
    own = {"layer": feature.layer, "pool": root.pool, "store_dtype": root.dtype, "weights": catalog.weights(feature)}
    document = {**own, "recipe": catalog.recipes[root.recipe]}
    if root is not feature:
        document["representation"] = catalog.recipes[feature.recipe]["extractor"]
    return document


def describe(catalog: Catalog, feature: Feature) -> str:
    """A feature in a few words: of which encoder, and what tells it from others."""
    root = catalog.root(feature) or feature
    name = catalog.representation(feature)
    of = "" if name is None else f"{name} of "
    weights = "".join(f"weights {named}, " for named in catalog.weights(feature)[:1])
    shown = f"{root.pool}, {root.dtype}, {weights}recipe {feature.recipe[:8]}"
    return f"{of}{catalog.encoder(feature) or 'what is gone'} {feature.layer} ({shown})"


def _check_numerics(index: RecipeIndex, shards: Sequence[int], strict: bool) -> None:
    names = {index.shards[number].shard.digest for number in shards}
    ids = {
        canonical_json(manifest.provenance.get("numerics", {})): manifest.provenance.get("numerics", {})
        for manifest in index.manifests
        if any(shard.digest in names for shard in manifest.shards)
    }
    if len(ids) < 2:
        return
    first, *others = ids.values()
    fields = sorted({field for other in others for field, _, _ in differences(first, other)})
    said = (
        f"the rows were computed under {len(ids)} different numerics ({', '.join(fields)}), so they agree only "
        "within a tolerance; `fovcache verify --recompute N` measures it"
    )
    if strict:
        raise SelectionError(said)
    warnings.warn(said, stacklevel=5)
