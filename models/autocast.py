"""The compute dtype of a forward pass: float32, or a half under autocast where the device has it."""

from __future__ import annotations

import contextlib
import warnings

import torch

from fovcache.errors import EncoderError


def autocast(device: torch.device, compute_dtype: str) -> contextlib.AbstractContextManager[None]:
    """A context in which `device` computes in `compute_dtype`: float32, bfloat16 or float16.

    Raises EncoderError naming the device where it has no such autocast, rather than computing in another dtype.
    """
    is_available = torch.amp.is_autocast_available(device.type)
    if compute_dtype == "float32":
        return torch.autocast(device.type, enabled=False) if is_available else contextlib.nullcontext()
    refusal = f"--compute-dtype {compute_dtype}: device {str(device)!r} cannot compute in it"
    if not is_available:
        raise EncoderError(f"{refusal}; use float32")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns, and then computes in float32
            return torch.autocast(device.type, dtype=getattr(torch, compute_dtype))
    except (RuntimeError, UserWarning) as error:
        said = str(error).splitlines()[0]
        raise EncoderError(f"{refusal} ({said}); use float32 or another half") from None
