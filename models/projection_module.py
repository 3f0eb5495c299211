"""The module of `projection`.

Axes: B samples, O numbers of an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from fovcache.trainable import Batch, Values

from .projection import FEATURES, MEAN, TARGET, ProjectionSettings, Y


class ProjectionModule(nn.Module):
    """`module(batch) -> Values`: `loss`, and `accuracy` of labels."""

    def __init__(self, settings: ProjectionSettings, num_in: int, num_out: int) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden or num_in
        widths = [num_in, *[hidden] * (settings.layers - 1), num_out]
        linears = [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*[part for linear in linears for part in (linear, nn.GELU())][:-1])

    @property
    def parts(self) -> dict[str, Sequence[str]]:
        """Prefixes of the parameters' names, by part."""
        return {"projection": ["layers."]}

    def forward(self, batch: Batch) -> Values:
        """float32 [B] each."""
        output_BO = self.layers(self._input(batch[FEATURES])).float()
        if self.settings.target == "labels":
            labels_B = batch[Y]
            is_right = output_BO.detach().argmax(dim=1) == labels_B
            return {
                "loss": functional.cross_entropy(output_BO, labels_B, reduction="none"),
                "accuracy": is_right.float(),
            }
        target_BO = batch[TARGET].flatten(1).float()
        if self.settings.loss == "cosine":
            return {"loss": 1 - functional.cosine_similarity(output_BO, target_BO, dim=1)}
        return {"loss": (output_BO - target_BO).square().mean(dim=1)}

    def _input(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.float()
        if self.settings.tokens == MEAN and rows.ndim > 2:
            return rows.flatten(1, -2).mean(dim=1)
        return rows.flatten(1)
