"""What caches hold, for tests of reports: made up."""

from __future__ import annotations

from dataclasses import replace

from fovcache.maintain.contents import (
    CacheContents,
    DatasetContents,
    DerivedContents,
    FailureGroup,
    FeatureContents,
    RecipeContents,
)


def example_cache() -> CacheContents:
    """Two layers of an encoder, one of them with a derived feature, and failures."""
    numerics = {"torch": "2.13", "device_name": "x86_64", "decoder": "pyav 62"}
    layer = FeatureContents(
        digest="ab" * 32, recipe="cd" * 32, encoder="vit-tiny", representation=None, layer="blocks.10", pool="tokens",
        dtype="bf16", row_shape=(8, 197, 192), num_rows=1197, size_bytes=722_000_000,
    )  # fmt: skip
    return CacheContents(
        path="demo/cache",
        datasets=(
            DatasetContents(
                name="digits", digest="ef" * 32, created="2026-11-21T03:02:54+00:00", sources=("train=clips",),
                num_samples=1200, num_distinct=1150, num_groups=599, splits={"": 3, "train": 1197},
                labels={"0": 120, "7": 117}, rows={layer.digest: 1197},
                failures=(FailureGroup(stage="decode", reason="corrupt frame 31", permanent=True, num_samples=3),),
            ),
        ),
        recipes=(
            RecipeContents(
                digest="cd" * 32, encoder="vit-tiny", clip="8 frames, uniform", geometry="224 px, crop, bicubic",
                decoder="pyav on cpu", weights="random:0", compute_dtype="float32", document={}, numerics=(numerics,),
                written="2026-11-21T03:05:00+00:00",
            ),
        ),
        derived=(
            DerivedContents(
                digest="12" * 32, function="spectral", version=1, parameters={"k": 10}, input=layer.digest,
                numerics=(numerics,), written="2026-11-21T03:06:00+00:00",
            ),
        ),
        features=(
            layer,
            replace(layer, digest="bb" * 32, layer="blocks.2", row_shape=None),
            replace(layer, digest="34" * 32, recipe="12" * 32, representation="spectral", row_shape=(32,), dtype="fp32",
                    size_bytes=153_216),
        ),
        num_shards=7, shard_bytes=1_500_000_000, total_bytes=1_600_000_000, num_lost=0,
    )  # fmt: skip
