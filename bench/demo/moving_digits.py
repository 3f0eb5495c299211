"""The demo's clips: scikit-learn's handwritten digits, each moving in four directions, as small H.264 videos."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fovcache.keys.digest import bytes_digest

SIDE = 64
"""Height and width of a frame, pixels."""
DIGIT_SIDE = 40
"""Height and width of the digit in it, pixels."""
NUM_FRAMES = 16
"""Frames of a clip."""
RATE = Fraction(8)
"""Frames a second."""
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
"""Pixels down and to the right from one frame to the next."""
NUM_SOURCES = 160
"""Source digits, equally many of each class."""

_MARGIN = (SIDE - DIGIT_SIDE) // 2
_MAX_JITTER = _MARGIN - NUM_FRAMES // 2
_BLACK, _WHITE, _GREY = 16, 235, 128  # video range
# A constant quantiser and one thread: x264 then decides nothing by floating-point sums or by which thread came first.
_X264 = {"preset": "veryfast", "qp": "20", "threads": "1", "g": "8", "bf": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingDigit:
    """One clip: a source digit that moves in one direction, a pixel a frame."""

    source: int
    """The digit's position among scikit-learn's."""
    digit: int
    """What it shows, 0 to 9: the label."""
    direction: str
    """A key of DIRECTIONS: the second label."""

    @property
    def name(self) -> str:
        """The clip's file name."""
        return f"{self.group}-{self.direction}.mp4"

    @property
    def group(self) -> str:
        """The source digit; clips of one group look alike, and a split must not part them."""
        return f"{self.source:04d}"

    def corner(self, frame: int) -> tuple[int, int]:
        """Row and column of the digit's upper left corner in a frame. Its middle is off centre, as its name decides."""
        scatter = bytes.fromhex(bytes_digest(self.name.encode()))
        step = frame - NUM_FRAMES // 2
        row, column = (
            _MARGIN + scatter[axis] % (2 * _MAX_JITTER + 1) - _MAX_JITTER + velocity * step
            for axis, velocity in enumerate(DIRECTIONS[self.direction])
        )
        return row, column


def moving_digits(num_sources: int = NUM_SOURCES) -> list[MovingDigit]:
    """Every direction of the first `num_sources / 10` digits of each class, in scikit-learn's order."""
    from sklearn.datasets import load_digits

    labels = load_digits().target
    sources = np.concatenate([np.flatnonzero(labels == digit)[: num_sources // 10] for digit in range(10)])
    return [
        MovingDigit(source=source, digit=int(labels[source]), direction=direction)
        for source in sorted(sources.tolist())
        for direction in DIRECTIONS
    ]


def pictures() -> np.ndarray:
    """uint8 [digits, DIGIT_SIDE, DIGIT_SIDE]: scikit-learn's 8 × 8 digits, white on black, enlarged linearly."""
    from sklearn.datasets import load_digits

    images = load_digits().images  # from 0 to 16
    size = images.shape[-1]
    scale = DIGIT_SIDE // size
    places = np.clip((np.arange(DIGIT_SIDE) + 0.5) / scale - 0.5, 0, size - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size)))
    enlarged: np.ndarray = weights @ images @ weights.T
    return np.round(enlarged * (255 / 16)).astype(np.uint8)


def frames(clip: MovingDigit, picture: np.ndarray) -> Iterator[np.ndarray]:
    """uint8 [SIDE, SIDE] for each frame of a clip, its digit's picture on black."""
    for number in range(NUM_FRAMES):
        row, column = clip.corner(number)
        frame = np.zeros((SIDE, SIDE), np.uint8)
        frame[row : row + DIGIT_SIDE, column : column + DIGIT_SIDE] = picture
        yield frame


def encode(clip: MovingDigit, picture: np.ndarray) -> bytes:
    """The clip as an MP4 file; the same bytes wherever the same FFmpeg encodes it."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=_X264)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.color_range = 1
        chroma = np.full((SIDE // 2, SIDE), _GREY, np.uint8)
        for number, frame in enumerate(frames(clip, picture)):
            luma = np.round(_BLACK + frame * ((_WHITE - _BLACK) / 255)).astype(np.uint8)
            image = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            image.pts, image.time_base = number, 1 / RATE
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return buffer.getvalue()
