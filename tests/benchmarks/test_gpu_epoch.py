"""An epoch over rows on the GPU, beside a bare index loop and torch's DataLoader over the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.peers.resident_epoch import measure
from fovcache.bench.peers.synthetic import random_rows, write_features
from fovcache.loaders.feature_set import FeatureSet

NUM_ROWS, WIDTH, BATCH = 50_000, 384, 256
ROUNDS = 8

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    rows = random_rows(NUM_ROWS, WIDTH, torch.bfloat16)
    return write_features(tmp_path_factory.mktemp("gpu_epoch") / "cache", rows, num_classes=NUM_ROWS)


def _ours(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency="device")
    return lambda: iter(loader)


def _bare(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    x, y = features.tensors("cuda")

    def epoch() -> Iterator[Any]:
        for index in torch.randperm(len(x), device="cuda").split(BATCH):
            yield x[index], y[index]

    return epoch


def _dataloader(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    dataset = torch.utils.data.TensorDataset(*features.tensors("cuda"))
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True)
    return lambda: iter(loader)


def _host(features: FeatureSet) -> Callable[[], Iterator[Any]]:
    loader = features.loader(BATCH, shuffle=True, device="cuda", residency="host")
    return lambda: iter(loader)


WAYS = {"fovcache": _ours, "bare index loop": _bare, "DataLoader": _dataloader, "fovcache from host memory": _host}


@pytest.mark.parametrize("way", WAYS)
def test_epoch(benchmark: BenchmarkFixture, features: FeatureSet, way: str) -> None:
    epoch = WAYS[way](features)

    def run() -> int:
        count = sum(len(x) for x, _ in epoch())
        torch.cuda.synchronize()
        return count

    benchmark.extra_info |= {"rows": NUM_ROWS, "gpu": torch.cuda.get_device_name()}
    assert benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=2) == NUM_ROWS


@pytest.mark.parametrize("batch", [256, 32])
def test_a_resident_epoch_is_as_fast_as_it_is_said_to_be(features: FeatureSet, batch: int) -> None:
    """Within 5 % of the bare loop and 50 times the DataLoader, unless the interval leaves it open."""
    comparison = measure(features, batch=batch, rounds=ROUNDS, device="cuda", epochs=5)
    judged = [bar for bar in comparison.bars if bar.at_least is not None]
    assert len(judged) == 2
    for bar in judged:
        assert bar.high >= bar.at_least, f"{bar.method}: {bar.ratio:.2f} × {bar.other}, expected {bar.at_least:.2f}"
