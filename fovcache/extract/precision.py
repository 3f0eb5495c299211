"""float32 that is float32 on CUDA too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Convolutions and RNNs as exact as matrix products are asked to be.

    torch multiplies float32 matrices in float32, but lets cuDNN convolve them in TF32, which keeps 10 bits of 23:
    rows of a GPU would be further from a CPU's than the tolerance for float32. Who asks for less
    (`torch.set_float32_matmul_precision`) gets less, and the numerics id records it.
    """
    if device.type != "cuda" or torch.get_float32_matmul_precision() != "highest" or not _cudnn_takes_tf32():
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = True


def _cudnn_takes_tf32() -> bool:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # some of it was set by torch's newer settings: the user knows
        return False
