"""Clips as an extractor's input: which frames of a video, at the same geometry as stills, all of it in the recipe."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from ..decode.clip import BACKENDS, decoder, decoder_software
from ..decode.geometry import Geometry
from ..decode.limits import Limits
from ..decode.sampling import WHOLE, Sampling, Window
from ..decode.video_file import VIDEO_SUFFIXES, VideoSource
from ..errors import SampleError, UsageError
from ..keys.digest import Document
from .frames import FrameInput


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInput(FrameInput):
    """Frames of videos, upright RGB, `[frames, …]` a sample."""

    sampling: Sampling = field(default_factory=Sampling)
    """Which frames."""
    backend: str = "pyav"
    """What decodes: `pyav` or `ffmpeg`."""
    limits: Limits = field(default_factory=Limits)
    """What is refused. Not in the recipe: it decides whether there are frames, never which."""

    def __post_init__(self) -> None:
        FrameInput.__post_init__(self)
        if self.backend not in BACKENDS:
            raise UsageError(f"decoder {self.backend!r} is not one of {', '.join(BACKENDS)}")

    @classmethod
    def like(
        cls,
        frames: FrameInput,
        *,
        sampling: Sampling,
        backend: str,
        limits: Limits | None = None,
    ) -> ClipInput:
        """Clips at the geometry and with the preprocessing of an encoder's stills."""
        geometry = {each.name: getattr(frames, each.name) for each in fields(FrameInput)}
        return cls(**geometry, sampling=sampling, backend=backend, limits=limits or Limits())

    @property
    def typical_rows(self) -> int:
        """The frames of a clip."""
        return self.sampling.num_frames or Sampling().num_frames or 1

    @property
    def fixed_shape(self) -> tuple[int, ...] | None:
        """[frames, size, size, 3]; None where either depends on the video."""
        frames = self.sampling.num_frames
        return None if self.size is None or frames is None else (frames, self.size, self.size, 3)

    def document(self) -> Document:
        """Clip, geometry, decoder and preprocessing, for the recipe."""
        rate = {} if self.sampling.fps is None else {"fps": self.sampling.fps}
        return {
            "kind": self.kind,
            "clip": {
                "frames": self.sampling.num_frames,
                "sampling": self.sampling.rule,
                **rate,
                **self._size_and_fit(),
                "interpolation": f"swscale {self.interpolation}" if self.size is not None else "swscale default",
                "color": {"space": "RGB", "matrix": "swscale's for the stream", "range": "full"},
                "rotation": "upright",
                "decoder": {"name": self.backend, "device": "cpu"},
            },
            "preprocessing": self.preprocessing(),
        }

    def software(self) -> Document:
        """The decoder's name and version, and its limits: what they refused is tried again when they change."""
        limits = {"max_pixels": self.limits.max_pixels, "max_duration_s": self.limits.max_duration_s}
        return {**decoder_software(self.backend), **limits}

    def suffixes(self) -> frozenset[str]:
        """Video files."""
        return VIDEO_SUFFIXES

    def read_to(self, data: bytes, geometries: Sequence[Geometry]) -> list[np.ndarray | SampleError]:
        """For each geometry, uint8 [frames, height, width, 3] of a video in memory, or why it cannot be had."""
        return [item for (item,) in self.read_windows_to(VideoSource(data=data), (WHOLE,), geometries)]

    def read_windows(self, source: VideoSource, windows: Sequence[Window]) -> list[np.ndarray | SampleError]:
        """uint8 [frames, height, width, 3] for each window, or why it cannot be had. Raises SampleError."""
        (items,) = self.read_windows_to(source, windows, (self.geometry,))
        return items

    def read_windows_to(
        self, source: VideoSource, windows: Sequence[Window], geometries: Sequence[Geometry]
    ) -> list[list[np.ndarray | SampleError]]:
        """For each geometry what `read_windows` gives, of one decode. Raises SampleError."""
        decode = self.decode or decoder(self.backend)
        each = decode(source, self.sampling, windows, geometries, limits=self.limits)
        return [[clip if isinstance(clip, SampleError) else clip.frames for clip in clips] for clips in each]

    @property
    def decoding(self) -> Hashable:
        """Inputs for which this is equal can share a decode: they differ in what comes after it."""
        return self.sampling, self.backend, self.limits, self.decode

    def rows_of(self, item: np.ndarray) -> int | None:
        """The clip's frames."""
        return len(item)
