"""Frames as an extractor's input: decode, geometry and normalisation, all of it in the recipe."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..decode.geometry import NATIVE, Geometry
from ..decode.sampling import WHOLE, Sampling
from ..decode.stills import STILL_SUFFIXES, decode_stills, still_decoder
from ..decode.video_file import VideoSource
from ..errors import EncoderError, SampleError, UsageError
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
    short_side: int | None = None
    """With `crop`: the shorter side is brought to this, then the centre of `size` is cut out; None for `size`."""
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`, both antialiased."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from RGB in [0, 1], or None."""
    std: tuple[float, float, float] | None = None
    """Divides after the mean, or None."""
    decode: ClipDecoder | None = field(default=None, compare=False)
    """Decodes elsewhere (in processes that can be killed) what would be decoded here: the same pixels."""

    def __post_init__(self) -> None:
        try:
            Geometry(size=self.size, fit=self.fit, short_side=self.short_side, interpolation=self.interpolation)
        except UsageError as error:
            raise EncoderError(str(error)) from None
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

    @property
    def fixed_shape(self) -> tuple[int, ...] | None:
        """[1, size, size, 3]; None where frames keep their own size."""
        return None if self.size is None else (1, self.size, self.size, 3)

    @property
    def geometry(self) -> Geometry:
        """What frames are brought to; equal ones give equal pixels."""
        if self.size is None:
            return NATIVE
        return Geometry(size=self.size, fit=self.fit, short_side=self.short_side, interpolation=self.interpolation)

    def document(self) -> Document:
        """Clip, geometry, decoder and preprocessing, for the recipe."""
        return {
            "kind": self.kind,
            "clip": {
                "frames": 1,
                "sampling": "uniform",
                **self._size_and_fit(),
                "interpolation": f"{self.interpolation}, antialiased" if self.size is not None else None,
                "color": {"space": "sRGB as stored", "matrix": "as the codec decodes", "range": "full"},
                "decoder": {"name": still_decoder()["name"], "device": "cpu"},
            },
            "preprocessing": self.preprocessing(),
        }

    def _size_and_fit(self) -> Document:
        short_side = {} if self.short_side is None else {"short_side": self.short_side}
        return {"size": self.size, "fit": self.fit if self.size is not None else None, **short_side}

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
        """The same input with the geometry that a user asked for: a size is then exactly what is cut out."""
        keeps_short_side = size is None and fit in (None, "crop")
        return replace(
            self,
            size=size if size is not None else self.size,
            fit=fit or self.fit,
            short_side=self.short_side if keeps_short_side else None,
        )

    def read(self, data: bytes, name: str) -> np.ndarray:
        """uint8 [1, height, width, 3]. Raises SampleError."""
        (item,) = self.read_to(data, (self.geometry,))
        if isinstance(item, SampleError):
            raise item
        return item

    def read_to(self, data: bytes, geometries: Sequence[Geometry]) -> list[np.ndarray | SampleError]:
        """For each geometry, uint8 [1, height, width, 3] of one decode, or why it cannot be had. Raises SampleError."""
        if self.decode is None:
            stills = decode_stills(data, geometries)
            return [pixels if isinstance(pixels, SampleError) else pixels[None] for pixels in stills]
        clips = self.decode(VideoSource(data=data), _ONE_FRAME, (WHOLE,), geometries)
        return [clip if isinstance(clip, SampleError) else clip.frames for (clip,) in clips]

    @property
    def decoding(self) -> Hashable:
        """Inputs for which this is equal can share a decode: they differ in what comes after it."""
        return (self.decode,)

    def rows_of(self, item: np.ndarray) -> int | None:
        """None: a still's row has no axis of frames."""
        return None

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        """[frames, height, width, 3]."""
        return tuple(item.shape)

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        """Black frames."""
        return np.zeros(shape, np.uint8)

    def collate(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        """uint8 [frames of all items, height, width, 3]."""
        import torch

        return torch.from_numpy(np.concatenate(items))

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 [frames, 3, height, width], scaled and normalised, on the device that `batch` is on."""
        import torch

        frames = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()
        if self.mean is not None:
            frames.sub_(_by_channel(self.mean, batch.device))
        if self.std is not None:
            frames.div_(_by_channel(self.std, batch.device))
        return frames


@functools.lru_cache(maxsize=64)
def _by_channel(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """[1, 3, 1, 1]; made once, as bringing it to a GPU waits for that."""
    import torch

    return torch.tensor(values, device=device).view(1, 3, 1, 1)
