"""The head `reconstruction`: the next frame's VAE latent from this one's and the language model's state.

Axes: B samples, T frames, C latent channels, h × w a latent, W the language model's width, F channels in between.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from fovcache.errors import UsageError
from fovcache.trainable import InputInfo

from .look import Look
from .names import LATENTS
from .settings import RECONSTRUCTION

_NUM_BLOCKS = 3
_FIRST_STEP = 0.1
"""What the network adds to the latent when training begins, of what it would add: about a copy of the frame."""


class ReconstructionHead(nn.Module):
    """A convolutional network whose blocks the state scales and shifts (FiLM); it predicts what changes.

    Latents are taken as diffusion models take them, by the VAE's scaling, so that their numbers are about 1.
    """

    def __init__(self, width: int, channels: int, num_frames: int, info: InputInfo) -> None:
        """Raises UsageError for latents of other clips, or with their variance."""
        super().__init__()
        if len(info.row_shape) != 4 or info.row_shape[0] != num_frames or num_frames < 2:
            raise UsageError(
                f"{LATENTS} are of shape {info.row_shape}, expected [frames, channels, height, width] with as many "
                f"frames as the encoder's tokens have, {num_frames}, and at least two"
            )
        if (info.recipe.get("posterior") or {}).get("kind") == "mean+logvar":
            raise UsageError(f'{LATENTS} hold mean and log-variance, expected the mean: build them with "mean"')
        extractor = info.recipe.get("extractor", {})
        self.scale = float(extractor.get("scaling_factor") or 1.0)
        self.shift = float(extractor.get("shift_factor") or 0.0)
        num_latent = info.row_shape[1]
        self.first = nn.Conv2d(num_latent, channels, 3, padding=1)
        self.blocks = nn.ModuleList(_FilmBlock(width, channels) for _ in range(_NUM_BLOCKS))
        self.last = nn.Conv2d(channels, num_latent, 3, padding=1)

    def forward(self, look: Look, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`reconstruction` [B]: mean squared error over the frames that have a next one."""
        latents_BTChw = (batch[LATENTS].to(self.first.weight.dtype) - self.shift) * self.scale
        current, following = latents_BTChw[:, :-1].flatten(0, 1), latents_BTChw[:, 1:]
        predicted = self.predict(current, look.states_BTW[:, :-1].flatten(0, 1))
        errors = functional.mse_loss(predicted.float().view_as(following), following.float(), reduction="none")
        return {RECONSTRUCTION: errors.flatten(1).mean(dim=1)}

    def predict(self, latents: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Scaled latents `[rows, C, h, w]` a frame later, of those and the states `[rows, W]` after their frames."""
        x = self.first(latents)
        for block in self.blocks:
            x = block(x, states)
        change: torch.Tensor = self.last(x)
        return latents + _FIRST_STEP * change


class _FilmBlock(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * channels)
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(states)[:, :, None, None].chunk(2, dim=1)
        inner = functional.silu(self.norm(x) * (1 + scale) + shift)
        mixed: torch.Tensor = self.mix(functional.silu(self.spread(inner)))
        return x + mixed
