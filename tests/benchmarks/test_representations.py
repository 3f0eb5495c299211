"""Each representation of 2,000 matrices of 68 tokens × 192 channels, as a build computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import known_representations, resolve_representation

NUM, TOKENS, CHANNELS = 2_000, 68, 192


@pytest.fixture(scope="module")
def matrices() -> torch.Tensor:
    return torch.randn(NUM, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(0)) + 0.3


@pytest.mark.parametrize("name", known_representations())
def test_representation(benchmark: BenchmarkFixture, matrices: torch.Tensor, name: str) -> None:
    representation = resolve_representation(name)
    benchmark.extra_info["samples"] = NUM
    rows = benchmark(compute_rows, representation, matrices, device="cpu")
    expected = representation.compute(matrices[:3])
    np.testing.assert_allclose(rows[:3], expected, rtol=1e-4, atol=1e-5)


def test_lowrank_of_257_tokens(benchmark: BenchmarkFixture) -> None:
    """What a ViT at 224 pixels gives."""
    lowrank = resolve_representation("spectral", {"method": "lowrank"})
    x = torch.randn(200, 257, 384, generator=torch.Generator().manual_seed(0))
    benchmark.extra_info["samples"] = len(x)
    rows = benchmark(compute_rows, lowrank, x, device="cpu")
    truth = torch.linalg.svdvals(x[0].double())[:10]
    assert float((rows[0, :10] / truth - 1).abs().max()) < 0.01
