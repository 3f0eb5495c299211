"""`vae-tiny`: diffusers' AutoencoderTiny (TAESD), 2.4 million parameters, distilled from Stable Diffusion's VAE.

Its latents are already at the scale that diffusion models use. It has no distribution over latents.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from .autoencoder import Autoencoder, LatentInput, NamedAutoencoder

_CHANNELS = 64
_LATENT_CHANNELS = 4
_ENCODER_BLOCKS = (1, 3, 3, 3)
_DECODER_BLOCKS = (3, 3, 3, 1)

_CONFIG = {
    "_class_name": "AutoencoderTiny",
    "in_channels": 3,
    "latent_channels": _LATENT_CHANNELS,
    "encoder_block_out_channels": [_CHANNELS] * 4,
    "num_encoder_blocks": list(_ENCODER_BLOCKS),
    "act_fn": "relu",
}


class _Network(nn.Module):
    """Frames in [0, 1] to latents."""

    def __init__(self) -> None:
        from diffusers.models.autoencoders.vae import EncoderTiny

        super().__init__()
        self.encoder = EncoderTiny(
            in_channels=3,
            out_channels=_LATENT_CHANNELS,
            num_blocks=_ENCODER_BLOCKS,
            block_out_channels=(_CHANNELS,) * 4,
            act_fn="relu",
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        # The encoder itself takes [-1, 1], and brings it to the [0, 1] that its layers take.
        latents: torch.Tensor = self.encoder.layers(frames)
        return latents


def make(weights: str | None) -> Autoencoder:
    """The extractor, its latents as the network gives them. Raises WeightsError, EnvironmentFailure."""
    return Autoencoder.open(_ARCHITECTURE, weights)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _convolution("encoder.layers.0", 3, _CHANNELS)
    at = 1
    for level, num_blocks in enumerate(_ENCODER_BLOCKS):
        if level:
            yield f"encoder.layers.{at}.weight", (_CHANNELS, _CHANNELS, 3, 3)
            at += 1
        for _ in range(num_blocks):
            yield from _block(f"encoder.layers.{at}")
            at += 1
    yield from _convolution(f"encoder.layers.{at}", _CHANNELS, _LATENT_CHANNELS)

    yield from _convolution("decoder.layers.0", _LATENT_CHANNELS, _CHANNELS)
    at = 2  # after a ReLU
    for level, num_blocks in enumerate(_DECODER_BLOCKS):
        for _ in range(num_blocks):
            yield from _block(f"decoder.layers.{at}")
            at += 1
        if level < len(_DECODER_BLOCKS) - 1:
            yield f"decoder.layers.{at + 1}.weight", (_CHANNELS, _CHANNELS, 3, 3)  # after an upsampling
            at += 2
    yield from _convolution(f"decoder.layers.{at}", _CHANNELS, 3)


def _block(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for at in (0, 2, 4):
        yield from _convolution(f"{name}.conv.{at}", _CHANNELS, _CHANNELS)


def _convolution(name: str, num_in: int, num_out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (num_out, num_in, 3, 3)
    yield f"{name}.bias", (num_out,)


_ARCHITECTURE = NamedAutoencoder(
    name="vae-tiny",
    hub_id="madebyollin/taesd",
    config=_CONFIG,
    scaling={"scaling_factor": 1.0, "shift_factor": 0.0},
    shapes=dict(_shapes()),
    parts=("encoder.",),
    build=_Network,
    input=LatentInput(size=256, fit="crop"),
    is_gaussian=False,
)
