"""Queries of the fine pass: shifted by a frame, drawn at random or shuffled, and how much they differ.

Axes: B samples, T frames, Q queries that were predicted, for the frames after the first (T − 1), D their width.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fovcache.errors import UsageError

from .settings import PREDICTED, RANDOM


def shifted(first_D: torch.Tensor, predicted_BTD: torch.Tensor) -> torch.Tensor:
    """`[first, q₁ … q_{T−1}]`: each frame is looked at with what the frames before it asked for."""
    first = first_D.expand(len(predicted_BTD), 1, -1)
    return torch.cat([first.to(predicted_BTD.dtype), predicted_BTD[:, :-1]], dim=1)


def chosen(predicted_BTD: torch.Tensor, kind: str) -> torch.Tensor:
    """The predicted queries, or what a control has instead of them. Draws from torch's default generators.

    `random`: N(0, 1) at the scale of the sample's predicted ones, so that attention is as sharp. `shuffled`: every one
    is another's, of any frame and sample of the batch; those after the last frame, with which nothing is seen, stay.
    Raises UsageError where there are not two to shuffle.
    """
    if kind == PREDICTED:
        return predicted_BTD
    if kind == RANDOM:
        scale = predicted_BTD.detach().square().mean(dim=(1, 2), keepdim=True).sqrt()
        return torch.randn_like(predicted_BTD) * scale
    used = predicted_BTD[:, :-1]
    flat = used.reshape(-1, used.shape[-1])
    if len(flat) < 2:
        raise UsageError(
            f'queries = "shuffled" with {len(predicted_BTD)} samples of {predicted_BTD.shape[1]} frames at once: '
            "expected at least two queries to exchange; use larger (micro-)batches"
        )
    moved = flat[derangement(len(flat), flat.device)].view_as(used)
    return torch.cat([moved, predicted_BTD[:, -1:]], dim=1)


def derangement(num_items: int, device: torch.device) -> torch.Tensor:
    """int64 [num_items]: a permutation that leaves nothing where it was, a random cycle through all of them."""
    order = torch.randperm(num_items, device=device)
    permutation = torch.empty_like(order)
    permutation[order] = order.roll(-1)
    return permutation


def diversity(queries_BQD: torch.Tensor) -> torch.Tensor:
    """float32 [B]: mean cosine distance between two of a sample's predicted queries; detached. For at least two.

    0 where all point the same way, about 1 where they have nothing in common.
    """
    num_queries = queries_BQD.shape[1]
    directions = functional.normalize(queries_BQD.detach().float(), dim=-1)
    cosines = directions.sum(dim=1).square().sum(dim=-1) - num_queries
    return 1 - cosines / (num_queries * (num_queries - 1))
