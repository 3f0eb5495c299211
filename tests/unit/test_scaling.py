"""Standardising knows train alone, and does not inflate what says nothing."""

import numpy as np
import pytest
import torch

from fovcache.errors import UsageError
from fovcache.probes.scaling import fit_scaling


def rows(num: int = 200, dims: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((num, dims))).to(torch.float32)


def test_train_gets_mean_0_and_deviation_1_and_others_its_numbers() -> None:
    x = rows() * 3 + 7
    scaling = fit_scaling(x)
    z = scaling.apply(x)
    assert z.dtype == torch.float64
    assert z.mean(0).abs().max() < 1e-12
    assert (z.std(0, correction=0) - 1).abs().max() < 1e-12
    assert torch.equal(scaling.apply(x[:1] + 1)[0], (x[0].double() + 1 - x.double().mean(0)) / scaling.scale)


def test_columns_that_are_constant_but_for_rounding_are_dropped() -> None:
    x = rows().double()
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((200, 3)))
    x[:, 1] = 4.0
    x[:, 2] = 1 + 3e-8 * noise[:, 0]  # the share of the only singular value
    x[:, 3] = 3e-8 * noise[:, 1]  # the entropy of it
    x[:, 4] = 1000 + 1e-5 * noise[:, 2]
    scaling = fit_scaling(x)
    assert scaling.kept.tolist() == [0, 5]
    assert (scaling.num_features, scaling.num_effective) == (6, 2)
    assert scaling.apply(x).shape == (200, 2)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_small_and_large_units_are_no_reason_to_drop(unit: float) -> None:
    assert fit_scaling(rows() * unit).num_effective == 6


def test_columns_of_different_units_stay() -> None:
    assert fit_scaling(rows() * torch.tensor([1e-4, 1e-2, 1, 1, 1e3, 1e5])).num_effective == 6


def test_equal_columns_count_once_whatever_their_scale_sign_and_offset() -> None:
    x = rows(dims=4)
    twice = torch.cat([x, x[:, :1], 3 * x[:, 1:2] + 5, -x[:, 1:2], x[:, 2:3] + 0.01 * x[:, 3:]], 1)
    scaling = fit_scaling(twice)
    assert len(scaling.kept) == 8
    assert scaling.num_duplicate == 3
    assert scaling.num_effective == 5


def test_many_columns_are_told_apart() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 20000)))
    assert fit_scaling(x).num_effective == 20000
    assert fit_scaling(torch.cat([x, x[:, :500].float()], 1)).num_effective == 20000


def test_rounding_to_float32_leaves_duplicates_duplicates() -> None:
    """Frobenius, nuclear and spectral norm of a matrix of rank 1 are one number, computed in three ways."""
    norms = 10 + rows(dims=1)
    x = torch.cat([norms, norms * (1 + 1e-7), (norms.double().square().sqrt()).float()], 1)
    assert fit_scaling(x).num_effective == 1


def test_numbers_that_are_not_finite_are_refused_with_the_column() -> None:
    x = rows()
    x[3, 4] = float("nan")
    with pytest.raises(UsageError, match=r"1 of 6 features are not finite .* number 4"):
        fit_scaling(x)


def test_nothing_that_varies_is_nothing_to_fit() -> None:
    with pytest.raises(UsageError, match="all 6 features are the same"):
        fit_scaling(torch.ones(20, 6))
