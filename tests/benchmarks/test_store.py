"""Shards and the index: writing, reading whole, rows at random, a million samples opened and searched."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.peers.synthetic import random_rows, write_features
from fovcache.keys.recipe import Feature
from fovcache.loaders.feature_set import FeatureSet
from fovcache.maintain.verify import verify
from fovcache.store.index import RecipeIndex, open_index
from fovcache.store.shard import keys_hex, shard_damage, write_shard
from fovcache.store.storage import LocalStorage

ROW_BYTES = 2048
SIZE = int(os.environ.get("BENCH_BYTES", 256 << 20))
"""Of the cached set; 1 GiB is `BENCH_BYTES=1073741824`."""


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return random_rows(SIZE // ROW_BYTES, ROW_BYTES // 2, torch.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def features(rows: torch.Tensor, folder: Path) -> FeatureSet:
    return write_features(folder, rows)


def test_write_a_shard_of_64_mib(benchmark: BenchmarkFixture, rows: torch.Tensor, tmp_path: Path) -> None:
    part = rows[: (64 << 20) // ROW_BYTES]
    keys = keys_hex(np.random.default_rng(0).integers(0, 256, (len(part), 32), np.uint8))
    storage = LocalStorage(tmp_path)
    numbers = itertools.count()

    def write() -> str:
        shard = write_shard(storage, recipe="r", block=str(next(numbers)), keys=keys, features={"f" * 64: part})
        return f"shards/r/{shard.digest}.safetensors"

    benchmark.extra_info["bytes"] = part.nbytes
    assert shard_damage(storage, benchmark.pedantic(write, rounds=8, warmup_rounds=1)) is None


def test_read_a_set_whole(benchmark: BenchmarkFixture, rows: torch.Tensor, features: FeatureSet) -> None:
    benchmark.extra_info["bytes"] = SIZE
    assert torch.equal(benchmark(features.tensors)[0].view(torch.int16), rows.view(torch.int16))


@pytest.mark.usefixtures("features")
def test_verify_a_cache(benchmark: BenchmarkFixture, folder: Path) -> None:
    benchmark.extra_info["bytes"] = SIZE
    assert benchmark(verify, LocalStorage(folder)).exit_status == 0


@pytest.mark.parametrize("residency", ["memory", "shards"])
def test_rows_at_random(benchmark: BenchmarkFixture, rows: torch.Tensor, features: FeatureSet, residency: str) -> None:
    positions = np.random.default_rng(1).permutation(len(rows))[:32768]
    resident = features.tensors()[0]
    index = torch.from_numpy(positions)
    read = {"memory": lambda: resident.index_select(0, index), "shards": lambda: features.rows.gather(positions)}
    benchmark.extra_info["bytes"] = len(positions) * ROW_BYTES
    assert torch.equal(benchmark(read[residency]).view(torch.int16), rows[index].view(torch.int16))


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStorage, Feature]:
    folder = tmp_path_factory.mktemp("million")
    features = write_features(folder, torch.zeros(1_000_000, 1, dtype=torch.float16))
    return LocalStorage(folder), features.feature


def test_open_an_index_of_a_million(benchmark: BenchmarkFixture, million: tuple[LocalStorage, Feature]) -> None:
    storage, feature = million
    assert len(benchmark(open_index, storage, feature.recipe)) == 1_000_000


@pytest.mark.parametrize("num_keys", [1, 1_000_000])
def test_search_a_million(benchmark: BenchmarkFixture, million: tuple[LocalStorage, Feature], num_keys: int) -> None:
    storage, feature = million
    index: RecipeIndex = open_index(storage, feature.recipe)
    keys = np.random.default_rng(0).integers(0, 256, (1_000_000, 32), np.uint8)[-num_keys:]
    shard, row = benchmark(index.lookup, feature.digest, keys)
    assert (shard >= 0).all()
    assert len(set(zip(shard.tolist(), row.tolist(), strict=True))) == num_keys


def test_open_a_feature_set_of_a_million(benchmark: BenchmarkFixture, million: tuple[LocalStorage, Feature]) -> None:
    from fovcache.cache import Cache

    storage, _ = million
    assert len(benchmark(Cache(storage).features)) == 1_000_000
