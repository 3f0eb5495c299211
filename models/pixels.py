"""`pixels`: no network at all, the frame itself at 32 × 32. What any encoder has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fovcache.errors import WeightsError
from fovcache.extract.extractor import InputSpec, TokenLayout
from fovcache.extract.frames import FrameInput
from fovcache.keys.digest import Document

SIZE = 32
_LAYERS = ("pixels", "pixels8")


class Pixels:
    """Layers `pixels`, RGB in [0, 1] as [3, 32, 32], and `pixels8`, its 8 × 8 means as [3, 8, 8]."""

    name = "pixels"
    tokens = TokenLayout()

    @property
    def input(self) -> InputSpec:
        """Squashed to 32 × 32."""
        return FrameInput(size=SIZE, fit="squash")

    def identity(self) -> Document:
        """Nothing but its name and version: it has no weights."""
        return {"name": self.name, "version": 1}

    def layers(self) -> tuple[str, ...]:
        """`pixels`, `pixels8`."""
        return _LAYERS

    def default_layers(self) -> tuple[str, ...]:
        """`pixels8`."""
        return ("pixels8",)

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> PixelSession:
        """A session that computes `layers`."""
        return PixelSession(layers)


class PixelSession:
    """Computes some of the layers."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = tuple(layers)

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [rows, 3, side, side]}`."""
        every = {"pixels": batch, "pixels8": torch.nn.functional.adaptive_avg_pool2d(batch, 8)}
        return {layer: every[layer] for layer in self._layers}


def make(weights: str | None) -> Pixels:
    """The extractor. Raises WeightsError when weights are given: it has none."""
    if weights is not None:
        raise WeightsError(f"weights {weights!r} were given, and the encoder 'pixels' has none")
    return Pixels()
