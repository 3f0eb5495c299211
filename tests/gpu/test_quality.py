"""Feature quality on a GPU: the numbers are those of the CPU."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from fovcache.probes.quality.cka import cka
from fovcache.probes.quality.measure import measure
from fovcache.probes.quality.vectors import vectors

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize(("num", "width"), [(3000, 96), (200, 700)])
def test_numbers_are_those_of_the_cpu(num: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, width, generator=generator) * torch.rand(width, generator=generator) + 2
    y = torch.randn(num, 50, generator=generator) + x[:, :50]
    found = {}
    for device in ("cpu", "cuda"):
        sets = [vectors(each, "x", device) for each in (x, y)]
        found[device] = {**asdict(measure(sets[0])), "cka": cka(sets, [(0, 1)])[0, 1]}
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-5)


def test_numbers_do_not_depend_on_the_precision_that_the_user_chose() -> None:
    from fovcache.derived.arithmetic import full_precision

    x = vectors(torch.randn(500, 300, generator=torch.Generator().manual_seed(0)), "x", "cuda")
    with full_precision(x.device):
        before = measure(x)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_precision(x.device):
            assert measure(x) == before
    finally:
        torch.set_float32_matmul_precision(precision)
