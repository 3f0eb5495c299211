"""Attention of a query to the tokens of a frame: shallow, over the encoder's final tokens.

Axes: B samples, T frames, N tokens of a frame, D the encoder's width, H heads, K numbers of a head (D = H · K).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from fovcache.errors import UsageError

from .names import FRAMES


class Glimpse(NamedTuple):
    """What a query finds in each frame."""

    found_BTD: torch.Tensor
    """The attended values, or the query as the encoder's layers leave it."""
    entropy_BT: torch.Tensor
    """Of the attention, divided by ln N: 1 where it is uniform. Mean over heads, and over layers. Detached."""
    weights_BTN: torch.Tensor
    """Attention in the last layer, mean over heads. Detached."""


class ShallowAttention(nn.Module):
    """One cross-attention over the encoder's final tokens, with trained projections.

    None of them has a bias. On queries it would swamp what they differ in; on keys the softmax cancels it; on values
    it is the visual token's own.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        """Raises UsageError where the heads do not divide the width."""
        super().__init__()
        if width % num_heads:
            raise UsageError(f"attention_heads = {num_heads}, expected a divisor of the encoder's width {width}")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def frames(self, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """`[tokens [B, T, N, D]]`, in the parameters' dtype: once a batch, however often they are looked at."""
        return [batch[FRAMES].to(self.query.weight.dtype)]

    def forward(self, frames: list[torch.Tensor], queries_BTD: torch.Tensor) -> Glimpse:
        """Queries attend to the tokens, each to its own frame's."""
        queries = self.query(queries_BTD)
        found, weights = attend(queries, frames[0], self.key.weight, self.value.weight, self.num_heads)
        return Glimpse(found, entropy(weights), weights.detach().mean(dim=2))


def attend(
    queries_BTD: torch.Tensor,
    tokens_BTND: torch.Tensor,
    key_DD: torch.Tensor,
    value_DD: torch.Tensor,
    num_heads: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`(values [B, T, D], weights [B, T, H, N])`, the key and value matrices as a Linear has them, biases left out.

    One query meets N tokens, so the matrices are applied to it and to what it found, not to every token: q · (K x) is
    (Kᵀ q) · x, and Σ a (V x) is V (Σ a x). That is the same, N times cheaper, and keeps no keys for the backward pass.
    """
    num_samples, num_frames, num_tokens, width = tokens_BTND.shape
    per_head = width // num_heads
    queries = queries_BTD.reshape(-1, num_heads, per_head).transpose(0, 1)
    keys_HKD = key_DD.view(num_heads, per_head, width)
    asked = torch.bmm(queries, keys_HKD).transpose(0, 1)  # [B · T, H, D]
    tokens = tokens_BTND.reshape(-1, num_tokens, width)
    logits = torch.bmm(asked, tokens.transpose(1, 2)) / math.sqrt(per_head)
    weights = logits.float().softmax(dim=-1)
    found = torch.bmm(weights.to(tokens.dtype), tokens).transpose(0, 1)  # [H, B · T, D]
    values = torch.bmm(found, value_DD.view(num_heads, per_head, width).transpose(1, 2)).transpose(0, 1)
    values_BTD = values.reshape(num_samples, num_frames, width)
    return values_BTD, weights.view(num_samples, num_frames, num_heads, num_tokens)


def entropy(weights_BTHN: torch.Tensor) -> torch.Tensor:
    """float32 [B, T]: entropy of attention divided by ln N, mean over heads; detached."""
    num_tokens = weights_BTHN.shape[-1]
    in_nats = torch.special.entr(weights_BTHN.detach().float()).sum(dim=-1).mean(dim=-1)
    return in_nats / math.log(num_tokens) if num_tokens > 1 else torch.ones_like(in_nats)
