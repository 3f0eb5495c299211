"""Arithmetic that is what it says: no autocast, and products of float32 in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_BACKENDS: Any = torch.backends
_EXACT = ("ieee", "none")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 or bfloat16 products, though the user has turned them on; no gradients either.

    How matrix products are made is a setting of the whole process: it is changed only where it matters, and put back.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if hasattr(_BACKENDS, "fp32_precision"):
            for products in (_BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul):
                stack.enter_context(_exact(products))
        else:
            stack.enter_context(_highest())
        yield


@contextlib.contextmanager
def _exact(products: Any) -> Iterator[None]:
    """Where each backend has its setting: since torch 2.9, whose older functions fail once it was used."""
    own = products.fp32_precision
    if own in _EXACT:
        yield
        return
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        is_inherited = own == _BACKENDS.fp32_precision
        products.fp32_precision = "none" if is_inherited else own


@contextlib.contextmanager
def _highest() -> Iterator[None]:
    """Where there is one setting for all."""
    own = torch.get_float32_matmul_precision()
    if own == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(own)
