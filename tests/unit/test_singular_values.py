"""Singular values: how exact is exact, and how near the largest ones are on a spectrum that hardly falls."""

import numpy as np
import pytest
import torch

from fovcache.derived.representation import resolve_representation
from fovcache.derived.singular_values import exact_singular_values
from fovcache.derived.spectral import MOST


def with_spectrum(num_tokens: int, num_channels: int, singular: np.ndarray, num: int = 1) -> torch.Tensor:
    """float32 `[num, T, C]` with these singular values and random singular vectors."""
    generator = torch.Generator().manual_seed(num_tokens * num_channels)

    def vectors(size: int) -> torch.Tensor:
        random = torch.randn(num, size, len(singular), generator=generator, dtype=torch.float64)
        return torch.linalg.qr(random).Q

    return (vectors(num_tokens) * torch.from_numpy(singular) @ vectors(num_channels).mT).float()


def slow_decay(num: int) -> np.ndarray:
    """k^-0.25."""
    return np.arange(1, num + 1) ** -0.25


@pytest.mark.parametrize(
    ("shape", "seeds"), [((68, 192), 8), ((257, 384), 4), ((384, 257), 2), ((1024, 160), 2), ((768, 3072), 1)]
)
def test_lowrank_is_within_one_percent_of_each_of_the_ten(shape: tuple[int, int], seeds: int) -> None:
    expected = slow_decay(min(shape))
    x = with_spectrum(*shape, expected)
    for seed in range(seeds):
        lowrank = resolve_representation("spectral", {"method": "lowrank", "seed": seed})
        found = lowrank.compute(x)[0, :MOST].numpy()
        assert np.abs(found / expected[:MOST] - 1).max() < 0.002  # 0.01 is promised


def test_lowrank_finds_small_values_beside_a_large_one() -> None:
    expected = np.array([1e3, *np.geomspace(10, 0.5, 149)])
    found = resolve_representation("spectral", {"method": "lowrank"}).compute(with_spectrum(150, 200, expected))
    np.testing.assert_allclose(found[0, :MOST], expected[:MOST], rtol=0.01)


@pytest.mark.parametrize("shape", [(68, 192), (192, 68), (130, 130)])
def test_exact_keeps_small_values_right(shape: tuple[int, int]) -> None:
    expected = np.geomspace(1, 1e-4, min(shape))
    x = with_spectrum(*shape, expected)
    found = exact_singular_values(x)[0].double()
    truth = torch.linalg.svdvals(x[0].double())
    assert float((found / truth - 1).abs().max()) < 2e-7


def test_exact_is_no_worse_than_a_float32_svd_however_small_they_are() -> None:
    x = with_spectrum(68, 192, np.geomspace(1, 1e-12, 68), num=5)
    truth = torch.linalg.svdvals(x.double())
    own, svd = ((found.double() - truth).abs().max() for found in (exact_singular_values(x), torch.linalg.svdvals(x)))
    assert own < 1e-7
    assert own <= 2 * svd


def test_what_is_rounding_counts_as_zero() -> None:
    rank_three = with_spectrum(68, 192, np.array([3.0, 2.0, 1.0]))
    for method in ("exact", "lowrank"):
        found = resolve_representation("spectral", {"method": method}).compute(rank_three)[0]
        torch.testing.assert_close(found[:4], torch.tensor([3.0, 2.0, 1.0, 0.0]))
        assert not found[3:10].any()
        torch.testing.assert_close(found[20:24], torch.tensor([1 / 3, 1 / 2, 1.0, 0.0]))
