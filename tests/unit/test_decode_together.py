"""Several inputs of one sample: what they share is decoded once, and what they do not is left to each."""

from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode import ffmpeg_process, isolate
from fovcache.decode import video as video_module
from fovcache.decode.clip import read_clip
from fovcache.decode.ffmpeg_cli import decode_by_ffmpeg
from fovcache.decode.geometry import Geometry
from fovcache.decode.isolate import IsolatedDecoder
from fovcache.decode.limits import Limits
from fovcache.decode.sampling import Sampling, Window
from fovcache.decode.video import DecodedClip, decode_video
from fovcache.decode.video_file import VideoSource
from fovcache.errors import SampleError
from fovcache.extract.clips import ClipInput
from fovcache.extract.frames import FrameInput
from fovcache.extract.together import read_together, read_windows_together

FOUR = Sampling(num_frames=4)
SPECS = [
    ClipInput(sampling=FOUR),
    ClipInput(size=24, short_side=30, sampling=FOUR),
    ClipInput(size=24, sampling=FOUR, mean=(0.5, 0.5, 0.5)),
    ClipInput(size=24, sampling=FOUR),
    ClipInput(size=31, fit="pad", interpolation="bilinear", sampling=FOUR),
]
WINDOWS = [Window(), Window(start_s=0.2, end_s=0.6)]


@pytest.fixture(params=["a.mp4", "a.ts"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> VideoSource:
    """With times that can be trusted, and with frames that must be counted."""
    return VideoSource(path=str(make_video(tmp_path / request.param, MadeVideo(num_frames=50, num_b_frames=3))))


@dataclass
class Calls:
    num: int = 0


def _count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Calls:
    """How often a function is called, or how many values an iterator of it gives."""
    calls = Calls()
    real = getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.num += 1
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


def _count_frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The times of all frames that PyAV decodes."""
    decoded: list[int] = []
    for name in ("_decode_run", "_frames"):
        real = getattr(video_module, name)

        def counted(*arguments: Any, real: Any = real) -> Any:
            for frame in real(*arguments):
                decoded.append(frame.pts)
                yield frame

        monkeypatch.setattr(video_module, name, counted)
    return decoded


def test_frames_are_decoded_once(video: VideoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = _count_frames(monkeypatch)
    opened = _count(monkeypatch, video_module, "open_video")
    SPECS[0].read_windows(video, WINDOWS)
    alone = list(decoded), opened.num
    assert alone[0]
    decoded.clear()
    opened.num = 0
    read_windows_together(SPECS, video, WINDOWS)
    assert (decoded, opened.num) == alone


def test_one_process_of_ffmpeg_scales_and_one_does_not(video: VideoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [replace(spec, backend="ffmpeg") for spec in SPECS]
    decode_by_ffmpeg(video, FOUR)  # which asks for its version, once
    started = _count(monkeypatch, ffmpeg_process.subprocess, "Popen")
    read_windows_together(specs[2:], video, WINDOWS)
    assert started.num == 1
    read_windows_together(specs, video, WINDOWS)
    assert started.num == 1 + 2


def test_one_question_to_a_process_that_decodes(video: VideoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _count(monkeypatch, isolate._Worker, "decode")
    with IsolatedDecoder(1, 60.0) as isolated:
        decode = functools.partial(isolated.decode, backend="pyav")
        specs = [replace(spec, decode=decode) for spec in SPECS]
        together = read_windows_together(specs, video, WINDOWS)
        assert asked.num == 1
    for ours, theirs in zip(together, read_windows_together(SPECS, video, WINDOWS), strict=True):
        assert all(map(np.array_equal, ours, theirs))


def _png(width: int = 60, height: int = 40) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def test_a_still_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _count(monkeypatch, Image, "open")
    stills = [
        FrameInput(),
        FrameInput(size=20),
        FrameInput(size=20, std=(1.0, 2.0, 3.0)),
        FrameInput(size=9, fit="pad"),
    ]
    items = read_together(stills, _png(), "a.png")
    assert opened.num == 1
    assert [item.shape for item in items] == [(1, 40, 60, 3), (1, 20, 20, 3), (1, 20, 20, 3), (1, 9, 9, 3)]


def test_inputs_of_equal_geometry_get_the_same_array(video: VideoSource) -> None:
    _, short, normalised, plain, _ = read_windows_together(SPECS, video, WINDOWS)
    for number in range(len(WINDOWS)):
        assert normalised[number] is plain[number]
        assert not np.shares_memory(short[number], plain[number])
    first, second = read_together([FrameInput(size=8), FrameInput(size=8, mean=(0.1, 0.2, 0.3))], _png(), "a.png")
    assert first is second


@pytest.mark.parametrize("backend", ["pyav", "ffmpeg"])
def test_a_clip_is_what_it_is_alone(video: VideoSource, backend: str) -> None:
    specs = [replace(spec, backend=backend) for spec in SPECS]
    for spec, items in zip(specs, read_windows_together(specs, video, WINDOWS), strict=True):
        for item, alone in zip(items, spec.read_windows(video, WINDOWS), strict=True):
            assert np.array_equal(item, alone)
    native, _ = read_clip(video.path, num_frames=4, backend=backend)
    assert np.array_equal(read_windows_together(specs, video, WINDOWS)[0][0], native)


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize("executable", sorted({shutil.which("ffmpeg"), imageio_ffmpeg.get_ffmpeg_exe()} - {None}))
def test_every_ffmpeg_gives_what_it_gives_alone(
    executable: str, rotation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mov", MadeVideo(width=98, height=62, num_b_frames=2, rotation=rotation))
    video = VideoSource(path=str(path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    large = Geometry(size=700, fit="squash")  # more than a pipe holds
    geometries = [large, *dict.fromkeys(spec.geometry for spec in SPECS), Geometry(size=90, short_side=100)]
    together = decode_by_ffmpeg(video, FOUR, WINDOWS, geometries)
    for geometry, clips in zip(geometries, together, strict=True):
        (alone,) = decode_by_ffmpeg(video, FOUR, WINDOWS, [geometry])
        for clip, other in zip(clips, alone, strict=True):
            assert isinstance(clip, DecodedClip)
            assert isinstance(other, DecodedClip)
            assert np.array_equal(clip.frames, other.frames)
            assert np.array_equal(clip.pts_s, other.pts_s)


class _OwnWay(ClipInput):
    """Reads in a way of its own."""

    def read_windows(self, source: VideoSource, windows: Sequence[Window]) -> list[np.ndarray | SampleError]:
        return [np.zeros((1, 1, 1, 3), np.uint8) for _ in windows]


class _OwnStill(FrameInput):
    """Reads in a way of its own."""

    def read(self, data: bytes, name: str) -> np.ndarray:
        return np.full((1, 1, 1, 3), len(name), np.uint8)


def test_what_differs_in_more_than_geometry_is_read_by_itself(video: VideoSource) -> None:
    eight = Sampling(num_frames=8)
    specs = [
        ClipInput(size=8, sampling=FOUR),
        _OwnWay(size=8, sampling=FOUR),
        ClipInput(size=8, sampling=eight),
        ClipInput(size=8, sampling=FOUR, limits=Limits(max_pixels=10)),
        ClipInput(size=9, sampling=FOUR),
    ]
    items = [each for (each,) in read_windows_together(specs, video, [Window()])]
    assert [getattr(item, "shape", None) for item in items] == [
        (4, 8, 8, 3),
        (1, 1, 1, 3),
        (8, 8, 8, 3),
        None,
        (4, 9, 9, 3),
    ]
    assert "over the limit of 10 pixels" in str(items[3])
    stills = read_together(
        [FrameInput(size=8), _OwnStill(size=8), ClipInput(sampling=FOUR), FrameInput()], _png(), "four"
    )
    assert stills[0].shape == (1, 8, 8, 3)
    assert stills[1].tolist() == [[[[4, 4, 4]]]]
    assert "not a video" in str(stills[2])
    assert stills[3].shape == (1, 40, 60, 3)


def test_videos_in_memory(video: VideoSource) -> None:
    data = Path(video.path).read_bytes()
    for spec, item in zip(SPECS, read_together(SPECS, data, "a.mp4"), strict=True):
        assert np.array_equal(item, spec.read(data, "a.mp4"))


@pytest.mark.parametrize("backend", ["pyav", "ffmpeg"])
def test_what_is_wrong_with_the_file_is_said_to_each(backend: str, tmp_path: Path) -> None:
    specs = [replace(spec, backend=backend) for spec in SPECS]
    whole = make_video(tmp_path / "a.mp4", MadeVideo(container_options={"movflags": "faststart"})).read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        with pytest.raises(SampleError) as caught:
            specs[0].read(data, "a.mp4")
        for error in read_together(specs, data, "a.mp4"):
            assert isinstance(error, SampleError)
            assert (error.reason, error.permanent) == (caught.value.reason, caught.value.permanent)
    ours = read_windows_together(specs, VideoSource(path=str(tmp_path / "none")), WINDOWS)
    assert [len(errors) for errors in ours] == [2] * len(specs)
    assert all(isinstance(error, SampleError) and not error.permanent for errors in ours for error in errors)


@pytest.mark.parametrize("decode", [decode_video, decode_by_ffmpeg])
def test_one_geometry_is_refused_and_the_others_are_not(decode: Any, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(width=128, height=32, num_frames=10))
    geometries = [Geometry(size=8), Geometry(size=64), Geometry(size=8, short_side=60), Geometry(size=64, fit="pad")]
    small, large, short, padded = decode(
        VideoSource(path=str(path)), FOUR, WINDOWS[:1], geometries, limits=Limits(max_pixels=64 * 64)
    )
    assert isinstance(small[0], DecodedClip)
    assert isinstance(padded[0], DecodedClip)
    assert "128×32 scaled to 256×64 is over the limit of 4096 pixels" in str(large[0])
    assert "128×32 scaled to 240×60 is over the limit of 4096 pixels" in str(short[0])


@pytest.mark.parametrize("decode", [decode_video, decode_by_ffmpeg])
def test_the_bytes_of_all_clips_count_together(decode: Any, video: VideoSource) -> None:
    geometries = [Geometry(size=16), Geometry(size=17), Geometry(size=90)]
    both = 3 * 4 * (16**2 + 17**2)

    def read(num: int, max_clip_bytes: int) -> list[DecodedClip | SampleError]:
        limits = Limits(max_clip_bytes=max_clip_bytes)
        return [clip for (clip,) in decode(video, FOUR, WINDOWS[:1], geometries[:num], limits=limits)]

    first, second, third = read(3, both)
    assert isinstance(first, DecodedClip)
    assert isinstance(second, DecodedClip)
    assert isinstance(third, SampleError)
    assert "4 frames of 90×90 takes" in third.reason
    assert third.permanent
    for refused in read(2, both - 1):
        assert isinstance(refused, SampleError)
        assert "4 frames in 2 sizes takes" in refused.reason
        assert "build one encoder at a time" in refused.reason
        assert not refused.permanent
    assert isinstance(read(1, both - 1)[0], DecodedClip)


def test_frames_of_two_sizes_are_refused_to_those_who_want_them_as_they_are(tmp_path: Path) -> None:
    pictures = []
    for width in (32, 48):
        target = io.BytesIO()
        Image.new("RGB", (width, 32), (width, 0, 0)).save(target, "JPEG")
        pictures.append(target.getvalue())
    path = tmp_path / "a.avi"
    make_video(path, MadeVideo(codec="mjpeg", width=32, height=32, num_frames=2, pixel_format="yuvj420p"))
    import av

    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, (packet, picture) in enumerate(zip(source.demux(video=0), pictures, strict=False)):
            changed = av.Packet(picture)
            changed.stream, changed.time_base, changed.is_keyframe = stream, packet.time_base, True
            changed.pts = changed.dts = number
            target.mux(changed)
    specs = [ClipInput(sampling=FOUR), ClipInput(size=16, sampling=FOUR)]
    (native,), (sized,) = read_windows_together(specs, VideoSource(path=str(tmp_path / "b.mkv")), [Window()])
    assert "change their size on the way" in str(native)
    assert sized.shape == (4, 16, 16, 3)
