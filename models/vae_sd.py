"""`vae-sd`: diffusers' AutoencoderKL at the size of Stable Diffusion's, 83.65 million parameters with its decoder.

In float16 the encoder's activations overflow on some images, whose rows then hold NaN and fail: of the halves, use
bfloat16. Latents are not scaled; diffusion models multiply them by the recipe's `scaling_factor`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from .autoencoder import Autoencoder, LatentInput, NamedAutoencoder

_CHANNELS = (128, 256, 512, 512)
_LAYERS_PER_BLOCK = 2
_LATENT_CHANNELS = 4
_HALF = (0.5, 0.5, 0.5)

_CONFIG = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "latent_channels": _LATENT_CHANNELS,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "block_out_channels": list(_CHANNELS),
    "layers_per_block": _LAYERS_PER_BLOCK,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_quant_conv": True,
}
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

_Shapes = Iterator[tuple[str, tuple[int, ...]]]


class _Network(nn.Module):
    """Frames in [-1, 1] to the moments of a Gaussian."""

    def __init__(self) -> None:
        from diffusers.models.autoencoders.vae import Encoder

        super().__init__()
        self.encoder = Encoder(
            in_channels=3,
            out_channels=_LATENT_CHANNELS,
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=_CHANNELS,
            layers_per_block=_LAYERS_PER_BLOCK,
            norm_num_groups=32,
            act_fn="silu",
            double_z=True,
        )
        self.quant_conv = nn.Conv2d(2 * _LATENT_CHANNELS, 2 * _LATENT_CHANNELS, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        moments: torch.Tensor = self.quant_conv(self.encoder(frames))
        return moments


def make(weights: str | None) -> Autoencoder:
    """The extractor, its latents the unscaled means. Raises WeightsError, EnvironmentFailure."""
    return Autoencoder.open(_ARCHITECTURE, weights)


def _canonical(name: str) -> str:
    """Attention's tensors had other names before diffusers 0.15; checkpoints on the hub still have."""
    if ".attentions." in name:
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _shapes() -> _Shapes:
    first, last = _CHANNELS[0], _CHANNELS[-1]
    yield from _convolution("encoder.conv_in", 3, first)
    num_in = first
    for level, num_out in enumerate(_CHANNELS):
        is_last = level == len(_CHANNELS) - 1
        sampler = None if is_last else "downsamplers"
        yield from _level(f"encoder.down_blocks.{level}", num_in, num_out, _LAYERS_PER_BLOCK, sampler)
        num_in = num_out
    yield from _middle("encoder.mid_block", last)
    yield from _affine("encoder.conv_norm_out", last)
    yield from _convolution("encoder.conv_out", last, 2 * _LATENT_CHANNELS)

    yield from _convolution("decoder.conv_in", _LATENT_CHANNELS, last)
    yield from _middle("decoder.mid_block", last)
    num_in = last
    for level, num_out in enumerate(reversed(_CHANNELS)):
        is_last = level == len(_CHANNELS) - 1
        sampler = None if is_last else "upsamplers"
        yield from _level(f"decoder.up_blocks.{level}", num_in, num_out, _LAYERS_PER_BLOCK + 1, sampler)
        num_in = num_out
    yield from _affine("decoder.conv_norm_out", first)
    yield from _convolution("decoder.conv_out", first, 3)

    yield from _convolution("quant_conv", 2 * _LATENT_CHANNELS, 2 * _LATENT_CHANNELS, kernel=1)
    yield from _convolution("post_quant_conv", _LATENT_CHANNELS, _LATENT_CHANNELS, kernel=1)


def _level(name: str, num_in: int, num_out: int, num_layers: int, sampler: str | None) -> _Shapes:
    for layer in range(num_layers):
        yield from _resnet(f"{name}.resnets.{layer}", num_out if layer else num_in, num_out)
    if sampler:
        yield from _convolution(f"{name}.{sampler}.0.conv", num_out, num_out)


def _middle(name: str, channels: int) -> _Shapes:
    yield from _resnet(f"{name}.resnets.0", channels, channels)
    yield from _affine(f"{name}.attentions.0.group_norm", channels)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield f"{name}.attentions.0.{part}.weight", (channels, channels)
        yield f"{name}.attentions.0.{part}.bias", (channels,)
    yield from _resnet(f"{name}.resnets.1", channels, channels)


def _resnet(name: str, num_in: int, num_out: int) -> _Shapes:
    yield from _affine(f"{name}.norm1", num_in)
    yield from _convolution(f"{name}.conv1", num_in, num_out)
    yield from _affine(f"{name}.norm2", num_out)
    yield from _convolution(f"{name}.conv2", num_out, num_out)
    if num_in != num_out:
        yield from _convolution(f"{name}.conv_shortcut", num_in, num_out, kernel=1)


def _affine(name: str, channels: int) -> _Shapes:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _convolution(name: str, num_in: int, num_out: int, *, kernel: int = 3) -> _Shapes:
    yield f"{name}.weight", (num_out, num_in, kernel, kernel)
    yield f"{name}.bias", (num_out,)


_ARCHITECTURE = NamedAutoencoder(
    name="vae-sd",
    hub_id="stabilityai/sd-vae-ft-mse",
    config=_CONFIG,
    scaling={"scaling_factor": 0.18215, "shift_factor": None},
    shapes=dict(_shapes()),
    parts=("encoder.", "quant_conv."),
    build=_Network,
    input=LatentInput(size=256, fit="crop", mean=_HALF, std=_HALF),
    rename=_canonical,
    is_gaussian=True,
)
