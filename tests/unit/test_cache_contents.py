"""What a cache is said to hold is what was built: rows, labels, provenance, and what still fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fovcache
from fovcache.cache import open_cache
from fovcache.maintain.contents import CacheContents
from fovcache.maintain.inventory import cache_contents
from fovcache.store.layout import MANIFESTS, SHARDS


def build(cache: Path, *sources: str, encoder: str = "pixels", **options: object) -> fovcache.BuildReport:
    return fovcache.open(cache).build(list(sources), encoder=encoder, device="cpu", **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """Two splits of labelled images, one image twice, one broken; the pixels of two sizes."""
    folder = tmp_path_factory.mktemp("contents")
    make_images(folder / "train", num=6, classes=("cat", "dog"), seed=1)
    make_images(folder / "test", num=2, classes=("cat",), seed=2)
    shutil.copy(folder / "train" / "cat" / "0000.png", folder / "train" / "dog" / "twin.png")
    (folder / "train" / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    sources = f"train={folder / 'train'}", f"test={folder / 'test'}"
    build(folder / "cache", *sources, dataset="pets", layers=["pixels*"], pool="tokens")
    return folder / "cache"


def contents(cache: Path) -> CacheContents:
    return cache_contents(open_cache(cache, create=False).storage)


def test_a_dataset_with_its_splits_labels_and_failures(cache: Path) -> None:
    (dataset,) = contents(cache).datasets
    assert dataset.name == "pets"
    assert (dataset.num_samples, dataset.num_distinct, dataset.num_groups) == (10, 9, 0)
    assert dataset.splits == {"test": 2, "train": 8}
    assert dataset.labels == {"cat": 5, "dog": 5}
    assert [source.partition("=")[0] for source in dataset.sources] == ["train", "test"]
    (failure,) = dataset.failures
    assert (failure.stage, failure.permanent, failure.num_samples) == ("decode", True, 1)
    assert set(dataset.rows.values()) == {9}  # the twins are two samples with a row each
    assert dataset.created.endswith("+00:00")


def test_features_with_their_rows_and_bytes(cache: Path) -> None:
    found = contents(cache)
    assert [(each.encoder, each.layer, each.row_shape, each.num_rows) for each in found.features] == [
        ("pixels", "pixels", (3, 32, 32), 8), ("pixels", "pixels8", (3, 8, 8), 8),
    ]  # fmt: skip
    assert [each.size_bytes for each in found.features] == [8 * 3072 * 2, 8 * 192 * 2]
    files = [path.stat().st_size for path in (cache / SHARDS).rglob("*.safetensors")]
    assert (found.num_shards, found.shard_bytes) == (len(files), sum(files))
    assert found.total_bytes == sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert {each.representation for each in found.features} == {None}
    assert (found.derived, found.num_lost) == ((), 0)


def test_a_recipe_says_what_decides_it(cache: Path) -> None:
    (recipe,) = contents(cache).recipes
    assert (recipe.encoder, recipe.compute_dtype, recipe.weights) == ("pixels", "float32", "")
    assert recipe.clip == "1 frame, uniform"
    assert recipe.geometry.startswith("32 px, squash, bicubic")
    assert recipe.decoder == "pillow on cpu"
    assert recipe.document["kind"] == "recipe"
    (numerics,) = recipe.numerics
    assert numerics["device"] == "cpu"
    assert recipe.written.endswith("+00:00")


def test_weights_are_told_as_they_were_asked_for(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", num=2)
    options = {"weights": "random:3", "layers": ["embed", "blocks.0"], "pool": "mean"}
    build(tmp_path / "cache", str(tmp_path / "images"), encoder="vit-tiny", **options)
    found = contents(tmp_path / "cache")
    assert [recipe.weights for recipe in found.recipes] == ["random:3"]
    assert [(each.layer, each.pool) for each in found.features] == [("embed", "mean"), ("blocks.0", "mean")]
    (dataset,) = found.datasets
    assert (dataset.labels, dataset.splits) == ({}, {"": 2})


def test_a_mended_sample_is_no_failure_any_more(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", num=3)
    lost = tmp_path / "images" / "0001.png"
    whole = lost.read_bytes()
    lost.write_bytes(whole[:60])
    build(tmp_path / "cache", str(tmp_path / "images"), layers=["pixels8"])
    (dataset,) = contents(tmp_path / "cache").datasets
    assert [group.num_samples for group in dataset.failures] == [1]
    lost.write_bytes(whole)
    build(tmp_path / "cache", str(tmp_path / "images"), layers=["pixels8"])
    (dataset,) = contents(tmp_path / "cache").datasets
    assert dataset.failures == ()
    assert dataset.num_samples == 3


def test_a_failure_counts_once_for_two_encoders(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", num=2)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    build(tmp_path / "cache", str(tmp_path / "images"), layers=["pixels8"])
    build(tmp_path / "cache", str(tmp_path / "images"), layers=["pixels8"], size=16)
    found = contents(tmp_path / "cache")
    assert len(found.recipes) == 2
    assert [group.num_samples for group in found.datasets[0].failures] == [1]


def test_a_derived_feature_names_its_function_and_input(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    opened = fovcache.open(tmp_path / "cache")
    opened.derive(opened.features(layer="pixels8"), "simple_stats", device="cpu")
    found = contents(tmp_path / "cache")
    (derived,) = found.derived
    plain, feature = (
        next(each for each in found.features if each.layer == "pixels8" and each.representation == name)
        for name in (None, "simple_stats")
    )
    assert (derived.function, derived.input, derived.digest) == ("simple_stats", plain.digest, feature.recipe)
    assert (feature.encoder, feature.row_shape, feature.num_rows) == ("pixels", (5,), 8)
    assert feature.dtype == "fp32"
    assert [recipe.encoder for recipe in found.recipes] == ["pixels"]  # not among the encoders' recipes
    assert found.features[-1] == feature  # behind the encoders'


def test_a_lost_block_is_counted_and_the_rest_is_told(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    next((tmp_path / "cache" / MANIFESTS).rglob("*.json")).write_bytes(b"{}")
    found = contents(tmp_path / "cache")
    assert found.num_lost == 1
    assert found.features == ()
    assert found.datasets[0].num_samples == 10


def test_an_empty_cache(tmp_path: Path) -> None:
    found = cache_contents(fovcache.open(tmp_path / "cache").storage)
    assert (found.datasets, found.recipes, found.features, found.num_shards, found.total_bytes) == ((), (), (), 0, 0)
