"""What is taken of a VAE's distribution over latents: its mean, its mean and log-variance, or a seeded sample.

A sample's noise is a function of the frame's own pixels and the seed alone: the same frame gets the same noise in
every batch, at every place in it and on every device, and two equal frames of a clip get equal noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fovcache.errors import UsageError
from fovcache.keys.digest import Document, bytes_digest, canonical_json

NOISE_RULE = 1
"""Part of the key of samples; raised when their noise changes."""

_LOGVAR_RANGE = (-30.0, 20.0)  # as diffusers clamps it
_KINDS = ("mean", "mean+logvar", "sample")
_KNOWN = "mean, mean+logvar, sample:SEED (a whole number of at most 15 digits, as in sample:0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """What is taken of a diagonal Gaussian."""

    kind: str = "mean"
    """`mean`, `mean+logvar` or `sample`."""
    seed: int | None = None
    """Of `sample`, else None."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UsageError(f"posterior {self.kind!r} is unknown; there are: {_KNOWN}")
        if (self.kind == "sample") != (self.seed is not None):
            raise UsageError(f"posterior {self.kind!r} with the seed {self.seed}: a seed goes with 'sample' alone")

    @classmethod
    def parse(cls, text: str) -> Posterior:
        """The posterior that `mean`, `mean+logvar` or `sample:SEED` names. Raises UsageError for anything else."""
        if sample := re.fullmatch(r"sample:([0-9]{1,15})", text):
            return cls(kind="sample", seed=int(sample[1]))
        if text not in ("mean", "mean+logvar"):
            raise UsageError(f"posterior {text!r} is unknown; there are: {_KNOWN}")
        return cls(kind=text)

    def document(self) -> Document:
        """For the recipe: the kind; for a sample its seed and its noise's rule too."""
        if self.seed is None:
            return {"kind": self.kind}
        return {"kind": self.kind, "seed": self.seed, "noise": NOISE_RULE}

    def latent(self, moments: torch.Tensor, pixels: Callable[[], torch.Tensor]) -> torch.Tensor:
        """float32 [rows, channels, h, w] of moments [rows, 2 · channels, h, w], or as many channels for `mean+logvar`.

        `pixels` gives the frames, uint8 [rows, height, width, 3]: a sample's noise is drawn by them.
        """
        mean, logvar = moments.float().chunk(2, dim=1)
        if self.kind == "mean":
            return mean
        logvar = logvar.clamp(*_LOGVAR_RANGE)
        if self.seed is None:
            return torch.cat([mean, logvar], dim=1)
        shape = tuple(mean.shape[1:])
        rows = [torch.from_numpy(frame_noise(frame, self.seed, shape)) for frame in pixels().cpu().numpy()]
        return mean + torch.exp(0.5 * logvar) * torch.stack(rows).to(mean.device)


def frame_noise(frame: np.ndarray, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 N(0, 1) of `shape` for a frame, uint8 [height, width, 3], and a seed."""
    rule = canonical_json({"kind": "posterior noise", "rule": NOISE_RULE, "seed": seed, "frame": list(frame.shape)})
    key = int(bytes_digest(rule + b"\n" + frame.tobytes())[:32], 16)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)
