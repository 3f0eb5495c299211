"""What representations must not notice: the order of values, tokens or channels, transposition, shifts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fovcache.derived.representation import resolve_representation

MATRICES = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.integers(-40, 40).map(lambda number: number / 8),
)
OF_VALUES = ("simple_stats", "stats", "rank_based", "distribution", "info_theoretic")
WHATEVER = st.randoms(use_true_random=False)


def numbers(name: str, x: np.ndarray, **parameters: str) -> np.ndarray:
    row: np.ndarray = resolve_representation(name, parameters).compute(torch.from_numpy(x.copy())[None])[0].numpy()
    return row


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def shuffled(num: int, whatever: "st.Random") -> list[int]:
    return whatever.sample(range(num), num)


@pytest.mark.parametrize("name", OF_VALUES)
@given(x=MATRICES, whatever=WHATEVER)
def test_of_values_where_they_stand_does_not_matter(name: str, x: np.ndarray, whatever: "st.Random") -> None:
    moved = x.ravel()[shuffled(x.size, whatever)]
    same(numbers(name, moved.reshape(x.shape)), numbers(name, x))
    same(numbers(name, moved[None]), numbers(name, x))


@given(x=MATRICES, whatever=WHATEVER)
def test_norms_and_singular_values_know_no_order_of_tokens_and_channels(x: np.ndarray, whatever: "st.Random") -> None:
    moved = x[shuffled(x.shape[0], whatever)][:, shuffled(x.shape[1], whatever)]
    for name in ("matrix_norms", "spectral"):
        same(numbers(name, moved), numbers(name, x))


@given(x=MATRICES)
def test_transposing_swaps_the_sums_of_columns_and_rows_and_nothing_else(x: np.ndarray) -> None:
    same(numbers("matrix_norms", x.T)[[0, 1, 2, 4, 3, 5, 6]], numbers("matrix_norms", x))
    for name in ("spectral", "frequency"):
        same(numbers(name, x.T), numbers(name, x))


@given(x=MATRICES, whatever=WHATEVER)
def test_frequencies_do_not_notice_a_cyclic_shift(x: np.ndarray, whatever: "st.Random") -> None:
    shift = (whatever.randrange(x.shape[0]), whatever.randrange(x.shape[1]))
    same(numbers("frequency", np.roll(x, shift, (0, 1))), numbers("frequency", x))


@given(x=MATRICES, factor=st.sampled_from([0.3, 7.0]), offset=st.sampled_from([0.0, -11.7, 5.1]))
def test_quantiles_and_shape_follow_a_change_of_unit_and_origin(x: np.ndarray, factor: float, offset: float) -> None:
    moved, still = numbers("rank_based", factor * x + offset), numbers("rank_based", x)
    same(moved[:9], factor * still[:9] + offset)
    same(moved[9:], factor * still[9:])
    if np.ptp(x) > 0:
        np.testing.assert_allclose(numbers("stats", factor * x + offset)[5:], numbers("stats", x)[5:], atol=1e-6)


@given(x=MATRICES)
def test_norms_are_ordered_and_shares_sum_to_one(x: np.ndarray) -> None:
    frobenius, nuclear, spectral, *_ = numbers("matrix_norms", x)
    assert spectral <= frobenius * (1 + 1e-12)
    assert frobenius <= nuclear * (1 + 1e-12)
    assert nuclear <= np.sqrt(min(x.shape)) * frobenius * (1 + 1e-12)
    same(numbers("spectral", x)[10:20].sum(), np.float64(x.any()))


@given(x=MATRICES)
def test_the_energy_of_the_spectrum_is_that_of_the_matrix(x: np.ndarray) -> None:
    """Parseval, of the mean and the standard deviation of the magnitudes."""
    mean, std = numbers("frequency", x)[10:12]
    np.testing.assert_allclose(mean**2 + std**2, np.square(x).sum(), rtol=1e-9, atol=1e-12)
