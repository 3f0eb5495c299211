"""`verify --recompute N`: encode cached samples again and measure how far the rows are apart."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..builder.captions import captions_of, located
from ..builder.downloads import Downloads
from ..builder.finding import find_samples
from ..builder.request import BuildOptions, EncoderRequest, Resolution, pick_device, recorded_limits, resolve
from ..errors import DamageError, FovcacheError, SampleError
from ..sources.sample import Located
from ..store.dataset import read_table
from ..store.index import open_index
from ..store.layout import MANIFESTS, REFS
from ..store.manifest import Manifest, manifest_names, read_manifest
from ..store.refs import read_ref
from ..store.shard import keys_array
from ..store.storage import LocalStorage
from .derivations import apart, compare_some, find_derivation

logger = logging.getLogger(__name__)

TOLERANCE = {"fp32": 1e-4, "fp16": 4e-3, "bf16": 3.2e-2, "int32": 0.0, "derived": 1e-3}
"""Largest difference allowed, relative to the largest magnitude of the feature's rows: for the half types four
rounding steps, for whole numbers none, for fp32 and for derived rows what other batch sizes and kernels were seen to
do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputeReport:
    """How far recomputed rows are from cached ones."""

    samples: int
    """Samples that were encoded again."""
    largest: dict[str, float]
    """By storage dtype, or `derived`, the largest difference relative to the largest magnitude."""
    tolerance: dict[str, float]
    """What is allowed."""
    within_tolerance: bool
    """Whether all are."""
    skipped: tuple[str, ...] = ()
    """Recipes that could not be recomputed, and why."""


def recompute_some(storage: LocalStorage, num_samples: int, *, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Encode up to `num_samples` random cached samples of each recipe again; a RecomputeReport as a document."""
    recipes = sorted({name.split("/")[1] for name in storage.list(MANIFESTS)})
    largest: dict[str, float] = {}
    skipped: list[str] = []
    num_done = 0
    for recipe in recipes:
        if (derivation := find_derivation(storage, recipe)) is not None:
            try:
                count, widest = compare_some(storage, derivation, num_samples, seed=seed, device=device)
                num_done, largest["derived"] = num_done + count, max(largest.get("derived", 0.0), widest)
            except FovcacheError as error:
                skipped.append(f"{recipe[:12]}: {error}")
            continue
        manifests = [read_manifest(storage, name) for name in manifest_names(storage, recipe)]
        orders = {str(sorted(m.provenance["request"].items())): m for m in manifests if m.shards}
        for manifest in orders.values():
            try:
                num_done += _compare(storage, manifest, num_samples, random.Random(seed), device, largest)
            except (FovcacheError, KeyError, TypeError) as error:
                skipped.append(f"{recipe[:12]}: {error}")
    within = all(value <= TOLERANCE[dtype] for dtype, value in largest.items()) and not skipped
    report = RecomputeReport(
        samples=num_done, largest=largest, tolerance=TOLERANCE, within_tolerance=within, skipped=tuple(skipped)
    )
    return asdict(report)


def known_sources(storage: LocalStorage, provenance: Mapping[str, Any]) -> Sequence[str]:
    """Where the samples of a block's dataset were seen last: a build of moved sources computes nothing."""
    for name in reversed(list(storage.list(REFS))):
        with contextlib.suppress(DamageError, FileNotFoundError):
            ref = read_ref(storage, name)
            if ref.dataset == provenance["dataset"] and ref.roots and all(Path(root).exists() for root in ref.roots):
                return ref.sources
    sources: list[str] = provenance["sources"]
    return sources


def dataset_of(storage: LocalStorage, sources: Sequence[str]) -> str | None:
    """The newest dataset of the very same sources: blocks of URLs are computed before their dataset is known."""
    for name in reversed(list(storage.list(REFS))):
        with contextlib.suppress(DamageError, FileNotFoundError):
            ref = read_ref(storage, name)
            if list(ref.sources) == list(sources):
                return ref.dataset
    return None


def _read_again(
    storage: LocalStorage, manifest: Manifest, resolution: Resolution, num_samples: int, stack: contextlib.ExitStack
) -> tuple[Mapping[str, Located], Downloads | None]:
    """By key what a build read, and what downloads it; captions stand in the dataset."""
    sources: Sequence[str] = manifest.provenance["sources"]
    if resolution.is_of_captions:
        dataset = manifest.provenance["dataset"] or dataset_of(storage, sources) or ""
        with contextlib.suppress(DamageError, FileNotFoundError):
            return captions_of(read_table(storage, dataset)), None
    scan, downloads = find_samples(
        known_sources(storage, manifest.provenance),
        resolution.suffixes,
        BuildOptions(allow_file_urls=True),
        stack,
        storage=storage,
    )
    if downloads is not None and len(scan.locations) < num_samples:
        downloads.learn(scan.pending[:num_samples])
        scan.refresh()
    return located(scan.found(), resolution), downloads


def _compare(
    storage: LocalStorage,
    manifest: Manifest,
    num_samples: int,
    chance: random.Random,
    device_name: str,
    largest: dict[str, float],
) -> int:
    """Recompute samples of one build's request and widen `largest`; how many there were."""
    from ..builder.encoding import BatchEncoder
    from ..builder.reading import read_item
    from ..loaders.rows import Rows

    resolution = resolve(
        EncoderRequest.from_document(manifest.provenance["request"]), recorded_limits(manifest.provenance)
    )
    resolved = resolution.by_recipe(manifest.recipe)
    if resolved is None:
        encoder_name = manifest.provenance["request"]["encoder"]
        raise FovcacheError(f"{encoder_name} is not what it was when the rows were computed")
    with contextlib.ExitStack() as stack:
        locations, downloads = _read_again(storage, manifest, resolution, num_samples, stack)
        index = open_index(storage, manifest.recipe)
        features = resolved.features
        keys = sorted(locations)
        found = {f.digest: index.lookup(f.digest, keys_array(keys)) for f in features}
        cached = [at for at in range(len(keys)) if all(shard[at] >= 0 for shard, _ in found.values())]
        chosen = chance.sample(cached, min(num_samples, len(cached)))
        chosen.sort(key=lambda at: locations[keys[at]].place.where)  # what is downloaded, once and not for long
        if downloads is not None:
            downloads.need([locations[keys[at]] for at in chosen])
        encoder = BatchEncoder(
            resolved.extractor,
            resolved.spec,
            features,
            device=pick_device(device_name),
            compute_dtype=resolved.request.compute_dtype,
            batch_size=1,
        )
        stack.callback(encoder.close)
        for at in chosen:
            location = locations[keys[at]]
            try:
                rows = encoder.rows([read_item(resolved.spec, downloads.here(location) if downloads else location)])
            except SampleError as error:
                raise FovcacheError(f"a cached sample cannot be read again: {error}") from error
            if downloads is not None:
                downloads.done([location])
            for feature in features:
                shard, row = found[feature.digest]
                source = Rows(storage, feature.digest, index.shards, shard[at : at + 1], row[at : at + 1])
                old = torch.empty((1, *source.shapes[0]), dtype=source.dtype)
                source.read_all(old)
                new_shape = tuple(rows[feature.digest].shape[1:])
                if new_shape != source.shapes[0]:
                    raise FovcacheError(
                        f"a row of {feature.layer} has shape {new_shape} now, and {source.shapes[0]} in the cache"
                    )
                largest[feature.dtype] = max(largest.get(feature.dtype, 0.0), apart(rows[feature.digest], old))
    return len(chosen)
