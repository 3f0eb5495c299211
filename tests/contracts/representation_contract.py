"""What every representation promises of the numbers it gives."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from representation_references import Reference

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import Representation, known_representations, resolve_representation
from fovcache.errors import UsageError
from fovcache.keys.digest import canonical_json

SHAPES = [(1, 1), (1, 2), (5, 1), (1, 320), (2, 3), (3, 11), (11, 3), (10, 10), (17, 192), (192, 17), (68, 192)]
CPU = torch.device("cpu")


def matrices(num_tokens: int, num_channels: int, num: int = 3, seed: int = 0) -> torch.Tensor:
    """float64 `[num, T, C]`, skewed, off centre, of scales from .01 to 100, and each a float32."""
    generator = np.random.default_rng([seed, num_tokens, num_channels])
    x = generator.standard_normal((num, num_tokens, num_channels)) + 0.3
    x = (x + 0.2 * x**2) * np.geomspace(0.01, 100, num)[:, None, None]
    return torch.from_numpy(x.astype(np.float32).astype(np.float64))


def degenerate(num_tokens: int, num_channels: int) -> dict[str, torch.Tensor]:
    """float32 `[T, C]` of every kind that divides by nothing, overflows or underflows somewhere."""
    ramp = torch.arange(1.0, num_tokens + 1)[:, None] * torch.arange(1.0, num_channels + 1)
    one = torch.zeros(num_tokens, num_channels)
    one[-1, -1] = 1
    nearly = torch.full((num_tokens, num_channels), 0.1)
    nearly[0, 0] = torch.nextafter(nearly[0, 0], torch.tensor(1.0))
    signs = torch.where(torch.arange(num_tokens * num_channels).view(num_tokens, num_channels) % 2 == 0, 1.0, -1.0)
    return {
        "zero": torch.zeros(num_tokens, num_channels),
        "negative zero": -torch.zeros(num_tokens, num_channels),
        "constant": torch.full((num_tokens, num_channels), 0.1),
        "negative constant": torch.full((num_tokens, num_channels), -1234.5),
        "nearly constant": nearly,
        "rank one": ramp / 7,
        "one": one,
        "signs": signs,
        "largest": signs * torch.finfo(torch.float32).max,
        "all largest": torch.full((num_tokens, num_channels), torch.finfo(torch.float32).max),
        "huge": ramp * 1e30,
        "tiny": ramp * 1e-30,
        "subnormal": ramp * 1e-45,
        "wide": one * 1e20 + ramp * 1e-20,
    }


class RepresentationContract:
    """Subclass it with `name`, `reference` and `degrees`."""

    name: str
    reference: Reference
    """Of one float64 matrix."""
    parameters: dict[str, Any] = {}  # noqa: RUF012 - never changed
    shapes: Sequence[tuple[int, int]] = SHAPES
    device = CPU
    rtol, atol = 1e-9, 1e-9
    """Of float64."""
    rtol32, atol32 = 2e-5, 2e-5
    """Of float32; `atol32` in units of the matrix's largest magnitude where a number has one."""
    refuses_nan = True
    """Or gives what it gets."""

    def reference32(self, x: np.ndarray) -> np.ndarray:
        """Of a float64 matrix that stands for a float32 one."""
        return self.reference(x)

    def degrees(self, num_features: int) -> Sequence[float]:
        """For each number: 1 if it grows with the matrix, 0 if it does not, nan if neither."""
        raise NotImplementedError

    @pytest.fixture
    def representation(self) -> Representation:
        return resolve_representation(self.name, self.parameters)

    def test_it_is_found_by_its_name(self, representation: Representation) -> None:
        assert self.name in known_representations()
        assert representation.name == self.name
        assert representation.version >= 1

    def test_its_parameters_make_it_again(self, representation: Representation) -> None:
        again = resolve_representation(self.name, representation.parameters)
        assert canonical_json(again.parameters) == canonical_json(representation.parameters)
        assert self.parameters.items() <= representation.parameters.items()

    def test_parameters_that_it_does_not_have_are_refused(self) -> None:
        with pytest.raises(UsageError, match=f"'{self.name}' does not take these parameters: .*colour"):
            resolve_representation(self.name, {"colour": "red"})

    def test_it_equals_the_reference_in_float64(self, representation: Representation) -> None:
        for shape in self.shapes:
            x = matrices(*shape)
            found = representation.compute(x.to(self.device)).cpu()
            assert found.dtype == torch.float64
            expected = np.stack([self.reference(matrix) for matrix in x.numpy()])
            np.testing.assert_allclose(found.numpy(), expected, self.rtol, self.atol, err_msg=str(shape))

    def test_it_is_near_the_reference_in_float32(self, representation: Representation) -> None:
        for shape in self.shapes:
            x = matrices(*shape)
            found = representation.compute(x.float().to(self.device)).cpu()
            assert found.dtype == torch.float32
            for row, matrix in zip(found.numpy(), x.numpy(), strict=True):
                self.assert_near(row, self.reference32(matrix), np.abs(matrix).max(), str(shape))

    def assert_near(self, found: np.ndarray, expected: np.ndarray, unit: float, what: str) -> None:
        units = np.where(np.array(self.degrees(len(expected))) == 1, unit, 1)
        np.testing.assert_allclose(found / units, expected / units, self.rtol32, self.atol32, err_msg=what)

    def test_it_says_how_many_numbers_it_gives(self, representation: Representation) -> None:
        for num_tokens, num_channels in self.shapes:
            found = representation.compute(matrices(num_tokens, num_channels, num=2).float().to(self.device))
            assert found.shape == (2, representation.num_features(num_tokens, num_channels))
            assert found.device.type == self.device.type

    def test_no_samples_give_no_rows(self, representation: Representation) -> None:
        assert representation.compute(torch.empty(0, 4, 12, device=self.device)).shape == (
            0,
            representation.num_features(4, 12),
        )

    def test_a_row_does_not_depend_on_the_batch(self, representation: Representation) -> None:
        x = matrices(17, 40, num=5).float().to(self.device)
        x = torch.cat([x, x[:1] * 1e-35, x[:1] * 1e35])  # which are scaled, and the others not
        together = representation.compute(x)
        alone = torch.cat([representation.compute(one[None]) for one in x])
        turned = representation.compute(x.flip(0)).flip(0)
        for row, *others in zip(together, alone, turned, strict=True):
            for other in others:
                torch.testing.assert_close(other, row, rtol=1e-5, atol=1e-6 * float(row.abs().max()))

    def test_it_is_deterministic_and_leaves_its_input_alone(self, representation: Representation) -> None:
        x = matrices(17, 40).float().to(self.device)
        kept = x.clone()
        first = representation.compute(x)
        assert torch.equal(representation.compute(x), first)
        assert torch.equal(resolve_representation(self.name, self.parameters).compute(x), first)
        assert torch.equal(x, kept)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (4, 13)])
    def test_degenerate_matrices_give_finite_numbers(
        self, representation: Representation, shape: tuple[int, int]
    ) -> None:
        for name, matrix in degenerate(*shape).items():
            for x in (matrix, matrix.double()):
                found = representation.compute(x[None].to(self.device)).cpu()
                assert torch.isfinite(found).all(), (name, found)

    @pytest.mark.parametrize("name", ["zero", "constant", "rank one", "one", "signs"])
    def test_degenerate_matrices_have_the_reference_s_numbers(self, representation: Representation, name: str) -> None:
        matrix = degenerate(4, 13)[name].double()
        found = representation.compute(matrix.float()[None].to(self.device)).cpu().numpy()[0]
        self.assert_near(found, self.reference32(matrix.numpy()), 1, name)

    @pytest.mark.parametrize("power", [-100, -40, -7, 3, 60])
    def test_scaling_by_a_power_of_two_is_exact(self, representation: Representation, power: int) -> None:
        x = matrices(5, 16, num=2).float().to(self.device)
        found, scaled = representation.compute(x), representation.compute(x * 2.0**power)
        for degree, own, other in zip(self.degrees(found.shape[1]), found.T, scaled.T, strict=True):
            if not math.isnan(degree):
                factor = 2.0 ** (power * degree)
                assert torch.equal(own * factor, other), (degree, own * factor, other)

    def test_the_user_s_settings_of_precision_neither_matter_nor_change(self, representation: Representation) -> None:
        x = matrices(17, 40).float().to(self.device)
        expected = representation.compute(x)
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                found = representation.compute(x.requires_grad_())
                assert torch.is_autocast_enabled(self.device.type)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision("highest")
        assert torch.equal(found, expected)
        assert not found.requires_grad

    @pytest.mark.parametrize(
        ("x", "said"),
        [
            (torch.zeros(2, 3, 4, dtype=torch.bfloat16), "float32 or float64, not torch.bfloat16"),
            (torch.zeros(3, 4), r"matrices \[samples, tokens, channels\], got \(3, 4\)"),
            (torch.zeros(2, 0, 4), r"got \(2, 0, 4\)"),
        ],
    )
    def test_what_are_no_matrices_is_refused(self, representation: Representation, x: torch.Tensor, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            representation.compute(x.to(self.device))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_refused(self, representation: Representation, value: float) -> None:
        x = matrices(5, 16).float().to(self.device)
        x[1, 2, 3] = value
        if not self.refuses_nan:
            torch.testing.assert_close(representation.compute(x), x.flatten(1), rtol=0, atol=0, equal_nan=True)
            return
        with pytest.raises(UsageError, match="NaN or infinity"):
            representation.compute(x)

    def test_many_rows_are_the_same_in_batches(self, representation: Representation) -> None:
        x = matrices(6, 16, num=50)
        for rows, dtype in ((x, torch.float64), (x.float(), torch.float32), (x.bfloat16(), torch.float32)):
            expected = representation.compute(rows.to(dtype).to(self.device)).cpu()
            for max_bytes in (1, 100_000, 1 << 28):
                found = compute_rows(representation, rows, device=self.device, max_bytes=max_bytes)
                assert (found.dtype, found.device.type) == (dtype, "cpu")
                for own, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))
