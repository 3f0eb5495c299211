"""The ten representations on the CPU: the contract for each, and what is particular to one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import representation_references as references
import torch
from representation_contract import SHAPES, RepresentationContract, matrices

from fovcache.derived.representation import resolve_representation
from fovcache.derived.spectral import EXACT_UP_TO, METHODS
from fovcache.errors import UsageError

EPS32 = float(np.finfo(np.float32).eps)
SPECTRAL_DEGREES = [1] * 10 + [0] * 21 + [1]
NORM_DEGREES = [1] * 5 + [0] * 2
DISTRIBUTION_DEGREES = [1] * 9 + [math.nan, 0, 0]
FREQUENCY_DEGREES = [1] * 13 + [0]


class TestSimpleStats(RepresentationContract):
    name = "simple_stats"
    reference = staticmethod(references.simple_stats)

    def degrees(self, num_features: int) -> Sequence[float]:
        return [1] * 5


class TestStats(RepresentationContract):
    name = "stats"
    reference = staticmethod(references.stats)
    rtol32 = 1e-4

    def degrees(self, num_features: int) -> Sequence[float]:
        return [1] * 5 + [0] * 2


class TestRankBased(RepresentationContract):
    name = "rank_based"
    reference = staticmethod(references.rank_based)

    def degrees(self, num_features: int) -> Sequence[float]:
        return [1] * 11


class TestDistribution(RepresentationContract):
    name = "distribution"
    reference = staticmethod(references.distribution)
    rtol32 = 1e-4

    def degrees(self, num_features: int) -> Sequence[float]:
        return DISTRIBUTION_DEGREES


class TestFrequency(RepresentationContract):
    name = "frequency"
    reference = staticmethod(references.frequency)

    def degrees(self, num_features: int) -> Sequence[float]:
        return FREQUENCY_DEGREES


class TestInfoTheoretic(RepresentationContract):
    name = "info_theoretic"
    reference = staticmethod(references.info_theoretic)
    atol32 = 1e-3
    """A value on an edge may change its bin."""

    def degrees(self, num_features: int) -> Sequence[float]:
        return [0, 0]


class TestMatrixNorms(RepresentationContract):
    name = "matrix_norms"
    reference = staticmethod(references.matrix_norms)

    def degrees(self, num_features: int) -> Sequence[float]:
        return NORM_DEGREES


class TestFlatVec(RepresentationContract):
    name = "flat_vec"
    reference = staticmethod(references.flat_vec)
    rtol = atol = rtol32 = atol32 = 0
    refuses_nan = False

    def degrees(self, num_features: int) -> Sequence[float]:
        return [1] * num_features


class SpectralContract(RepresentationContract):
    """Whatever the method."""

    name = "spectral"
    reference = staticmethod(references.spectral)

    def reference32(self, x: np.ndarray) -> np.ndarray:
        return references.spectral(x, EPS32)

    def degrees(self, num_features: int) -> Sequence[float]:
        return SPECTRAL_DEGREES


class TestSpectral(SpectralContract):
    def test_auto_is_decided_by_the_shorter_side(self) -> None:
        auto, exact, lowrank = (resolve_representation("spectral", {"method": method}) for method in METHODS)
        for shape, same, other in [
            ((EXACT_UP_TO, EXACT_UP_TO + 9), exact, lowrank),
            ((EXACT_UP_TO + 9, EXACT_UP_TO + 1), lowrank, exact),
        ]:
            x = matrices(*shape).float()
            assert torch.equal(auto.compute(x), same.compute(x))
            assert not torch.equal(auto.compute(x), other.compute(x))


class TestExactSpectral(SpectralContract):
    parameters = {"method": "exact"}  # noqa: RUF012


class TestLowrankSpectral(SpectralContract):
    """Of matrices so narrow that the random space is all there is: exact."""

    parameters = {"method": "lowrank", "seed": 3}  # noqa: RUF012
    shapes = (*(shape for shape in SHAPES if min(shape) <= 17), (30, 40))

    @pytest.mark.parametrize("name", ["oversampling", "iterations", "seed"])
    def test_what_decides_the_numbers_is_a_parameter(self, name: str) -> None:
        usual = resolve_representation("spectral", {"method": "lowrank"})
        other = resolve_representation("spectral", {"method": "lowrank", name: usual.parameters[name] + 1})
        x = matrices(150, 200).float()
        assert other.parameters != usual.parameters
        assert not torch.equal(other.compute(x), usual.compute(x))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"method": "svd"}, "method 'svd' is not one of auto, exact, lowrank"),
        ({"seed": -1}, "seed -1 is not a whole number of at least 0"),
        ({"oversampling": 2.5}, "oversampling 2.5 is not a whole number"),
        ({"iterations": True}, "iterations True is not a whole number"),
        ({"method": "exact", "seed": 1}, "seed = 1 is of no use to method 'exact': leave it out"),
    ],
)
def test_wrong_parameters_of_spectral_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_representation("spectral", parameters)


class TestEnsemble(RepresentationContract):
    name = "ensemble"
    reference = staticmethod(references.ensemble)
    rtol32, atol32 = 1e-4, 1e-3

    def reference32(self, x: np.ndarray) -> np.ndarray:
        return references.ensemble(x, EPS32)

    def degrees(self, num_features: int) -> Sequence[float]:
        return [*SPECTRAL_DEGREES, *NORM_DEGREES, *DISTRIBUTION_DEGREES, *FREQUENCY_DEGREES, 0, 0]

    def test_it_is_its_parts_bit_by_bit(self) -> None:
        x = matrices(17, 192).float()
        parts = ["matrix_norms", "distribution", "frequency", "info_theoretic"]
        each = [resolve_representation("spectral", {"method": "exact"}), *map(resolve_representation, parts)]
        expected = torch.cat([part.compute(x) for part in each], dim=1)
        assert torch.equal(resolve_representation("ensemble").compute(x), expected)
