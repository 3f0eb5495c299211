"""Frames as an extractor's input: decode, geometry and normalisation, all of it in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..decode.geometry import FITS
from ..decode.sampling import WHOLE, Sampling
from ..decode.stills import STILL_SUFFIXES, decode_still, still_decoder
from ..decode.video_file import VideoSource
from ..errors import EncoderError, SampleError
from ..keys.digest import Document

if TYPE_CHECKING:
    import torch

    from ..decode.clip import ClipDecoder

_ONE_FRAME = Sampling(num_frames=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInput:
    """Upright RGB frames at a fixed geometry, scaled to [0, 1] and optionally normalised."""

    size: int | None = None
    """Height and width in pixels after resizing; None keeps native pixels."""
    fit: str = "crop"
    """`crop`: shorter side to `size`, centre crop; `squash`: both sides; `pad`: longer side, black borders."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from RGB in [0, 1], or None."""
    std: tuple[float, float, float] | None = None
    """Divides after the mean, or None."""
    decode: ClipDecoder | None = field(default=None, compare=False)
    """Decodes elsewhere (in processes that can be killed) what would be decoded here: the same pixels."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 16384:
            raise EncoderError(f"frame size {self.size} px is out of range; expected 1 to 16384")
        if self.fit not in FITS:
            raise EncoderError(f"fit {self.fit!r} is not one of {', '.join(FITS)}")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise EncoderError(f"image_std {self.std} must be positive")

    @property
    def kind(self) -> str:
        """`frames`."""
        return "frames"

    @property
    def typical_rows(self) -> int:
        """One: stills have one frame."""
        return 1

    def document(self) -> Document:
        """Clip, geometry, decoder and preprocessing, for the recipe."""
        return {
            "kind": self.kind,
            "clip": {
                "frames": 1,
                "sampling": "uniform",
                "size": self.size,
                "fit": self.fit if self.size is not None else None,
                "interpolation": "bicubic, antialiased" if self.size is not None else None,
                "color": {"space": "sRGB as stored", "matrix": "as the codec decodes", "range": "full"},
                "decoder": {"name": still_decoder()["name"], "device": "cpu"},
            },
            "preprocessing": self.preprocessing(),
        }

    def preprocessing(self) -> Document:
        """What is done to pixels after decoding."""
        return {
            "scale": "1/255",
            "mean": list(self.mean) if self.mean is not None else None,
            "std": list(self.std) if self.std is not None else None,
        }

    def software(self) -> Document:
        """The still decoder's name and version."""
        return still_decoder()

    def suffixes(self) -> frozenset[str]:
        """Image files."""
        return STILL_SUFFIXES

    def with_geometry(self, *, size: int | None, fit: str | None) -> FrameInput:
        """The same input with the geometry that a user asked for."""
        return replace(self, size=size if size is not None else self.size, fit=fit or self.fit)

    def read(self, data: bytes, name: str) -> np.ndarray:
        """uint8 [1, height, width, 3]. Raises SampleError."""
        if self.decode is None:
            return decode_still(data, size=self.size, fit=self.fit)[None]
        (clip,) = self.decode(VideoSource(data=data), _ONE_FRAME, (WHOLE,), size=self.size, fit=self.fit)
        if isinstance(clip, SampleError):
            raise clip
        return clip.frames

    def rows_of(self, item: np.ndarray) -> int | None:
        """None: a still's row has no axis of frames."""
        return None

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        """[frames, height, width, 3]."""
        return tuple(item.shape)

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        """Black frames."""
        return np.zeros(shape, np.uint8)

    def collate(self, items: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
        """float32 [items, 3, height, width] on `device`."""
        import torch

        frames = torch.from_numpy(np.concatenate(items)).to(device)
        batch = frames.permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()
        if self.mean is not None:
            batch.sub_(torch.tensor(self.mean, device=device).view(1, 3, 1, 1))
        if self.std is not None:
            batch.div_(torch.tensor(self.std, device=device).view(1, 3, 1, 1))
        return batch
