"""Finding the one feature set that fits what a user asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SelectionError, nearest
from ..keys.digest import canonical_json
from ..keys.recipe import Feature, differences
from ..maintain.catalog import Catalog
from ..store.dataset import read_table
from ..store.index import RecipeIndex
from ..store.refs import find_ref
from ..store.storage import LocalStorage
from .feature_set import FeatureSet
from .rows import Rows

logger = logging.getLogger(__name__)


def select_features(
    storage: LocalStorage,
    *,
    layer: str | None,
    encoder: str | None,
    dataset: str | None,
    split: str | None,
    pool: str | None,
    store_dtype: str | None,
    recipe: str | None,
    strict: bool,
) -> FeatureSet:
    """See `Cache.features`."""
    ref = find_ref(storage, dataset)
    table = read_table(storage, ref.dataset)
    positions = np.arange(len(table))
    if split is not None:
        codes, splits = table.categories("split")
        if split not in splits:
            raise SelectionError(f"dataset {ref.name!r} has no split {split!r}{nearest(split, splits)}")
        positions = np.flatnonzero(codes == splits.index(split))
    catalog = Catalog(storage)
    keys = table.keys[positions]
    wanted = {"layer": layer, "pool": pool, "dtype": store_dtype}
    candidates = [
        feature
        for feature in catalog.features
        if all(value is None or getattr(feature, field) == value for field, value in wanted.items())
        and (recipe is None or feature.recipe.startswith(recipe))
        and (encoder is None or _is_encoder(catalog.recipes[feature.recipe], encoder))
    ]
    fitting = _with_rows(catalog, candidates, keys)
    if len(fitting) != 1:
        raise SelectionError(_explain(ref.name, catalog, _with_rows(catalog, catalog.features, keys), fitting))
    feature = fitting[0]
    index = catalog.index(feature.recipe)
    shard, row = index.lookup(feature.digest, keys)
    found = np.flatnonzero(shard >= 0)
    rows = Rows(storage, feature.digest, index.shards, shard[found], row[found])
    rows.check_keys(keys[found])
    _check_numerics(index, np.unique(shard[found]).tolist(), strict)
    return FeatureSet(
        feature=feature,
        rows=rows,
        table=table,
        positions=positions[found],
        num_failed=len(positions) - len(found),
    )


def _with_rows(catalog: Catalog, features: Sequence[Feature], keys: np.ndarray) -> list[Feature]:
    """Those of `features` that any sample has."""
    return [f for f in features if (catalog.index(f.recipe).lookup(f.digest, keys)[0] >= 0).any()]


def _is_encoder(recipe: dict[str, Any], encoder: str) -> bool:
    """Whether a recipe is of the encoder as a user names it: the folder of `PATH.py:FACTORY` does not matter."""
    path, colon, factory = encoder.rpartition(":")
    name = f"{Path(path).name}:{factory}" if colon and path.endswith(".py") else encoder
    return bool(recipe["extractor"].get("name") == name)


def _explain(dataset: str, catalog: Catalog, present: Sequence[Feature], fitting: Sequence[Feature]) -> str:
    if not present:
        return f"dataset {dataset!r} has no features yet; `fovcache build` computes them"
    if not fitting:
        shown = "; ".join(_describe(catalog, feature) for feature in present[:12])
        return f"no feature of dataset {dataset!r} fits; there are: {shown}"
    documents = [_document(catalog, feature) for feature in fitting]
    fields = {field for other in documents[1:] for field, _, _ in differences(documents[0], other)}
    shown = "; ".join(_describe(catalog, feature) for feature in fitting[:12])
    return (
        f"{len(fitting)} features of dataset {dataset!r} fit; they differ in {', '.join(sorted(fields))}: {shown}. "
        "Name layer, pool, store_dtype, encoder or recipe"
    )


def _document(catalog: Catalog, feature: Feature) -> dict[str, Any]:
    own = {"layer": feature.layer, "pool": feature.pool, "store_dtype": feature.dtype}
    return {**own, "recipe": catalog.recipes[feature.recipe]}


def _describe(catalog: Catalog, feature: Feature) -> str:
    name = catalog.recipes[feature.recipe]["extractor"].get("name")
    return f"{name} {feature.layer} ({feature.pool}, {feature.dtype}, recipe {feature.recipe[:8]})"


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
    warnings.warn(said, stacklevel=4)
