"""The compute dtype of a forward pass: float32, or a half under autocast where the device has it."""

from __future__ import annotations

import contextlib
import functools
import warnings

import torch

from fovcache.errors import EncoderError


def autocast(device: torch.device, compute_dtype: str) -> contextlib.AbstractContextManager[None]:
    """A context in which `device` computes in `compute_dtype`: float32, bfloat16 or float16.

    Raises EncoderError naming the device where it has no such autocast, rather than computing in another dtype.
    """
    if compute_dtype == "float32":
        is_available = torch.amp.is_autocast_available(device.type)
        return torch.autocast(device.type, enabled=False) if is_available else contextlib.nullcontext()
    if refusal := _refusal(device.type, compute_dtype):
        raise EncoderError(f"--compute-dtype {compute_dtype}: device {str(device)!r} cannot compute in it{refusal}")
    return torch.autocast(device.type, dtype=getattr(torch, compute_dtype))


@functools.cache  # warnings are caught for the whole process, so not for each batch
def _refusal(device_type: str, compute_dtype: str) -> str:
    if not torch.amp.is_autocast_available(device_type):
        return "; use float32"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns, and then computes in float32
            torch.autocast(device_type, dtype=getattr(torch, compute_dtype))
    except (RuntimeError, UserWarning) as error:
        return f" ({str(error).splitlines()[0]}); use float32"
    return ""
