"""Products of matrices in a head's precision, by the fastest kernel there is for them.

On a CPU with AVX-512 torch leaves float32 products to MKL, which takes half of what an AMD core can do; oneDNN, which
torch brings too, takes all of it. float32 stays float32: sums are rounded in another order, no more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

_WORTH_IT = 2**21
"""Multiplications from which oneDNN is faster in spite of its longer way (10 µs)."""


def product(a_MK: torch.Tensor, b_KN: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 [M, N]: of factors rounded to `dtype`, as autocast has it."""
    return products(a_MK[None], b_KN[None], dtype)[0]


def products(a_HMK: torch.Tensor, b_HKN: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 [H, M, N]: H of them."""
    a_HMK, b_HKN = a_HMK.to(dtype), b_HKN.to(dtype)
    if dtype == torch.float32 and a_HMK.device.type == "cpu" and a_HMK[0].numel() * b_HKN.shape[2] >= _WORTH_IT:
        linear = _onednn()
        if linear is not None:
            found = [linear(a, b.t(), None, "none", [], "") for a, b in zip(a_HMK, b_HKN, strict=True)]
            return found[0][None] if len(found) == 1 else torch.stack(found)
    return torch.bmm(a_HMK, b_HKN).float()


@cache
def _onednn() -> Any:
    """oneDNN's linear layer of plain float32 tensors; None where there is none, or no gain in it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
