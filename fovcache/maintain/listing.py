"""What `ls` and `info` tell, as JSON documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..derived.derivation import input_of
from ..keys.digest import canonical_json
from ..store import layout
from ..store.dataset import SampleTable
from ..store.index import RecipeIndex
from ..store.lease import live_owners
from ..store.refs import find_ref
from ..store.shard import keys_hex
from ..store.storage import LocalStorage
from .catalog import Catalog, DatasetListing


def list_cache(catalog: Catalog) -> list[dict[str, Any]]:
    """The newest dataset of each name with its features."""
    return [_dataset_document(catalog.listing(ref)) for ref in catalog.newest_refs()]


def _dataset_document(listing: DatasetListing) -> dict[str, Any]:
    return {
        "name": listing.ref.name,
        "dataset": listing.ref.dataset,
        "samples": len(listing.table) + len(listing.table.unreadable),
        "features": [
            {
                "encoder": item.encoder,
                "layer": item.feature.layer,
                "pool": (item.root or item.feature).pool,
                "representation": item.representation,
                "parameters": item.recipe["extractor"].get("parameters") if item.representation else None,
                "dtype": item.feature.dtype,
                "rows": item.num_rows,
                "row_shape": list(item.row_shape) if item.row_shape is not None else "various",
                "feature": item.feature.digest,
                "recipe": item.feature.recipe,
                "input": input_of(item.recipe),
            }
            for item in listing.features
        ],
    }


def cache_info(catalog: Catalog) -> dict[str, Any]:
    """The whole cache: sizes, recipes, live builders."""
    storage = catalog.storage
    shards = list(storage.list(layout.SHARDS))
    assert isinstance(storage, LocalStorage)
    return {
        "cache": str(storage.root),
        "datasets": [f"{ref.name} {ref.dataset}" for ref in catalog.newest_refs()],
        "recipes": [
            f"{digest} {_of(catalog, digest)}, {document['compute']['dtype']}"
            for digest, document in catalog.recipes.items()
        ],
        "features": len(catalog.features),
        "shards": len(shards),
        "shard_bytes": sum(storage.size(name) for name in shards),
        "rows": sum(len(catalog.index(recipe)) for recipe in catalog.recipes),
        "builders_at_work": len(live_owners(storage)),
    }


def _of(catalog: Catalog, recipe: str) -> str:
    """The encoder's name, or `REPRESENTATION of ENCODER LAYER`."""
    for feature in catalog.features:
        if feature.recipe == recipe and (representation := catalog.representation(feature)) is not None:
            return f"{representation} of {catalog.encoder(feature) or 'what is gone'} {feature.layer}"
    return str(catalog.recipes[recipe]["extractor"].get("name", ""))


def dataset_info(catalog: Catalog, name: str) -> dict[str, Any]:
    """One dataset: where it came from, what its features were computed with, what failed."""
    ref = find_ref(catalog.storage, name)
    listing = catalog.listing(ref)
    recipes = {item.feature.recipe: item.recipe for item in listing.features}
    table = listing.table
    splits = Counter(split or "(none)" for split in table.texts("split"))
    return {
        **_dataset_document(listing),
        "sources": list(ref.sources),
        "splits": dict(splits),
        "distinct": len(set(keys_hex(table.keys))),
        "recipes": [{"digest": digest, **document} for digest, document in recipes.items()],
        "numerics": [numerics for recipe in recipes for numerics in _numerics(catalog.index(recipe))],
        "failures": [failure for recipe in recipes for failure in _failures(catalog, recipe, table)],
        "unreadable": [{"uri": item.uri, "reason": item.reason} for item in table.unreadable],
    }


def _failures(catalog: Catalog, recipe: str, table: SampleTable) -> Iterator[dict[str, Any]]:
    """Every failure that the ledger of a recipe has of a dataset's samples."""
    uris: dict[str, list[str | None]] = {}
    for key, uri in zip(keys_hex(table.row_keys(catalog.recipes[recipe])), table.texts("uri"), strict=True):
        uris.setdefault(key, []).append(uri)
    for manifest in catalog.index(recipe).manifests:
        for failure in manifest.failures:
            told = {"stage": failure.stage, "reason": failure.reason, "permanent": failure.permanent}
            yield from ({"uri": uri, **told} for uri in uris.get(failure.key, ()))


def _numerics(index: RecipeIndex) -> list[Any]:
    """The distinct numerics ids of a recipe's blocks."""
    ids = {
        canonical_json(manifest.provenance.get("numerics", {})): manifest.provenance.get("numerics", {})
        for manifest in index.manifests
        if manifest.shards
    }
    return list(ids.values())
