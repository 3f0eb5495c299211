"""The `ffmpeg` backend: the frames that PyAV gives, and its refusals, by the ffmpeg commands that are there."""

from __future__ import annotations

import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video, pictures
from fovcache.decode.clip import decoder_software
from fovcache.decode.ffmpeg_cli import decode_by_ffmpeg
from fovcache.decode.geometry import Geometry
from fovcache.decode.limits import Limits
from fovcache.decode.sampling import Sampling, Window
from fovcache.decode.video import DecodedClip, decode_video
from fovcache.decode.video_file import VideoSource
from fovcache.errors import SampleError, UsageError


def _executables() -> dict[str, str]:
    """Of the system and of imageio-ffmpeg."""
    found = {"system": shutil.which("ffmpeg")}
    try:
        import imageio_ffmpeg

        found["imageio"] = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        pass
    return {name: path for name, path in found.items() if path is not None}


EXECUTABLES = _executables()
TICKS = tuple(np.cumsum([5, 120, 33, 40, 17, 90] * 7).tolist())
KINDS: dict[str, tuple[str, MadeVideo]] = {
    "h264": ("a.mp4", MadeVideo(num_b_frames=3)),
    "late and uneven": ("a.mkv", MadeVideo(num_b_frames=2, ticks=TICKS, num_frames=len(TICKS), start_s=40.0)),
    "with sound": ("a.mov", MadeVideo(num_b_frames=2, rate=Fraction(30000, 1001), sound_s=2.0)),
    "vp9": ("a.webm", MadeVideo(codec="vp9")),
    "counted in avi": ("a.avi", MadeVideo(codec="mpeg4", num_b_frames=2)),
    "counted in ts": ("a.ts", MadeVideo(num_b_frames=2, start_s=1.6)),
    "bt709": ("a.mp4", MadeVideo(colorspace=1, color_range=1)),
}


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the names of KINDS."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for number, (name, (file, what)) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        made[name] = make_video(folder / str(number) / file, what)
    return made


@pytest.fixture(params=sorted(EXECUTABLES))
def executable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes one ffmpeg the only one on the PATH."""
    _put_on_path(EXECUTABLES[request.param], tmp_path, monkeypatch)


def _put_on_path(executable: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bin").mkdir()
    if executable is not None:
        (folder / "bin" / "ffmpeg").symlink_to(executable)
    monkeypatch.setenv("PATH", str(folder / "bin"))


def _difference(ours: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.int16) - others).mean())


@pytest.mark.usefixtures("executable")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [{"num_frames": 5}, {"fps": 7.0}, {"num_frames": 3, "start_s": 0.3, "end_s": 0.9}])
def test_the_same_frames(kind: str, asked: dict[str, Any], videos: dict[str, Path]) -> None:
    expected, pts_s = fovcache.read_clip(videos[kind], **asked)
    frames, own_pts_s = fovcache.read_clip(videos[kind], **asked, backend="ffmpeg")
    assert np.array_equal(own_pts_s, pts_s)
    assert frames.dtype == np.uint8
    assert frames.shape == expected.shape
    every, every_pts_s = fovcache.read_clip(videos[kind], num_frames=KINDS[kind][1].num_frames)
    for frame, time_s in zip(frames, pts_s, strict=True):
        differences = np.array([_difference(frame, other) for other in every])
        assert time_s in every_pts_s[differences == differences.min()]
        assert differences.min() <= 2


@pytest.mark.usefixtures("executable")
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_sizes_and_rotation(fit: str, rotation: int, tmp_path: Path) -> None:
    what = MadeVideo(width=98, height=62, rotation=rotation, num_frames=6, pixel_format="yuv444p")
    path = make_video(tmp_path / "a.mp4", what)
    for size in (None, 31):
        expected, _ = fovcache.read_clip(path, num_frames=2, size=size, fit=fit)
        frames, _ = fovcache.read_clip(path, num_frames=2, size=size, fit=fit, backend="ffmpeg")
        assert frames.shape == expected.shape
        assert _difference(frames, expected) <= 1.5
        assert _difference(frames[:, ::-1, ::-1], expected) > 15


@pytest.mark.usefixtures("executable")
def test_the_best_stream_is_not_the_first(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25, width=size, height=size) for size in (32, 48)]
        streams[1].disposition = Disposition.default
        for stream in streams:
            for picture in pictures(20, stream.width, stream.height):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")))
            container.mux(stream.encode(None))
    expected, _ = fovcache.read_clip(tmp_path / "a.mkv")
    frames, _ = fovcache.read_clip(tmp_path / "a.mkv", backend="ffmpeg")
    assert frames.shape == expected.shape == (8, 48, 48, 3)
    assert _difference(frames, expected) <= 2


@pytest.mark.usefixtures("executable")
def test_bytes_and_a_part_of_a_file(videos: dict[str, Path], tmp_path: Path) -> None:
    data = videos["h264"].read_bytes()
    (tmp_path / "a.tar").write_bytes(b"before" + data + b"after")
    expected, pts_s = fovcache.read_clip(videos["h264"], backend="ffmpeg")
    for source in (VideoSource(data=data), VideoSource(path=str(tmp_path / "a.tar"), offset=6, size=len(data))):
        ((clip,),) = decode_by_ffmpeg(source, Sampling())
        assert isinstance(clip, DecodedClip)
        assert np.array_equal(clip.frames, expected)
        assert np.array_equal(clip.pts_s, pts_s)


@pytest.mark.usefixtures("executable")
def test_more_frames_than_an_expression_holds(tmp_path: Path) -> None:
    what = MadeVideo(width=32, height=32, num_frames=1000, num_b_frames=2)
    source = VideoSource(path=str(make_video(tmp_path / "a.mp4", what)))
    for sampling in (Sampling(num_frames=500), Sampling(num_frames=999)):
        ((clip,),) = decode_by_ffmpeg(source, sampling)
        ((expected,),) = decode_video(source, sampling)
        assert isinstance(clip, DecodedClip)
        assert isinstance(expected, DecodedClip)
        assert np.array_equal(clip.pts_s, expected.pts_s)
        assert max(map(_difference, clip.frames, expected.frames)) <= 2  # no two of its frames are that near


def _damaged(path: Path) -> VideoSource:
    """Inside the second keyframe."""
    with av.open(str(path)) as container:
        _, hit = [packet for packet in container.demux(video=0) if packet.is_keyframe][:2]
    assert hit.pos is not None
    data = bytearray(path.read_bytes())
    data[hit.pos + 400 : hit.pos + 900] = bytes(500)
    return VideoSource(data=bytes(data))


@pytest.mark.usefixtures("executable")
def test_windows_of_a_damaged_video(videos: dict[str, Path]) -> None:
    source = _damaged(videos["h264"])
    windows = [Window(end_s=0.3), Window(start_s=0.1, end_s=0.4), Window(), Window(start_s=99.0)]
    both = list(
        zip(
            *decode_by_ffmpeg(source, Sampling(), windows),
            *decode_video(source, Sampling(), windows),
            strict=True,
        )
    )
    for ours, theirs in both[:2]:
        assert isinstance(ours, DecodedClip)
        assert isinstance(theirs, DecodedClip)
        assert np.array_equal(ours.pts_s, theirs.pts_s)
        assert _difference(ours.frames, theirs.frames) <= 2
    for ours, theirs in both[2:]:
        assert isinstance(ours, SampleError)
        assert isinstance(theirs, SampleError)
        assert ours.reason == theirs.reason


@pytest.mark.usefixtures("executable")
def test_a_damaged_video_that_has_to_be_counted(videos: dict[str, Path]) -> None:
    with pytest.raises(SampleError, match="damaged") as caught:
        decode_by_ffmpeg(_damaged(videos["counted in ts"]), Sampling(), [Window(end_s=0.1)])
    assert caught.value.permanent


@pytest.mark.usefixtures("executable")
def test_limits(videos: dict[str, Path]) -> None:
    source = VideoSource(path=str(videos["h264"]))
    with pytest.raises(SampleError, match="over the limit of 100 pixels"):
        decode_by_ffmpeg(source, Sampling(), limits=Limits(max_pixels=100))
    geometries = [Geometry(size=512), Geometry(size=16)]
    (large,), (small,) = decode_by_ffmpeg(source, Sampling(), geometries=geometries, limits=Limits(max_pixels=5000))
    assert "over the limit of 5000 pixels" in str(large)
    assert isinstance(small, DecodedClip)


@pytest.mark.needs_shared
@pytest.mark.usefixtures("executable")
def test_real_clips(shared: Path) -> None:
    paths = sorted((shared / "data/clips").iterdir())
    assert paths
    for path in paths:
        if path.name == "corrupted.mp4":
            with pytest.raises(SampleError, match="damaged"):
                fovcache.read_clip(path, backend="ffmpeg")
            continue
        expected, pts_s = fovcache.read_clip(path)
        frames, own_pts_s = fovcache.read_clip(path, backend="ffmpeg")
        assert np.array_equal(own_pts_s, pts_s)
        assert _difference(frames, expected) <= 3


@pytest.mark.usefixtures("executable")
def test_it_says_its_version() -> None:
    software = decoder_software("ffmpeg")
    assert software["name"] == "ffmpeg"
    assert any(character.isdigit() for character in software["version"])


def test_there_is_no_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, Path]) -> None:
    _put_on_path(None, tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"none: install it .* pip install imageio-ffmpeg, or use backend 'pyav'"):
        fovcache.read_clip(videos["h264"], backend="ffmpeg")


@pytest.mark.parametrize(
    ("script", "message"), [("echo hello", "is not ffmpeg, it says b'hello"), ("exit 3", "does not run .* status 3")]
)
def test_the_ffmpeg_on_the_path_is_none(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, Path]
) -> None:
    _put_on_path(_script(tmp_path, script), tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=message):
        fovcache.read_clip(videos["h264"], backend="ffmpeg")


def test_an_ffmpeg_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: dict[str, Path]) -> None:
    script = 'if [ "$1" = -version ]; then echo ffmpeg version 7.1; else exec /bin/sleep 60; fi'
    _put_on_path(_script(tmp_path, script), tmp_path, monkeypatch)
    with pytest.raises(SampleError, match=r"ffmpeg took longer than 0\.2 s") as caught:
        decode_by_ffmpeg(VideoSource(path=str(videos["h264"])), Sampling(), timeout_s=0.2)
    assert not caught.value.permanent


def _script(folder: Path, text: str) -> str:
    path = folder / "script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)
