"""VAEs as encoders: frames to latents. Only the encoder's half is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from fovcache.errors import EncoderError, UsageError, WeightsError
from fovcache.extract.extractor import TokenLayout
from fovcache.extract.frames import FrameInput
from fovcache.extract.layers import select_layers
from fovcache.extract.precision import full_float32
from fovcache.keys.digest import Document

from .autocast import autocast
from .checkpoint import Checkpoint, open_checkpoint
from .posterior import Posterior

VERSION = 1
"""Of what is done with the weights here; raised when a change here changes latents."""

LATENT = "latent"
DOWNSAMPLING = 8
"""Pixels of a frame for each of its latent's, along either side."""

_SUBFOLDER = "vae"  # where a whole pipeline keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentInput(FrameInput):
    """Frames whose size is a multiple of what a VAE divides it by."""

    def __post_init__(self) -> None:
        FrameInput.__post_init__(self)
        if self.size is not None and self.size % DOWNSAMPLING:
            raise EncoderError(_not_a_multiple(f"frame size {self.size} px", self.size))


@dataclass(frozen=True, kw_only=True)
class NamedAutoencoder:
    """One kind of VAE: what it is called, how its encoder is built, and what its state dict holds."""

    name: str
    """The encoder's name."""
    hub_id: str
    """Its weights, where none are given."""
    config: Mapping[str, Any]
    """As diffusers' config.json has it; a folder's must not say otherwise."""
    scaling: Mapping[str, Any]
    """What diffusion models scale latents by, as config.json names it, with diffusers' defaults. Not applied here."""
    shapes: Mapping[str, tuple[int, ...]]
    """Every tensor of the state dict, decoder included, by its canonical name."""
    parts: tuple[str, ...]
    """What the names of the encoder's tensors start with."""
    build: Callable[[], nn.Module]
    """The encoder without its decoder, its tensors named as in `shapes`: prepared frames to latents or moments."""
    input: LatentInput
    """What it is fed."""
    rename: Callable[[str], str] = str
    """The canonical name of a tensor in a checkpoint."""
    is_gaussian: bool
    """Whether it gives the moments of a Gaussian, rather than a latent."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """A VAE's encoder as an extractor: the layer `latent`, [rows, channels, height / 8, width / 8], not scaled."""

    architecture: NamedAutoencoder
    """Which."""
    checkpoint: Checkpoint
    """Its weights."""
    taken: Posterior = field(default_factory=Posterior)
    """What is taken of the distribution."""

    default_pool = "tokens"  # a latent's mean over space says next to nothing of the frame
    tokens = TokenLayout()

    @classmethod
    def open(cls, architecture: NamedAutoencoder, weights: str | None) -> Autoencoder:
        """With weights from a folder (a VAE's, or a pipeline's with one in `vae/`), a hub id or `random:SEED`.

        Raises WeightsError, EnvironmentFailure.
        """
        config = {**architecture.config, **architecture.scaling}
        checkpoint = open_checkpoint(
            weights, name=architecture.name, hub_id=architecture.hub_id, config=config, subfolder=_SUBFOLDER
        )
        _check_config(architecture, checkpoint)
        return cls(architecture=architecture, checkpoint=checkpoint)

    @property
    def name(self) -> str:
        """The architecture's."""
        return self.architecture.name

    @property
    def input(self) -> LatentInput:
        """256 × 256 from the frame's centre, normalised as the network takes it."""
        return self.architecture.input

    @property
    def posterior(self) -> Document | None:
        """What is taken of the distribution; None for a VAE that has none."""
        return self.taken.document() if self.architecture.is_gaussian else None

    def with_posterior(self, text: str) -> Autoencoder:
        """The same, taking `mean`, `mean+logvar` or `sample:SEED`. Raises UsageError for what it has not."""
        taken = Posterior.parse(text)
        if taken.kind != "mean" and not self.architecture.is_gaussian:
            raise UsageError(
                f"posterior {text!r}: {self.name} gives one latent and no distribution; leave --posterior out"
            )
        return replace(self, taken=taken)

    def identity(self) -> Document:
        """Name, architecture, weights, and what diffusion models scale its latents by."""
        architecture, config = self.architecture, self.checkpoint.config
        scaling = {key: config.get(key, default) for key, default in architecture.scaling.items()}
        return {
            "name": self.name,
            "version": VERSION,
            "architecture": dict(architecture.config),
            "weights": self.checkpoint.identity(),
            **scaling,
        }

    def layers(self) -> tuple[str, ...]:
        """`latent`."""
        return (LATENT,)

    def default_layers(self) -> tuple[str, ...]:
        """`latent`."""
        return (LATENT,)

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> LatentSession:
        """The encoder on `device`. Raises WeightsError naming the tensors that do not fit, EncoderError."""
        select_layers(layers, self.layers())
        autocast(device, compute_dtype)  # refused before anything is loaded
        network = self._network(device, memory_format(device, compute_dtype))
        return LatentSession(self, network, device, compute_dtype)

    def _network(self, device: torch.device, layout: torch.memory_format) -> nn.Module:
        architecture = self.architecture
        tensors = self.checkpoint.load(architecture.shapes, parts=architecture.parts, rename=architecture.rename)
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(device, memory_format=layout if tensor.ndim == 4 else torch.preserve_format)
        with torch.device("meta"):
            network = architecture.build()
        network.load_state_dict(tensors, assign=True)
        return network.eval().requires_grad_(False)


class LatentSession:
    """A VAE's encoder on a device."""

    def __init__(self, extractor: Autoencoder, network: nn.Module, device: torch.device, compute_dtype: str) -> None:
        self._extractor = extractor
        self._network: nn.Module | None = network
        self._device = device
        self._compute_dtype = compute_dtype

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{"latent": float32 [rows, channels, height / 8, width / 8]}` of float32 [rows, 3, height, width].

        Raises EncoderError for sides that are no multiples of 8, torch.OutOfMemoryError.
        """
        assert self._network is not None, "the session was closed"
        for side in batch.shape[2:]:
            if side % DOWNSAMPLING:
                raise EncoderError(_not_a_multiple(f"frames of {batch.shape[2]} × {batch.shape[3]} px", side))
        with torch.inference_mode():
            with full_float32(self._device), autocast(self._device, self._compute_dtype):
                output = self._network(batch)
            if self._extractor.architecture.is_gaussian:
                output = self._extractor.taken.latent(output, lambda: self._pixels(batch))
            return {LATENT: output.float().contiguous()}

    def _pixels(self, batch: torch.Tensor) -> torch.Tensor:
        """The frames that the input was prepared from, uint8 [rows, height, width, 3]."""
        spec = self._extractor.input
        frames = batch.permute(0, 2, 3, 1)
        if spec.std is not None:
            frames = frames * torch.tensor(spec.std, device=batch.device)
        if spec.mean is not None:
            frames = frames + torch.tensor(spec.mean, device=batch.device)
        return (frames * 255).round().to(torch.uint8)

    def close(self) -> None:
        """Let the network go."""
        self._network = None


def memory_format(device: torch.device, compute_dtype: str) -> torch.memory_format:
    """What convolutions are fastest with: channels last on a CPU, and in the halves on CUDA's tensor cores."""
    is_faster = device.type == "cpu" or (device.type == "cuda" and compute_dtype != "float32")
    return torch.channels_last if is_faster else torch.contiguous_format


def _check_config(architecture: NamedAutoencoder, checkpoint: Checkpoint) -> None:
    """Refuse another architecture by name, before its tensors do not fit."""
    other = [
        f"{key} is {checkpoint.config[key]!r}, expected {expected!r}"
        for key, expected in architecture.config.items()
        if key in checkpoint.config and checkpoint.config[key] != expected
    ]
    numbers = [
        f"{key} is {checkpoint.config[key]!r}, expected a number"
        for key, default in architecture.scaling.items()
        if not isinstance(checkpoint.config.get(key, default), int | float | None)
    ]
    if said := "; ".join([*other, *numbers]):
        raise WeightsError(f"{checkpoint.label} are no {architecture.name}: {said}")


def _not_a_multiple(what: str, side: int) -> str:
    below = side - side % DOWNSAMPLING
    nearest = ", ".join(str(side) for side in (below, below + DOWNSAMPLING) if side)
    return f"{what}: {side} is no multiple of {DOWNSAMPLING}, by which a VAE divides it; nearest: {nearest}"
