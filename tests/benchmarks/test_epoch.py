"""An epoch of batches that are in memory, beside a bare index loop and torch's DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.peers.synthetic import random_rows, write_features
from fovcache.loaders.feature_set import FeatureSet

NUM_ROWS, WIDTH, BATCH = 50_000, 384, 256


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return write_features(tmp_path_factory.mktemp("epoch"), random_rows(NUM_ROWS, WIDTH, torch.bfloat16))


def _ours(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    loader = features.loader(BATCH, shuffle=True, residency="device")
    return lambda: iter(loader)


def _streamed(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    loader = features.loader(BATCH, shuffle=True, residency="stream")
    return lambda: iter(loader)


def _bare(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    x, y = features.tensors()

    def epoch() -> Iterator[Any]:
        order = torch.randperm(len(x))
        for index in order.split(BATCH):
            yield x[index], y[index]

    return epoch


def _dataloader(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    dataset = torch.utils.data.TensorDataset(*features.tensors())
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True)
    return lambda: iter(loader)


WAYS = {"fovcache": _ours, "fovcache from the shards": _streamed, "bare index loop": _bare, "DataLoader": _dataloader}


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_epoch(benchmark: BenchmarkFixture, features: FeatureSet, make: Callable[..., Any]) -> None:
    epoch = make(features)

    def run() -> int:
        return sum(len(x) for x, y in epoch())

    benchmark.extra_info["rows"] = NUM_ROWS
    assert benchmark.pedantic(run, rounds=10, warmup_rounds=2) == NUM_ROWS
