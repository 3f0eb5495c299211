"""Derived blocks under care: what they were computed from, as far as it is known, computing them again, comparing."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator

import numpy as np
import torch

from ..builder.progress import OnProgress
from ..builder.request import pick_device
from ..derived.batches import compute_rows
from ..derived.derivation import Derivation
from ..derived.derive import BlockDeriver
from ..derived.matrices import matrices
from ..errors import DamageError, FovcacheError
from ..keys.digest import Document
from ..keys.recipe import Feature
from ..loaders.rows import Rows
from ..loaders.select import rows_of
from ..store.documents import read_keyed, read_loosely
from ..store.index import RecipeIndex, open_index
from ..store.layout import FEATURES, feature_name, recipe_name, stem
from ..store.manifest import manifest_names, read_manifest
from ..store.storage import LocalStorage


def find_derivation(storage: LocalStorage, recipe: str) -> Derivation | None:
    """What a recipe derives, from what can be read of its manifests or documents; None for an encoder's recipe.

    Nothing that is read is trusted: the digests of recipe and feature must be those that files are named by.
    """
    manifests = [read_loosely(storage, name) for name in manifest_names(storage, recipe)]
    features = {stem(name) for name in storage.list(FEATURES)}
    features |= {str(digest) for manifest in manifests for digest in _list(manifest.get("features"))}
    for candidate in (*map(_requested, manifests), *_documented(storage, recipe)):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            derivation = Derivation.from_document(candidate)
            if derivation and derivation.recipe.digest == recipe and derivation.feature.digest in features:
                return derivation
    return None


def _requested(manifest: Document) -> Document:
    provenance = manifest.get("provenance")
    request = provenance.get("request") if isinstance(provenance, dict) else None
    return request if isinstance(request, dict) else {}


def _documented(storage: LocalStorage, recipe: str) -> Iterator[Document]:
    """A derivation's document for each feature of a recipe, for when no manifest tells it."""
    document = read_loosely(storage, recipe_name(recipe))
    given = document.get("input")
    if isinstance(given, dict) and "feature" in given:
        for name in list(storage.list(FEATURES)):
            feature = read_loosely(storage, name)
            if feature.get("recipe") == recipe:
                yield {"input": given["feature"], "layer": feature.get("layer"), "extractor": document.get("extractor")}


def compute_again(
    storage: LocalStorage, derivation: Derivation, blocks: frozenset[str], *, device: str, on_progress: OnProgress
) -> int:
    """Compute blocks of a derived feature from its input; how many rows came back.

    Raises UsageError when the representation is not what it was, DamageError when the input is gone.
    """
    run = BlockDeriver(storage, derivation, derivation.representation(), device=device, on_progress=on_progress)
    index = _input_index(storage, derivation)
    run.compute([shard for shard in index.shards if derivation.input in shard.features], only=blocks)
    return run.num_computed


def _input_index(storage: LocalStorage, derivation: Derivation) -> RecipeIndex:
    """The rows that a feature was derived from. Its own document may be damaged."""
    with contextlib.suppress(DamageError, FileNotFoundError):
        document = read_keyed(storage, feature_name(derivation.input), derivation.input)
        return open_index(storage, Feature.from_document(document).recipe)
    for name in manifest_names(storage):
        with contextlib.suppress(DamageError, FileNotFoundError):
            manifest = read_manifest(storage, name)
            if derivation.input in manifest.features:
                return open_index(storage, manifest.recipe)
    raise DamageError("the rows that it was computed from are gone, which `fovcache build` brings back")


def compare_some(
    storage: LocalStorage, derivation: Derivation, num_samples: int, *, seed: int, device: str
) -> tuple[int, float]:
    """Compute up to `num_samples` random derived rows again, each alone: how many, and the largest difference.

    That is relative to the largest magnitude of a row. Raises FovcacheError when it cannot be done.
    """
    representation = derivation.representation()
    index, source = open_index(storage, derivation.recipe.digest), _input_index(storage, derivation)
    number = random.Random(seed).sample(range(len(index)), min(num_samples, len(index)))
    keys = index.keys[np.sort(np.array(number, np.int64))]
    derived, found = rows_of(storage, index, derivation.feature, keys, strict=False)
    document = read_keyed(storage, feature_name(derivation.input), derivation.input)
    given, in_input = rows_of(storage, source, Feature.from_document(document), keys[found], strict=False)
    if len(in_input) < len(found):
        raise FovcacheError(f"{len(found) - len(in_input)} rows that {derivation.name} was computed from are gone")
    largest = 0.0
    for at in range(len(found)):
        x = matrices(_row(given, at), has_frames=derivation.has_frames)
        new, old = compute_rows(representation, x, device=pick_device(device)), _row(derived, at)
        if new.shape != old.shape:
            raise FovcacheError(f"{derivation.name} gives {new.shape[1]} numbers now, and {old.shape[1]} are cached")
        largest = max(largest, apart(new, old))
    return len(found), largest


def apart(new: torch.Tensor, old: torch.Tensor) -> float:
    """The largest difference of rows, relative to the old ones' largest magnitude. Raises FovcacheError for NaN."""
    difference = float((new.double() - old.double()).abs().max() / old.double().abs().max().clamp_min(1e-12))
    if not math.isfinite(difference):
        raise FovcacheError("what is computed now is not finite")
    return difference


def _row(rows: Rows, position: int) -> torch.Tensor:
    """[1, …]"""
    one = rows.subset(np.array([position]))
    row = torch.empty((1, *one.shapes[0]), dtype=one.dtype)
    one.read_all(row)
    return row


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
