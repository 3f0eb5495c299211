"""Representations on a GPU: the CPU's numbers, whatever autocast and TF32 are set to, within the memory allowed."""

import numpy as np
import pytest
import torch

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import Representation, known_representations, resolve_representation

SHAPES = [(1, 1), (1, 320), (5, 1), (17, 192), (192, 17), (68, 192)]


@pytest.fixture(params=known_representations())
def representation(request: pytest.FixtureRequest) -> Representation:
    return resolve_representation(request.param)


def matrices(num_tokens: int, num_channels: int, num: int = 4, seed: int = 0) -> torch.Tensor:
    """float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, num_tokens, num_channels, generator=generator) * 3 + 0.5


def check(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-3) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_numbers_are_the_cpu_s(representation: Representation, shape: tuple[int, int]) -> None:
    x = matrices(*shape)
    check(representation.compute(x.cuda()), representation.compute(x))
    check(representation.compute(x.double().cuda()), representation.compute(x.double()), 1e-8)


def test_autocast_and_tf32_do_not_matter(representation: Representation) -> None:
    x = matrices(68, 192).cuda()
    expected = representation.compute(x)
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cuda", dtype=torch.float16):
            found = representation.compute(x)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.dtype == torch.float32
    check(found, expected, 1e-6)


def test_degenerate_matrices_give_finite_numbers(representation: Representation) -> None:
    one = torch.zeros(12, 20)
    one[3, 4] = 1
    ramp = torch.arange(1.0, 13)[:, None] * torch.arange(1.0, 21)
    for x in (one, one * 0, one * 0 + 0.1, ramp, ramp * 1e30, ramp * 1e-36, one * 3e38):
        for rows in (representation.compute(x[None].cuda()), representation.compute(x[None].double().cuda())):
            assert torch.isfinite(rows).all(), x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_in_batches_are_the_cpu_s(representation: Representation, dtype: torch.dtype) -> None:
    x = matrices(17, 48, num=300).to(dtype)
    expected = compute_rows(representation, x, device="cpu")
    for max_bytes in (1, 1 << 20, 1 << 28):
        check(compute_rows(representation, x, device="cuda", max_bytes=max_bytes), expected)
    check(compute_rows(representation, x.cuda(), device="cuda"), expected)


def test_working_memory_stays_below_what_is_allowed(representation: Representation) -> None:
    max_bytes = 64 << 20
    x = matrices(68, 192, num=2000)
    compute_rows(representation, x[:10], device="cuda", max_bytes=max_bytes)  # libraries' workspaces
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compute_rows(representation, x, device="cuda", max_bytes=max_bytes)
    assert torch.cuda.max_memory_allocated() - before < max_bytes


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(257, 384), (768, 1024)])
def test_lowrank_is_within_one_percent(shape: tuple[int, int], autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    expected = torch.arange(1, min(shape) + 1) ** -0.25
    left, right = (torch.linalg.qr(torch.randn(size, len(expected), generator=generator)).Q for size in shape)
    x = ((left * expected) @ right.mT)[None].cuda()
    with torch.autocast("cuda", dtype=torch.float16, enabled=autocast):
        found = resolve_representation("spectral", {"method": "lowrank"}).compute(x)[0, :10].cpu()
    np.testing.assert_allclose(found, expected[:10], rtol=0.01)
