"""AdamW as training uses it."""

from __future__ import annotations

import torch
from torch import nn

from ..settings import TrainSettings


def make_optimiser(module: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Over all parameters that require a gradient; those of one dimension or none have no weight decay.

    One kernel for many parameters where torch has one: faster, and the same bits each time.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=all(each.device.type in ("cpu", "cuda") for each in trained),
    )
