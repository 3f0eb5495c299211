"""float32 that is float32 on CUDA too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Convolutions and RNNs as exact as matrix products are asked to be.

    torch multiplies float32 matrices in float32, but lets cuDNN convolve them in TF32, which keeps 10 bits of 23:
    rows of a GPU would be further from a CPU's than the tolerance for float32. Who asks for less
    (`torch.set_float32_matmul_precision`) gets less, and the numerics id records it.
    """
    if device.type != "cuda" or torch.get_float32_matmul_precision() != "highest":
        yield
    elif hasattr(torch.backends.cudnn, "conv"):
        parts: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
        before = [part.fp32_precision for part in parts]
        try:
            for part in parts:
                part.fp32_precision = "ieee"
            yield
        finally:
            for part, value in zip(parts, before, strict=True):
                part.fp32_precision = value
    else:  # before torch 2.9
        with torch.backends.cudnn.flags(
            enabled=None, benchmark=None, benchmark_limit=None, deterministic=None, allow_tf32=False
        ):
            yield
