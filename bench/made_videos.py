"""Small videos of every kind, encoded on the spot: for tests, and for measurements where no real clips are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer

ENCODERS: Mapping[str, str] = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "mpeg4": "mpeg4",
    "mjpeg": "mjpeg",
}
"""The encoder of each codec; other names are taken for encoders themselves."""

_QUICK: Mapping[str, Mapping[str, str]] = {
    "h264": {"preset": "veryfast", "threads": "1"},
    "hevc": {"preset": "veryfast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "vp8": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
    "av1": {"preset": "12", "svtav1-params": "lp=1"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeVideo:
    """What to make."""

    codec: str = "h264"
    """A key of `ENCODERS`, or an encoder's name."""
    width: int = 64
    """Pixels."""
    height: int = 48
    """Pixels."""
    num_frames: int = 30
    """Frames of the video stream."""
    rate: Fraction = Fraction(25)
    """Frames a second."""
    ticks: tuple[int, ...] = ()
    """When each frame is shown, in milliseconds; empty for a constant rate."""
    start_s: float = 0.0
    """When the first frame is shown, in the file's own time."""
    gop: int = 12
    """Frames from one keyframe to the next, at most."""
    num_b_frames: int = 0
    """B-frames between two others, at most."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options of the encoder; `x265-params` are added to those that keep it quiet."""
    pixel_format: str = "yuv420p"
    """As FFmpeg names it."""
    color_range: int = 0
    """1 limited, 2 full, 0 unsaid."""
    colorspace: int = 2
    """1 BT.709, 5 BT.601, 2 unsaid."""
    rotation: int = 0
    """Degrees by which players turn the frames, counter-clockwise."""
    sound_s: float = 0.0
    """Seconds of silence beside the pictures; 0 for no sound."""
    further_sizes: tuple[tuple[int, int], ...] = ()
    """Widths and heights of further video streams."""
    container: str = ""
    """FFmpeg's name of the container; empty to go by the path's suffix."""
    container_options: Mapping[str, str] = field(default_factory=dict)
    """Options of the container, such as movflags."""
    seed: int = 0
    """Of what is seen."""

    def __post_init__(self) -> None:
        assert self.num_frames >= 1, "a video has frames"
        assert self.codec != "hevc" or self.width >= 64, "x265 writes past its buffers in narrower pictures"
        assert not self.ticks or len(self.ticks) == self.num_frames, "each frame has its time"


def make_video(path: Path, what: MadeVideo | None = None) -> Path:
    """Encode a video to `path`. Returns it."""
    import av

    what = what or MadeVideo()
    with av.open(
        str(path), "w", format=what.container or None, container_options=dict(what.container_options)
    ) as container:
        sizes = ((what.width, what.height), *what.further_sizes)
        streams = [_add_stream(container, what, width, height) for width, height in sizes]
        sound = container.add_stream("aac", rate=8000) if what.sound_s else None
        for number, stream in enumerate(streams):
            for frame in _frames(what, *sizes[number], seed=what.seed + number):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if sound is not None:
            for silence in _silence(what):
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def pictures(num: int, width: int, height: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """uint8 [height, width, 3]: a texture that drifts and flickers, no two frames alike, so that a mix-up is seen."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (-(-height // 6) + 24, -(-width // 6) + 24, 3))
    texture = coarse.repeat(6, axis=0).repeat(6, axis=1)
    top = left = 60.0
    for number in range(num):
        down, right = generator.uniform(-3, 3, 2)
        top, left = float(np.clip(top + down, 0, 132)), float(np.clip(left + right, 0, 132))
        picture = texture[int(top) : int(top) + height, int(left) : int(left) + width]
        noise = generator.normal(number % 40 - 20, 3, picture.shape)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def _add_stream(container: OutputContainer, what: MadeVideo, width: int, height: int) -> Any:
    options = {"g": str(what.gop), "bf": str(what.num_b_frames), **_QUICK.get(what.codec, {})}
    for name, value in what.options.items():
        options[name] = f"{options[name]}:{value}" if name.endswith("-params") and name in options else value
    if what.codec in ("vp8", "vp9", "av1", "mjpeg"):
        del options["bf"]
    stream: Any = container.add_stream(ENCODERS.get(what.codec, what.codec), rate=what.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, what.pixel_format
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = stream.time_base = Fraction(1, 1000) if what.ticks else 1 / what.rate
    context.color_range, context.colorspace = what.color_range, what.colorspace
    if what.codec == "mjpeg":
        context.color_range = 2
    if what.rotation:
        stream.set_display_rotation(what.rotation)
    return stream


def _frames(what: MadeVideo, width: int, height: int, *, seed: int) -> Iterator[av.VideoFrame]:
    import av

    time_base = Fraction(1, 1000) if what.ticks else 1 / what.rate
    start = round(what.start_s / time_base)
    for number, picture in enumerate(pictures(what.num_frames, width, height, seed=seed)):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=what.pixel_format)
        frame.pts = start + (what.ticks[number] if what.ticks else number)
        frame.time_base = time_base
        yield frame


def _silence(what: MadeVideo) -> Iterator[av.AudioFrame]:
    import av

    for number in range(round(what.sound_s * 8000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = 8000, Fraction(1, 8000)
        frame.pts = round(what.start_s * 8000) + number * 1024
        yield frame
