"""Which samples lack which features, and which of those are worth another try."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..keys.digest import Document
from ..store.index import RecipeIndex
from ..store.manifest import Failure, Manifest
from ..store.shard import keys_array
from .plan import Want


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the samples of a build stand before it computes anything."""

    wants: tuple[Want, ...]
    """Samples to compute, in dataset order."""
    failed: dict[str, Failure]
    """Samples that failed before and are not tried again, by key."""


def stand(
    index: RecipeIndex,
    keys: Iterable[str],
    features: Sequence[str],
    *,
    software: Document,
    retry_failed: bool,
) -> Standing:
    """Compare distinct sample keys with what the cache holds."""
    distinct = list(dict.fromkeys(keys))
    array = keys_array(distinct)
    has = np.stack([index.lookup(feature, array)[0] >= 0 for feature in features])
    lacking = np.flatnonzero(~has.all(axis=0))
    records = _records(index.manifests) if len(lacking) else {}
    wants: list[Want] = []
    failed: dict[str, Failure] = {}
    for position in lacking.tolist():
        key = distinct[position]
        lacks = tuple(sorted(feature for feature, row in zip(features, has, strict=True) if not row[position]))
        past = records.get(key, [])
        last = _last_failure(past, lacks)
        if last is not None and not retry_failed and not _worth_another_try(*last, software):
            failed[key] = last[1]
        else:
            wants.append(Want(key=key, features=lacks, attempt=1 + max((m.attempt for m, _ in past), default=-1)))
    return Standing(wants=tuple(wants), failed=failed)


def _records(manifests: Sequence[Manifest]) -> dict[str, list[tuple[Manifest, Failure]]]:
    records: dict[str, list[tuple[Manifest, Failure]]] = {}
    for manifest in manifests:
        for failure in manifest.failures:
            records.setdefault(failure.key, []).append((manifest, failure))
    return records


def _last_failure(past: Sequence[tuple[Manifest, Failure]], lacks: Sequence[str]) -> tuple[Manifest, Failure] | None:
    """The latest failure that speaks of the lacking features.

    One in fetching or decoding speaks of all; one in encoding of a set of layers says nothing of a part of it.
    """
    speaking = [
        (manifest, failure)
        for manifest, failure in past
        if failure.stage != "encode" or set(manifest.features) <= set(lacks)
    ]
    return max(speaking, key=lambda record: record[0].attempt, default=None)


def _worth_another_try(manifest: Manifest, failure: Failure, software: Document) -> bool:
    return not failure.permanent or manifest.provenance.get("software") != software
