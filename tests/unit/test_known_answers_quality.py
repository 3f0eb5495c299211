"""Feature quality reproduces numbers that others published, with nothing to download."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fovcache.probes.quality.cka import cka
from fovcache.probes.quality.spectrum import RANKME_EPSILON, entropy_rank, spectrum
from fovcache.probes.quality.vectors import vectors


def test_ranks_of_a_seeded_normal_matrix() -> None:
    """1000 × 1024. RankMe's own form is not centred; the eigenvalues' variant is, and has RankMe's epsilon."""
    torch.manual_seed(0)
    found = spectrum(vectors(torch.randn(1000, 1024), "x"))
    assert f"{entropy_rank(np.sqrt(found.raw_K), RANKME_EPSILON):.3f}" == "814.357"
    # Published as 613.4726, of a computation in float32 throughout; exactly it is 613.47251.
    rank = entropy_rank(found.centred_K, RANKME_EPSILON)
    assert rank == pytest.approx(613.4726, abs=2e-4)
    assert f"{rank:.5f}" == "613.47251"
    assert entropy_rank(found.centred_K.astype(np.float32), np.float32(RANKME_EPSILON)) == pytest.approx(613.4726, 1e-6)


def test_the_examples_of_the_cka_demo() -> None:
    """Seed 1337: X 100 × 10 normal, Y = another such + X."""
    chance = np.random.RandomState(1337)
    x = chance.randn(100, 10)
    y = chance.randn(100, 10) + x
    sets = [vectors(torch.from_numpy(each), "x") for each in (x, y)]
    assert f"{cka(sets, [(0, 1)], debiased=False)[0, 1]:.5f}" == "0.55761"
    assert f"{cka(sets, [(0, 1)])[0, 1]:.5f}" == "0.51346"
