"""Numbers of ΔW: what they are, and that they do not depend on how ΔW is factored."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fovcache.models.lora_delta import NUM_NUMBERS, NUM_SINGULAR_VALUES, SKETCH, delta_numbers, sketches

OUTPUTS, INPUTS = 24, 18
MAPS = sketches("module", OUTPUTS, INPUTS)
CORNERS = [-0.6790386529972277, -0.5350150503226312, 0.1579703869814422, 0.11838953996546249]
"""Of the rule: where they change, so must its number."""


def factors(rank: int, seed: int, num: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(num, OUTPUTS, rank, dtype=torch.float64, generator=generator)
    return up, torch.randn(num, rank, INPUTS, dtype=torch.float64, generator=generator)


def numbers(up: torch.Tensor, down: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return delta_numbers(up, down, torch.full((len(up),), scale, dtype=torch.float64), MAPS)


def close(left: torch.Tensor, right: torch.Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(left, right, rtol=rtol, atol=rtol * float(right.abs().max()))


@pytest.mark.parametrize("rank", [1, 2, 5, 16, 18, 30])
def test_they_are_those_of_the_product(rank: int) -> None:
    up, down = factors(rank, rank)
    delta = 0.25 * up @ down
    found = numbers(up, down, 0.25)
    assert found.shape == (2, NUM_NUMBERS)
    assert found.dtype == torch.float64
    values = torch.linalg.svdvals(delta)
    padded = torch.nn.functional.pad(values, (0, NUM_SINGULAR_VALUES))[:, :NUM_SINGULAR_VALUES]
    close(found[:, :NUM_SINGULAR_VALUES], padded)
    frobenius, nuclear, effective, stable = found[:, NUM_SINGULAR_VALUES : NUM_SINGULAR_VALUES + 4].T
    close(frobenius, torch.linalg.matrix_norm(delta))
    close(nuclear, torch.linalg.matrix_norm(delta, "nuc"))
    shares = values / nuclear[:, None]
    close(effective, torch.exp(-torch.special.xlogy(shares, shares).sum(1)), rtol=1e-7)
    close(stable, frobenius**2 / values[:, 0] ** 2)
    left, right = MAPS
    close(found[:, NUM_SINGULAR_VALUES + 4 :], (left.T @ delta @ right).flatten(1))


@settings(max_examples=25)
@given(rank=st.integers(1, 8), seed=st.integers(0, 10_000), power=st.floats(-3, 3))
def test_any_invertible_mixing_leaves_them_as_they_are(rank: int, seed: int, power: float) -> None:
    up, down = factors(rank, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mixing, _ = torch.linalg.qr(torch.randn(rank, rank, dtype=torch.float64, generator=generator))
    stretch = torch.exp(torch.randn(rank, dtype=torch.float64, generator=generator))
    gauge = 10**power * mixing * stretch  # a rotation, a scale for each direction and one for all
    close(numbers(up @ gauge, torch.linalg.solve(gauge, down)), numbers(up, down))


@settings(max_examples=25)
@given(rank=st.integers(1, 6), seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_scales_and_joint_sign_flips_leave_them_as_they_are(rank: int, seed: int, scale: float) -> None:
    up, down = factors(rank, seed)
    signs = torch.where(torch.arange(rank) % 2 == 0, -1.0, 1.0).to(torch.float64)
    close(numbers(up * signs / scale, signs[:, None] * down * scale), numbers(up, down))


@settings(max_examples=25)
@given(rank=st.integers(1, 6), more=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_the_rank_of_the_factors_does_not_matter(rank: int, more: int, seed: int) -> None:
    up, down = factors(rank, seed)
    wide_up, wide_down = factors(rank + more, seed + 1)
    wide_up[..., :rank], wide_down[:, :rank] = up, down
    wide_up[..., rank:] = 0
    close(numbers(wide_up, wide_down), numbers(up, down))


def test_the_sketch_is_linear_and_keeps_the_norm_on_average() -> None:
    (up, down), (other_up, other_down) = factors(3, 0), factors(3, 1)
    parts = [numbers(up, down), numbers(other_up, other_down, 2.0)]
    both = numbers(torch.cat([up, 2 * other_up], 2), torch.cat([down, other_down], 1))
    close(both[:, -(SKETCH**2) :], sum(part[:, -(SKETCH**2) :] for part in parts))
    squares = [numbers_of(f"module {number}", up, down) for number in range(300)]
    mean = torch.stack(squares).mean(0)
    torch.testing.assert_close(mean, torch.linalg.matrix_norm(up @ down).square(), rtol=0.15, atol=0)


def numbers_of(module: str, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    found = delta_numbers(up, down, torch.ones(len(up), dtype=torch.float64), sketches(module, OUTPUTS, INPUTS))
    return found[:, -(SKETCH**2) :].square().sum(1)


@settings(max_examples=10)
@given(rank=st.integers(1, 20))
def test_no_change_is_all_zeros(rank: int) -> None:
    up, down = factors(rank, 0)
    found = numbers(torch.zeros_like(up), down)
    assert torch.equal(found, torch.zeros_like(found))


def test_the_sketch_is_a_modules_own_and_the_same_every_time() -> None:
    assert all(torch.equal(*pair) for pair in zip(MAPS, sketches("module", OUTPUTS, INPUTS), strict=True))
    assert not torch.equal(MAPS[0], sketches("other", OUTPUTS, INPUTS)[0])
    corners = [float(each[at, at]) for each in MAPS for at in (0, -1)]
    assert corners == pytest.approx(CORNERS, rel=1e-12)
