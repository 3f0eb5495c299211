"""A cache of given rows, made without an encoder, so that loaders can be measured at any size."""

from __future__ import annotations

import os

import numpy as np
import torch

from fovcache.cache import open_cache
from fovcache.keys.digest import DIGEST_BYTES
from fovcache.keys.recipe import Feature, Recipe
from fovcache.loaders.feature_set import FeatureSet
from fovcache.sources.sample import Sample
from fovcache.store.dataset import Dataset, publish_dataset
from fovcache.store.documents import put_keyed
from fovcache.store.index import open_index
from fovcache.store.layout import feature_name, recipe_name
from fovcache.store.manifest import Manifest, block_id, publish_manifest
from fovcache.store.marker import ensure_marker
from fovcache.store.refs import publish_ref
from fovcache.store.shard import keys_array, keys_hex, write_shard

_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def random_rows(num_rows: int, width: int, dtype: torch.dtype, *, seed: int = 0) -> torch.Tensor:
    """Standard normal rows [num_rows, width]."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty((num_rows, width), dtype=dtype)
    for part in rows.split(1 << 16):  # without a copy of all of them in float32
        part.copy_(torch.randn(part.shape, generator=generator))
    return rows


def write_features(
    folder: str | os.PathLike[str], rows: torch.Tensor, *, shard_bytes: int = 64 << 20, num_classes: int = 10
) -> FeatureSet:
    """A cache in `folder` as a build leaves it, with one feature of `rows` [n, …], labelled 0, 1, … in turn."""
    storage = open_cache(folder).storage
    recipe = Recipe(input={"kind": "synthetic"}, extractor={"name": "synthetic"})
    feature = Feature(recipe=recipe.digest, layer="rows", pool="tokens", dtype=_DTYPES[rows.dtype])
    keys = keys_hex(np.random.default_rng(0).integers(0, 256, (len(rows), DIGEST_BYTES), np.uint8))
    rows_per_shard = max(1, shard_bytes // (rows[0].nbytes + DIGEST_BYTES))
    ensure_marker(storage)
    put_keyed(storage, recipe_name(recipe.digest), recipe.document)
    put_keyed(storage, feature_name(feature.digest), feature.document)
    for start in range(0, len(rows), rows_per_shard):
        part = keys[start : start + rows_per_shard]
        block = block_id(recipe.digest, [feature.digest], keys_array(part).tobytes(), 0)
        own = {feature.digest: rows[start : start + rows_per_shard]}
        shard = write_shard(storage, recipe=recipe.digest, block=block, keys=part, features=own)
        manifest = Manifest(
            recipe=recipe.digest, block=block, attempt=0, features=(feature.digest,), shards=(shard,), failures=()
        )
        publish_manifest(storage, manifest)
    open_index(storage, recipe.digest, save=True)
    samples = tuple(
        Sample(key=key, uri=f"{number}.png", source=0, label=number % num_classes) for number, key in enumerate(keys)
    )
    digest = publish_dataset(storage, Dataset(samples=samples))
    publish_ref(storage, name="synthetic", dataset=digest, sources=(), roots=(), suffixes=())
    return open_cache(folder).features(layer="rows")
