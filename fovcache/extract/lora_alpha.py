"""The alphas of a LoRA whose file has no tensors for them: what diffusers writes into the metadata, else the rank."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SampleError
from .lora_keys import component

_KEY = "lora_adapter_metadata"
_DENOISERS = ("unet", "transformer")


def default_alphas(metadata: Mapping[str, str], modules: Iterable[str], rank: int) -> list[float]:
    """By module, such that ΔW is (alpha / rank) · up · down. Without a word about it alpha is the rank.

    diffusers (from 0.35) keeps the adapter's configuration as JSON in `lora_adapter_metadata`: `unet.lora_alpha`,
    `unet.alpha_pattern` by module, `unet.use_rslora` for alpha / √rank. Raises SampleError where it cannot be read.
    """
    if _KEY not in metadata:
        return [float(rank)] * len(list(modules))
    try:
        said = json.loads(metadata[_KEY])
        if not isinstance(said, dict):
            raise TypeError(f"it is a {type(said).__name__}")
        return [_alpha(said, module, rank) for module in modules]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = f"the metadata's {_KEY} cannot be read ({error}); expected JSON with numbers COMPONENT.lora_alpha"
        raise SampleError("decode", reason, permanent=True) from error


def _alpha(said: Mapping[str, Any], module: str, rank: int) -> float:
    text_encoder = component(module)
    candidates = _DENOISERS if text_encoder is None else (text_encoder,)
    own = next((name for name in candidates if f"{name}.lora_alpha" in said), None)
    if own is None:
        return float(rank)
    inner = module.removeprefix(f"{own}.")
    patterns = said.get(f"{own}.alpha_pattern") or {}
    named = [value for pattern, value in patterns.items() if inner == pattern or inner.endswith(f".{pattern}")]
    alpha = float(named[0] if named else said[f"{own}.lora_alpha"])
    return alpha * math.sqrt(rank) if said.get(f"{own}.use_rslora") else alpha
