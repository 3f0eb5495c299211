"""Reading a clip: the frames of a video or a still image, as `fovcache.read_clip` and the decode stage do it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import SampleError, UsageError
from .geometry import Geometry
from .limits import Limits
from .sampling import DEFAULT_NUM_FRAMES, Sampling, Window
from .stills import decode_still, is_still
from .video import ClipOrError, DecodedClip
from .video_file import VideoSource

BACKENDS = ("pyav", "ffmpeg")
_HEAD_BYTES = 32


class ClipDecoder(Protocol):
    """What a backend does: for each geometry one clip, or the reason why not, for each window of a video.

    Geometries differ from each other. Raises SampleError where the whole file is at fault.
    """

    def __call__(
        self,
        source: VideoSource,
        sampling: Sampling,
        windows: Sequence[Window],
        geometries: Sequence[Geometry],
        *,
        limits: Limits | None = None,
    ) -> list[list[ClipOrError]]: ...


def read_clip(
    source: str | os.PathLike[str] | bytes,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    size: int | None = None,
    fit: str = "crop",
    backend: str = "pyav",
    limits: Limits | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a clip: `(uint8 [frames, height, width, 3], float64 [frames])`, upright RGB and times in seconds.

    `num_frames` (8 by default) are spread evenly over the shown frames, both ends included, and repeat when there are
    fewer; or `fps` frames a second. `start_s` and `end_s` are a window in seconds from the first shown frame, while the
    times returned are the file's own. `size=None` keeps native pixels; otherwise frames are made square: `crop` brings
    the shorter side to `size` and takes the centre, `squash` both sides, `pad` the longer one with black borders.

    A still image is a clip of one frame at 0 s. `source` is a path, or the bytes themselves. `backend` is `pyav` or
    `ffmpeg` (a subprocess of the `ffmpeg` on the PATH, whose scaling differs slightly).

    Raises SampleError for what cannot be read or is damaged, UsageError for options that make no sense.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    geometry = Geometry(size=size, fit=fit)
    if num_frames is None and fps is None:
        num_frames = DEFAULT_NUM_FRAMES
    sampling = Sampling(num_frames=num_frames, fps=fps)
    window = Window(start_s=start_s, end_s=end_s)
    video = VideoSource(data=source) if isinstance(source, bytes) else VideoSource(path=os.fspath(source))
    if is_still(_head(video)):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        clip = still_clip(decode_still(data, size=size, fit=fit), sampling, window)
    else:
        ((outcome,),) = decoder(backend)(video, sampling, (window,), (geometry,), limits=limits)
        if isinstance(outcome, SampleError):
            raise outcome
        clip = outcome
    return clip.frames, clip.pts_s


def decoder(backend: str) -> ClipDecoder:
    """The function that decodes videos by a backend's name."""
    if backend == "ffmpeg":
        from .ffmpeg_cli import decode_by_ffmpeg

        return decode_by_ffmpeg
    from .video import decode_video

    return decode_video


def still_clip(pixels: np.ndarray, sampling: Sampling, window: Window) -> DecodedClip:
    """A still image as a video of one frame, shown at 0 s. Raises SampleError for a window that begins later."""
    positions = sampling.positions(np.zeros(1), 0.0, window)
    return DecodedClip(frames=np.repeat(pixels[None], len(positions), axis=0), pts_s=np.zeros(len(positions)))


def _head(source: VideoSource) -> bytes:
    if not source.path:
        return source.data[:_HEAD_BYTES]
    try:
        if not source.num_bytes:
            return b""
        with Path(source.path).open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise SampleError("fetch", f"cannot read {source.path}: {error.strerror}", permanent=False) from error


def decoder_software(backend: str) -> dict[str, str]:
    """A backend's name and version."""
    if backend == "ffmpeg":
        from .ffmpeg_process import ffmpeg_version

        return ffmpeg_version()
    import av

    codec = ".".join(str(number) for number in av.library_versions["libavcodec"])
    return {"name": "pyav", "version": f"{codec} (PyAV {av.__version__})"}
