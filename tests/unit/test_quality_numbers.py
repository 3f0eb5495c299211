"""Ranks, directions and CKA against references in numpy at float64, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import UsageError
from fovcache.probes.quality import cka as cka_module
from fovcache.probes.quality import directions as directions_module
from fovcache.probes.quality import vectors as vectors_module
from fovcache.probes.quality.cka import cka
from fovcache.probes.quality.directions import directions
from fovcache.probes.quality.measure import measure
from fovcache.probes.quality.spectrum import (
    RANKME_EPSILON,
    entropy_rank,
    gaussian_variance_rank,
    participation_ratio,
    spectrum,
)
from fovcache.probes.quality.vectors import Vectors, vectors

SHAPES = [(200, 12), (12, 200), (40, 40), (3, 5), (5, 1)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of a few vectors, also of small matrices."""
    monkeypatch.setattr(vectors_module, "_BLOCK_NUMBERS", 150)
    monkeypatch.setattr(directions_module, "_BLOCK_ROWS", 17)
    monkeypatch.setattr(cka_module, "_BLOCK_ROWS", 17)


def made(num: int, width: int, seed: int = 0) -> np.ndarray:
    """Vectors with an offset, of unequal spread."""
    chance = np.random.default_rng(seed)
    return chance.standard_normal((num, width)) * chance.uniform(0.1, 3, width) + chance.uniform(-4, 4, width)


def of(x: np.ndarray) -> Vectors:
    return vectors(torch.from_numpy(x), "x")


def reference_rank(values: np.ndarray, epsilon: float = 0.0) -> float:
    p = values / values.sum() + epsilon
    return math.exp(-sum(each * math.log(each) for each in p if each > 0))


@pytest.mark.parametrize(("num", "width"), SHAPES)
def test_ranks_are_those_of_an_svd(num: int, width: int) -> None:
    x = made(num, width)
    found = spectrum(of(x))
    raw = np.linalg.svd(x, compute_uv=False)
    centred = np.linalg.svd(x - x.mean(0), compute_uv=False)
    numbers = measure(of(x))
    assert np.sqrt(found.raw_K) == pytest.approx(raw, rel=1e-9, abs=1e-7 * raw[0])
    assert numbers.rankme == pytest.approx(reference_rank(raw, RANKME_EPSILON), rel=1e-6)
    assert numbers.effective_rank == pytest.approx(reference_rank(centred), rel=1e-6)
    assert numbers.variance_rank == pytest.approx(reference_rank(centred**2), rel=1e-9)
    assert numbers.participation_ratio == pytest.approx((centred**2).sum() ** 2 / (centred**4).sum(), rel=1e-9)
    assert numbers.largest_share == pytest.approx(centred[0] ** 2 / (centred**2).sum(), rel=1e-9)
    assert numbers.mean_variance == pytest.approx(x.var(0, ddof=1).mean(), rel=1e-9)


@pytest.mark.parametrize(("num", "width"), SHAPES[:4])
def test_directions_are_those_of_all_pairs(num: int, width: int) -> None:
    x = made(num, width)

    def cosines(y: np.ndarray) -> np.ndarray:
        unit = y / np.linalg.norm(y, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(num, 1)]

    found, cosine = directions(of(x)), cosines(x - x.mean(0))
    assert found.mean_cosine == pytest.approx(cosines(x).mean(), rel=1e-9)
    assert found.isotropy == pytest.approx(1 / (width * cosine.var()), rel=1e-4)
    assert found.uniformity == pytest.approx(math.log(np.exp(-2 * (2 - 2 * cosine)).mean()), abs=1e-5)


def reference_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate of Song et al. (2012), equation 5, as it stands there."""
    num = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    total = np.trace(k @ l) + k.sum() * l.sum() / ((num - 1) * (num - 2)) - 2 / (num - 2) * (k @ l).sum()
    return float(total / (num * (num - 3)))


@pytest.mark.parametrize("widths", [(12, 5, 30), (200, 90, 400)])
def test_debiased_cka_is_that_of_the_unbiased_hsic(widths: tuple[int, ...]) -> None:
    """By dimensions and by vectors."""
    shared = made(40, 3, seed=9)
    xs = [np.hstack([made(40, width, seed) * 0.3, shared]) for seed, width in enumerate(widths)]
    pairs = [(one, other) for one in range(3) for other in range(3)]
    found = cka([of(x) for x in xs], pairs)
    assert found.keys() == {(one, other) for one, other in pairs if one <= other}
    for (one, other), value in found.items():
        norm = math.sqrt(reference_hsic(xs[one], xs[one]) * reference_hsic(xs[other], xs[other]))
        assert value == pytest.approx(reference_hsic(xs[one], xs[other]) / norm, abs=1e-9)


def test_unrelated_sets_have_debiased_cka_0_and_plain_cka_far_above_it() -> None:
    values, plain = [], []
    for seed in range(20):
        sets = [of(np.random.default_rng([seed, place]).standard_normal((30, 60))) for place in (0, 1)]
        values.append(cka(sets, [(0, 1)])[0, 1])
        plain.append(cka(sets, [(0, 1)], debiased=False)[0, 1])
    assert abs(np.mean([value or 0 for value in values])) < 0.02
    assert min(value or 0 for value in plain) > 0.6


@given(seed=st.integers(0, 99), size=st.floats(1e-3, 1e3), offset=st.floats(-10, 10), width=st.sampled_from([4, 40]))
@examples(15)
def test_cka_does_not_see_rotation_size_and_offset(seed: int, size: float, offset: float, width: int) -> None:
    x, y = made(25, width, seed), made(25, 7, seed + 1)
    y[:, :2] += x[:, :2]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    before = cka([of(x), of(y)], [(0, 1)])[0, 1]
    after = cka([of(size * (x @ rotation) + offset), of(y)], [(0, 1)])[0, 1]
    assert after == pytest.approx(before, abs=1e-8)
    assert cka([of(x), of(size * (x @ rotation) + offset)], [(0, 1)])[0, 1] == pytest.approx(1, abs=1e-8)


@given(seed=st.integers(0, 99), size=st.floats(1e-3, 1e3), offset=st.floats(-10, 10), num=st.sampled_from([10, 60]))
@examples(15)
def test_what_ranks_and_directions_do_not_see(seed: int, size: float, offset: float, num: int) -> None:
    """Rotation and size no number but variance and constant dimensions; an offset no centred one; order none."""
    x = made(num, 20, seed)
    chance = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(chance.standard_normal((20, 20)))
    before, turned = measure(of(x)), measure(of(size * (x @ rotation)[chance.permutation(num)]))
    moved = measure(of(x + offset))
    for name in ("rankme", "effective_rank", "variance_rank", "participation_ratio", "mean_cosine"):
        assert getattr(turned, name) == pytest.approx(getattr(before, name), rel=1e-6), name
    for name in ("effective_rank", "variance_rank", "participation_ratio", "largest_share", "mean_variance"):
        assert getattr(moved, name) == pytest.approx(getattr(before, name), rel=1e-6), name
    for name in ("isotropy", "uniformity"):
        assert getattr(turned, name) == pytest.approx(getattr(before, name), rel=1e-3), name
        assert getattr(moved, name) == pytest.approx(getattr(before, name), rel=1e-3), name


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_ranks_lie_between_1_and_how_many_there_are(values: list[float]) -> None:
    array = np.array(values)
    bound = max(1.0, (array > 0).sum()) if array.sum() > 0 else 0.0
    for rank in (entropy_rank(array), participation_ratio(array)):
        assert min(1.0, bound) - 1e-9 <= rank <= bound + 1e-6
    assert entropy_rank(np.ones(7)) == pytest.approx(7)
    assert entropy_rank(np.zeros(7)) == participation_ratio(np.zeros(7)) == 0


@pytest.mark.parametrize(("num", "width"), [(300, 30), (20, 384), (20, 10), (90, 64), (100, 100)])
def test_the_gaussians_rank_is_that_of_drawn_ones(num: int, width: int) -> None:
    chance = np.random.default_rng(0)
    drawn = [entropy_rank(spectrum(of(chance.standard_normal((num, width)))).centred_K) for _ in range(30)]
    assert gaussian_variance_rank(num, width) == pytest.approx(np.mean(drawn), rel=0.03)


def test_noise_prefers_no_direction_whatever_n_and_a_line_is_one() -> None:
    for num, width in ((30, 200), (400, 20)):
        noise = measure(of(np.random.default_rng(0).standard_normal((num, width)) + 5))
        assert noise.isotropy == pytest.approx(1, abs=0.1)
        assert noise.gaussian_share == pytest.approx(1, abs=0.03)
        assert noise.mean_cosine > 0.9  # the offset, which centring takes away
        line = measure(of(np.outer(np.linspace(-1, 1, num), np.arange(1, width + 1.0)) + 5))
        assert line.isotropy == pytest.approx(1 / width, rel=0.1)
        assert line.variance_rank == line.participation_ratio == pytest.approx(1)
        assert line.largest_share == pytest.approx(1)


def test_constant_dimensions_are_counted_by_the_rounding_of_their_storage() -> None:
    x = made(50, 4)
    x[:, 1] = 3.7
    x[:, 2] = 100 + 1e-3 * np.arange(50)
    x[:, 3] = 0
    assert measure(of(x)).num_constant == 2
    assert measure(of(x), rounding=2.0**-8).num_constant == 3
    everywhere = measure(of(np.full((50, 4), 3.7)))
    assert everywhere.num_constant == 4
    assert everywhere.variance_rank == everywhere.effective_rank == everywhere.mean_variance == 0
    assert everywhere.isotropy is everywhere.uniformity is None
    assert everywhere.rankme == pytest.approx(1, abs=1e-5)
    assert measure(of(np.zeros((50, 4)))).mean_cosine is None


def test_a_set_that_does_not_vary_and_too_few_vectors_have_no_cka() -> None:
    x = made(10, 4)
    found = cka([of(x), of(np.ones((10, 4)))], [(0, 0), (0, 1), (1, 1)])
    assert found == {(0, 0): 1.0, (0, 1): None, (1, 1): None}
    assert cka([of(x[:3]), of(x[:3] + 1)], [(0, 1)]) == {(0, 1): None}
    assert cka([of(x[:3]), of(x[:3] + 1)], [(0, 1)], debiased=False)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    x = made(50, 4)
    x[[7, 9], 2] = bad
    with pytest.raises(UsageError, match=r"layer a: 2 of 50 vectors hold NaN or infinity; leave that layer out"):
        vectors(torch.from_numpy(x), "layer a")


def test_two_vectors_are_refused() -> None:
    with pytest.raises(UsageError, match=r"layer a: 2 vectors say nothing .* at least 3"):
        vectors(torch.zeros(2, 4), "layer a")
