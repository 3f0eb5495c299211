"""Batches that do not fit are halved, and it is said; one sample that does not fit ends the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fovcache

HUNGRY = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            if len(x) > MOST:
                HOW
            return self.layer(x)

    def make():
        torch.manual_seed(0)
        return Net()
"""
RAISED = "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')"
REAL = "torch.empty(1 << 50)"


def hungry(lab: Any, most: int, how: str) -> tuple[str, ...]:
    encoder = lab.write_encoder(HUNGRY.replace("MOST", str(most)).replace("HOW", how), "hungry.py")
    return ("--encoder", encoder, "--layers", "layer", "--batch-size", "8", "--shard-mib", "1", "--store-dtype", "fp32")


@pytest.mark.parametrize("how", [RAISED, REAL, "raise MemoryError"])
def test_batches_are_halved_until_they_fit_and_it_is_said(lab: Any, how: str) -> None:
    source = lab.pictures(21)
    done = lab.run(*lab.build_args(source, lab.folder / "cache", "--json", "-", *hungry(lab, 3, how)))
    assert done.status == 0, done
    assert (done.json["computed"], done.json["batch_size"]) == (21, 2)
    assert done.err.splitlines() == [
        "warning: out of memory on cpu with batches of 8: going on with 4",
        "warning: out of memory on cpu with batches of 4: going on with 2",
    ]
    assert lab.damage(lab.folder / "cache") == lab.leftovers(lab.folder / "cache") == []


def test_the_rows_are_those_of_an_encoder_that_fits(lab: Any) -> None:
    source = lab.pictures(21)
    for name, most in (("small", 3), ("large", 8)):
        lab.build(source, lab.folder / name, *hungry(lab, most, RAISED))
    small, large = (fovcache.open(lab.folder / name).features().tensors()[0] for name in ("small", "large"))
    assert torch.allclose(small, large, atol=1e-6)


@pytest.mark.parametrize("how", [RAISED, REAL])
def test_one_sample_that_does_not_fit_is_the_environments_failure(lab: Any, how: str) -> None:
    source, cache = lab.pictures(5), Path(lab.folder / "cache")
    done = lab.run(*lab.build_args(source, cache, *hungry(lab, 0, how)))
    assert done.status == 3
    assert done.errors == [
        "error: one sample does not fit in the memory of cpu: choose a smaller --size, a lower --compute-dtype or "
        "another --device"
    ]
    assert lab.run("verify", "--cache", cache).status == 0
    assert lab.leftovers(cache) == []
