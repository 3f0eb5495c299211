"""Pooling a layer's output to the row that is stored."""

from __future__ import annotations

import torch

from ..errors import LayerError
from .extractor import TokenLayout

STORE_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32}


def default_pooling(tokens: TokenLayout) -> str:
    """`cls` where there is a class token, else `mean`."""
    return "cls" if tokens.has_class_token else "mean"


def pool(output: torch.Tensor, pooling: str, tokens: TokenLayout, layer: str) -> torch.Tensor:
    """Pool `output` in float32: `[rows, channels]` for `cls` and `mean`, as it is for `tokens`.

    `mean` averages `[rows, tokens, channels]` over the tokens after the class and register tokens, and
    `[rows, channels, …]` with two or more further dimensions over space; `[rows, channels]` stays.
    Raises LayerError for `cls` on a layer without a class token.
    """
    if pooling == "tokens":
        return output
    if pooling == "cls":
        if not tokens.has_class_token or output.ndim != 3:
            raise LayerError(
                f"pooling 'cls' needs a class token, and layer {layer!r} of shape {tuple(output.shape)} has none; "
                "use --pool mean (or set has_class_token = True on your module if token 0 is one)"
            )
        return output[:, 0].float()
    if output.ndim == 2:
        return output.float()
    if output.ndim == 3:
        patches = output[:, tokens.num_prefix_tokens :]
        if patches.shape[1] == 0:
            raise LayerError(f"layer {layer!r} of shape {tuple(output.shape)} has no patch tokens to average")
        return patches.float().mean(dim=1)
    return output.float().flatten(2).mean(dim=2)
