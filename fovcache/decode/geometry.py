"""From decoded frames to upright RGB at the geometries asked for, in one swscale call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import SampleError, UsageError

if TYPE_CHECKING:
    from av import VideoFrame

FITS = ("crop", "squash", "pad")
INTERPOLATIONS = ("bicubic", "bilinear")
MAX_SIZE = 8192
"""Pixels of a side of scaled frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What frames are brought to, once they are upright."""

    size: int | None = None
    """Height and width in pixels; None keeps native pixels."""
    fit: str = "crop"
    """`crop`: shorter side to `size`, centre crop; `squash`: both sides; `pad`: longer side, black borders."""
    short_side: int | None = None
    """With `crop`: the shorter side is brought to this, in pixels, then the centre of `size` is cut out; None for
    `size`. Both sides are rounded down, as Hugging Face's processors do."""
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`, both with a filter that grows where frames shrink."""

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise UsageError(f"fit {self.fit!r} is not one of {', '.join(FITS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation {self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}")
        if self.size is not None and not 1 <= self.size <= MAX_SIZE:
            raise UsageError(f"size is {self.size}; expected 1 to {MAX_SIZE} pixels")
        if self.short_side is None:
            return
        if self.size is None or self.fit != "crop":
            raise UsageError(f"short_side {self.short_side} goes with a size and fit 'crop', not {self.fit!r}")
        if not self.size <= self.short_side <= MAX_SIZE:
            raise UsageError(f"short_side is {self.short_side}; expected {self.size} (the size) to {MAX_SIZE} pixels")

    def scaled(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        """Both sides after scaling, before what is cropped off or padded. Raises SampleError for too many pixels."""
        size = self.short_side or self.size
        if size is None:
            return width, height
        if self.fit == "squash":
            return size, size
        side = (min if self.fit == "crop" else max)(width, height)
        if self.short_side is None:
            scaled = tuple(max(1, (2 * length * size + side) // (2 * side)) for length in (width, height))
        else:
            scaled = tuple(length * size // side for length in (width, height))
        if scaled[0] * scaled[1] > max_pixels:
            reason = f"{width}×{height} scaled to {scaled[0]}×{scaled[1]} is over the limit of {max_pixels} pixels"
            raise SampleError("decode", reason, permanent=True)
        return scaled[0], scaled[1]

    def scales_rgb(self, width: int, height: int) -> bool:
        """Whether frames have to be RGB before they are scaled, for the pixels of Hugging Face's processors.

        Scaled as stored, colours of half the resolution come out smoother where they grow. Where they shrink it makes
        next to no difference, and RGB would take several times as long.
        """
        return self.short_side is not None and 2 * self.short_side >= min(width, height)

    def refusal(self, width: int, height: int, max_pixels: int) -> SampleError | None:
        """Why frames of these sides cannot be brought to it; None where they can."""
        try:
            self.scaled(width, height, max_pixels)
        except SampleError as error:
            return error
        return None

    def returned(self, width: int, height: int) -> tuple[int, int]:
        """Both sides of what comes of it in the end."""
        return (width, height) if self.size is None else (self.size, self.size)


NATIVE = Geometry()

Pixels: TypeAlias = "tuple[np.ndarray | SampleError, ...]"
"""One frame in several geometries: uint8 [height, width, 3], or why it would be too large."""
Convert: TypeAlias = "Callable[[VideoFrame], Pixels]"


class FrameConverter:
    """Converts the frames of one video to one geometry. Keeps swscale's tables between frames; not thread-safe.

    Native pixels are those of PyAV's `frame.to_ndarray(format="rgb24")`; others are swscale's. The display matrix's
    rotation is applied by quarter turns, `np.rot90(x, rotation / 90)`; pixels are taken for square.
    """

    def __init__(self, geometry: Geometry, *, max_pixels: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._geometry = geometry
        self._max_pixels = max_pixels
        self._reformatter = VideoReformatter()
        self._plain = VideoReformatter()

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """uint8 [height, width, 3], contiguous. Raises SampleError when it would be too large."""
        turns = round(frame.rotation / 90) % 4
        size = self._geometry.size
        if size is None:
            plain = self._plain.reformat(frame, format="rgb24", threads=1).to_ndarray()
            return np.ascontiguousarray(np.rot90(plain, turns))
        width, height = self._geometry.scaled(frame.width, frame.height, self._max_pixels)
        if self._geometry.scales_rgb(frame.width, frame.height):
            frame = self._plain.reformat(frame, format="rgb24", threads=1)
        interpolation = self._geometry.interpolation
        # The same pixels in a third of the time; otherwise swscale treats colour another way for each format.
        pixel_format = "gbrp" if width % 2 and interpolation == "bicubic" else "rgb24"
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format=pixel_format, interpolation=interpolation.upper(), threads=1
        )
        return np.ascontiguousarray(_square(np.rot90(scaled.to_ndarray(), turns), size))


def converter_to(geometries: Sequence[Geometry], *, max_pixels: int) -> Convert:
    """A function from a frame of one video to its pixels in each geometry."""
    converters = [FrameConverter(geometry, max_pixels=max_pixels) for geometry in geometries]

    def convert(frame: VideoFrame) -> Pixels:
        return tuple(_pixels_or_error(converter, frame) for converter in converters)

    return convert


def _pixels_or_error(converter: FrameConverter, frame: VideoFrame) -> np.ndarray | SampleError:
    try:
        return converter.convert(frame)
    except SampleError as error:
        return error


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centre of what is too large, within black borders where it is too small."""
    height, width = pixels.shape[:2]
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    centre = pixels[top : top + size, left : left + size]
    if centre.shape[:2] == (size, size):
        return centre
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - centre.shape[0]) // 2, (size - centre.shape[1]) // 2
    square[top : top + centre.shape[0], left : left + centre.shape[1]] = centre
    return square
