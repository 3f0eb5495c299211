"""Reading what a cache holds: datasets, features, what decided them, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..derived.derivation import input_of
from ..extract.layers import layer_order
from ..keys.digest import canonical_json
from ..keys.recipe import Feature, is_of_captions
from ..store import layout
from ..store.dataset import SampleTable, read_table
from ..store.index import RecipeIndex
from ..store.manifest import Failure
from ..store.refs import DatasetRef
from ..store.shard import keys_array, keys_hex, read_shard_header
from ..store.storage import LocalStorage
from .catalog import Catalog
from .contents import CacheContents, DatasetContents, DerivedContents, FailureGroup, FeatureContents, RecipeContents

_SHOWN_DIGITS = 12


def cache_contents(storage: LocalStorage) -> CacheContents:
    """What a cache holds. Damaged blocks are left out, counted and logged.

    Raises DamageError where a dataset is damaged.
    """
    catalog = Catalog(storage)
    stored = {feature.digest: each for feature in catalog.features if (each := _stored(catalog, feature)).num_rows}
    features = [
        _feature(catalog, feature, stored[feature.digest]) for feature in catalog.features if feature.digest in stored
    ]
    recipes = [
        _recipe(digest, document, catalog.index(digest))
        for digest, document in catalog.recipes.items()
        if input_of(document) is None
    ]
    derived = [
        _derived(digest, document, catalog.index(digest))
        for digest, document in catalog.recipes.items()
        if input_of(document) is not None
    ]
    shards = list(storage.list(layout.SHARDS))
    return CacheContents(
        path=str(storage.root),
        datasets=tuple(_dataset(catalog, ref) for ref in catalog.newest_refs()),
        recipes=tuple(sorted(recipes, key=lambda each: (each.encoder, each.digest))),
        derived=tuple(sorted(derived, key=lambda each: (each.function, each.input, each.digest))),
        features=tuple(sorted(features, key=_place)),
        num_shards=len(shards),
        shard_bytes=sum(storage.size(name) for name in shards),
        total_bytes=_total_bytes(storage),
        num_lost=sum(len(catalog.index(recipe).lost) for recipe in catalog.recipes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A feature's rows in all shards."""

    num_rows: int
    size_bytes: int
    row_shape: tuple[int, ...] | None


def _stored(catalog: Catalog, feature: Feature) -> _Stored:
    index = catalog.index(feature.recipe)
    infos = [
        read_shard_header(catalog.storage, shard.name).tensors[feature.digest]
        for shard in index.shards
        if feature.digest in shard.features
    ]
    shapes = {info.shape[1:] for info in infos}
    return _Stored(
        num_rows=sum(info.shape[0] for info in infos),
        size_bytes=sum(info.size_bytes for info in infos),
        row_shape=shapes.pop() if len(shapes) == 1 else None,
    )


def _feature(catalog: Catalog, feature: Feature, stored: _Stored) -> FeatureContents:
    return FeatureContents(
        digest=feature.digest,
        recipe=feature.recipe,
        encoder=catalog.encoder(feature),
        representation=catalog.representation(feature),
        layer=feature.layer,
        pool=feature.pool,
        dtype=feature.dtype,
        row_shape=stored.row_shape,
        num_rows=stored.num_rows,
        size_bytes=stored.size_bytes,
    )


def _place(feature: FeatureContents) -> tuple[Any, ...]:
    derived = feature.representation or ""
    return bool(derived), feature.encoder, derived, layer_order(feature.layer), feature.pool, feature.digest


def _recipe(digest: str, document: Mapping[str, Any], index: RecipeIndex) -> RecipeContents:
    clip = document["input"].get("clip") or {}
    return RecipeContents(
        digest=digest,
        encoder=str(document["extractor"].get("name", "")),
        clip=_clip(clip),
        geometry=_geometry(clip),
        decoder=_decoder(clip.get("decoder") or {}),
        weights=weights_in_words(document["extractor"], index),
        compute_dtype=str(document["compute"]["dtype"]),
        document=document,
        numerics=_numerics(index),
        written=_written(index),
    )


def _derived(digest: str, document: Mapping[str, Any], index: RecipeIndex) -> DerivedContents:
    extractor = document["extractor"]
    return DerivedContents(
        digest=digest,
        function=str(extractor.get("name", "")),
        version=int(extractor.get("version", 0)),
        parameters=extractor.get("parameters") or {},
        input=str(document["input"]["feature"]),
        numerics=_numerics(index),
        written=_written(index),
    )


def _clip(clip: Mapping[str, Any]) -> str:
    if clip.get("fps") is not None:
        return f"{clip['fps']:g} frames a second"
    num = clip.get("frames")
    return f"{num} frame{'' if num == 1 else 's'}, {clip.get('sampling', '')}" if num is not None else ""


def _geometry(clip: Mapping[str, Any]) -> str:
    if not clip:
        return ""
    if clip.get("size") is None:
        return "native pixels"
    short_side = f" of {clip['short_side']}" if clip.get("short_side") else ""
    return f"{clip['size']} px{short_side}, {clip.get('fit')}, {clip.get('interpolation')}"


def _decoder(decoder: Mapping[str, Any]) -> str:
    return f"{decoder.get('name', '')} on {decoder.get('device', '')}" if decoder else ""


def weights_in_words(extractor: Mapping[str, Any], index: RecipeIndex) -> str:
    """`random:0`, or what was asked for, without its folder, and the digest's beginning."""
    weights = extractor.get("weights")
    if isinstance(weights, Mapping) and weights.get("seed") is not None:
        return f"random:{weights['seed']}"
    digest = str(weights.get("digest", "")) if isinstance(weights, Mapping) else str(extractor.get("state") or "")
    asked = {str((manifest.provenance.get("request") or {}).get("weights") or "") for manifest in index.manifests}
    named = sorted(text if text.startswith("random:") else text.rstrip("/").rpartition("/")[2] for text in asked)
    return " ".join([*filter(None, named), digest[:_SHOWN_DIGITS]]).strip()


def _numerics(index: RecipeIndex) -> tuple[Mapping[str, Any], ...]:
    """The distinct numerics ids of a recipe's blocks."""
    ids = [manifest.provenance.get("numerics", {}) for manifest in index.manifests if manifest.shards]
    return tuple({canonical_json(each): each for each in ids}.values())


def _written(index: RecipeIndex) -> str:
    return max((str(manifest.provenance.get("created", "")) for manifest in index.manifests), default="")


def _dataset(catalog: Catalog, ref: DatasetRef) -> DatasetContents:
    table = read_table(catalog.storage, ref.dataset)
    splits = Counter(split or "" for split in table.texts("split"))
    rows = {feature.digest: int(catalog.has(feature, table).sum()) for feature in catalog.features}
    return DatasetContents(
        name=ref.name,
        digest=ref.dataset,
        created=datetime.fromtimestamp(ref.created_ns // 10**9, UTC).isoformat(),
        sources=ref.sources,
        num_samples=len(table) + len(table.unreadable),
        num_distinct=len(set(keys_hex(table.keys))),
        num_groups=len(table.categories("group")[1]),
        splits=dict(sorted(splits.items())),
        labels=_labels(table),
        rows={digest: num for digest, num in rows.items() if num},
        failures=tuple(_failures(catalog, table)),
    )


def _labels(table: SampleTable) -> dict[str, int]:
    """Integers in their order, then texts in theirs."""
    numbers, is_number = table.integer_labels()
    values, counts = np.unique(numbers[is_number], return_counts=True)
    codes, names = table.categories("label")
    texts = Counter(codes[codes >= 0].tolist())
    labels = {str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
    return labels | {names[code]: labels.get(names[code], 0) + texts[code] for code in sorted(texts)}


def _failures(catalog: Catalog, table: SampleTable) -> Iterator[FailureGroup]:
    """A sample counts once for a reason, however many encoders it failed for; not where a later try mended it."""
    num_of = Counter(keys_hex(table.keys))
    if any(is_of_captions(recipe) for recipe in catalog.recipes.values()):
        num_of.update(keys_hex(table.caption_keys))
    groups: dict[tuple[str, str, bool], set[str]] = {}
    for recipe in catalog.recipes:
        for key, failure in _standing(catalog.index(recipe), num_of).items():
            groups.setdefault((failure.stage, failure.reason, failure.permanent), set()).add(key)
    counts = Counter({group: sum(num_of[key] for key in keys) for group, keys in groups.items()})
    counts.update(("fetch", item.reason, item.permanent) for item in table.unreadable)
    for (stage, reason, permanent), num in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield FailureGroup(stage=stage, reason=reason, permanent=permanent, num_samples=num)


def _standing(index: RecipeIndex, keys: Mapping[str, int]) -> dict[str, Failure]:
    """The last failure of each of these samples that still lacks a feature of the block in which it failed."""
    last: dict[str, tuple[int, Failure]] = {}
    for manifest in index.manifests:
        failed = [failure for failure in manifest.failures if failure.key in keys]
        if not failed:
            continue
        array = keys_array([failure.key for failure in failed])
        has = np.stack([index.lookup(feature, array)[0] >= 0 for feature in manifest.features])
        for failure, is_whole in zip(failed, np.atleast_1d(has.all(axis=0)).tolist(), strict=True):
            if not is_whole and manifest.attempt >= last.get(failure.key, (-1, failure))[0]:
                last[failure.key] = manifest.attempt, failure
    return {key: failure for key, (_, failure) in last.items()}


def _total_bytes(storage: LocalStorage) -> int:
    """Files that vanish meanwhile are not counted."""
    total = 0
    for path in storage.root.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        except FileNotFoundError:
            continue
    return total
