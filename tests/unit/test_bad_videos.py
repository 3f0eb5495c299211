"""Files that are no videos, that lie, or that would have more read than themselves: one clear reason each."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.decode.limits import Limits
from fovcache.errors import SampleError

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of what getrusage says


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("whole") / "whole.mp4").read_bytes()


def refusal(path: Path, **options: object) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read_clip(path, **options)
    return caught.value


def refused(path: Path, **options: object) -> str:
    error = refusal(path, **options)
    assert (error.stage, error.permanent) == ("decode", True)
    return error.reason


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert refused(tmp_path / "a.mp4") == "the file is empty"


def test_text_named_as_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("not a video\n" * 100)
    assert "not a video that can be read" in refused(tmp_path / "a.mp4")


def test_a_file_cut_before_its_index(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    assert "not a video that can be read" in refused(tmp_path / "a.mp4")


def test_a_matroska_file_cut_in_its_midst_is_cut_off_though_nothing_fails(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", MadeVideo(num_frames=100))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert "s of the 4.00 s that it declares" in refused(path)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nother.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile other.mp4\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>other.mp4</BaseURL></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "dash", "sdp"],
)
def test_what_names_other_files_opens_none(tmp_path: Path, whole: bytes, text: str) -> None:
    (tmp_path / "other.mp4").write_bytes(whole)
    for name in ("a.mp4", "a.m3u8", "a.ffconcat"):
        (tmp_path / name).write_text(text)
        assert "not a video that can be read" in refused(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "a%03d.mp4",
        "http:x.mp4",
        "file:x.mp4",
        "concat:a|b.mp4",
        "pipe:0",
        "-i.mp4",
        "a,b;c.mp4",
        'it\'s "odd" .mp4',
        "é🎬",
    ],
)
def test_a_name_is_nothing_but_a_name(tmp_path: Path, whole: bytes, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(whole)
    assert read_clip(tmp_path / name, num_frames=2)[0].shape == (2, 48, 64, 3)
    monkeypatch.chdir(tmp_path)
    assert read_clip(name, num_frames=2)[0].shape == (2, 48, 64, 3)


def test_a_pattern_does_not_stand_for_other_files(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "a001.mp4").write_bytes(whole)
    assert "No such file" in refusal(tmp_path / "a%03d.mp4").reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8(tmp_path: Path, whole: bytes) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    Path(os.fsdecode(name)).write_bytes(whole)
    assert len(read_clip(os.fsdecode(name))[0]) == 8


def test_what_is_missing_may_come_back(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        error = refusal(path)
        assert (error.stage, error.permanent) == ("fetch", False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert "it is not a file" in refusal(tmp_path / "a.mp4").reason


def write_sound(path: Path, *options: str) -> Path:
    sound = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono"]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sound, *options, "-t", "1", str(path)]
    subprocess.run(ffmpeg, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


def test_sound_alone_has_no_frames(tmp_path: Path) -> None:
    assert refused(write_sound(tmp_path / "a.mp4")) == "it has no video stream; it has audio"


def test_the_cover_of_an_album_is_no_video(tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-i", "color=red:32x32:r=1:d=1", "-map", "0", "-map", "1", "-c:v", "mjpeg"]
    path = write_sound(tmp_path / "a.mp4", *picture, "-disposition:v:0", "attached_pic")
    assert refused(path) == "it has no video stream; it has a cover picture and audio"


@pytest.mark.parametrize(
    ("width", "height", "options"),
    [
        (1, 1, {"pixel_format": "yuv444p"}),
        (2, 2, {}),
        (3, 1, {"pixel_format": "yuv444p"}),
        (4096, 2, {}),
        (2, 2048, {}),
    ],
)
def test_the_smallest_and_the_thinnest_frames(tmp_path: Path, width: int, height: int, options: dict) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(width=width, height=height, num_frames=5, **options))
    with av.open(str(path)) as container:
        last = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]
    frames, _ = read_clip(path, num_frames=2)
    assert np.array_equal(frames[-1], last)
    for fit in ("crop", "squash", "pad"):
        assert read_clip(path, num_frames=2, size=16, fit=fit)[0].shape == (2, 16, 16, 3)


def test_scaling_a_thin_frame_does_not_make_it_huge(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(width=4096, height=2, num_frames=2))
    assert "is over the limit of" in refused(path, size=512)  # the shorter side to 512 would be 1,048,576 × 512


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_one_of_several_streams_is_read_that_which_ffmpeg_thinks_best(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"a{suffix}", MadeVideo(further_sizes=((96, 80), (80, 64))))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 3
        best = container.streams.best("video")
        want = [frame.to_ndarray(format="rgb24") for frame in container.decode(best)]
    assert np.array_equal(read_clip(path, num_frames=2)[0], np.stack([want[0], want[-1]]))


# What says that it is 16384 pixels wide and high, or nearly: the bytes to change in a small video.
def _large_jpeg(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"\xff\xc0\0\x11\x08", at + 1)) >= 0:
        data[at + 5 : at + 9] = b"\x3f\xf0\x3f\xf0"
    path.write_bytes(data)


def _large_vp8(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\x9d\1\x2a\x40\0\x30\0", b"\x9d\1\x2a\xf0\x3f\xf0\x3f"))


def _large_parameter_set(path: Path) -> None:
    """A sequence parameter set of 1024 × 1024 macroblocks, a picture parameter set and one slice, by H.264 7.3."""

    def ue(value: int) -> str:
        binary = f"{value + 1:b}"
        return "0" * (len(binary) - 1) + binary

    def unit(header: int, bits: str) -> bytes:
        bits += "1"
        bits += "0" * (-len(bits) % 8)
        return b"\0\0\0\1" + bytes([header]) + int(bits, 2).to_bytes(len(bits) // 8, "big")

    sequence = f"{66:08b}{0:08b}{51:08b}" + ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(1023) + ue(1023) + "1100"
    picture = ue(0) + ue(0) + "00" + ue(0) + ue(0) + ue(0) + "000" + ue(0) + ue(0) + ue(0) + "000"
    slice_ = ue(0) + ue(7) + ue(0) + "0000" + ue(0) + "00" + ue(0) + "10110" * 40
    path.write_bytes(unit(0x67, sequence) + unit(0x68, picture) + unit(0x65, slice_) * 4)


@pytest.mark.parametrize(
    ("suffix", "made", "enlarge"),
    [
        (".avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, _large_jpeg),
        (".mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}, _large_jpeg),
        (".webm", {"codec": "vp8"}, _large_vp8),
        (".h264", {}, _large_parameter_set),
    ],
    ids=["jpeg in avi", "jpeg in mov", "vp8", "h264"],
)
def test_a_huge_frame_is_refused_before_it_takes_memory(
    tmp_path: Path, suffix: str, made: dict, enlarge: Callable[[Path], None]
) -> None:
    small = make_video(tmp_path / "small.mp4")
    path = make_video(tmp_path / f"a{suffix}", MadeVideo(num_frames=10, **made))
    enlarge(path)
    script = f"""
import resource
from fovcache import FovcacheError, read_clip
read_clip({str(small)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_clip({str(path)!r})
except FovcacheError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    grown, _, reason = said.strip().partition(" ")
    assert reason.startswith("decode: ")
    assert int(grown) * RSS_UNIT < 100 << 20  # one such frame takes 400 MB


def test_a_long_video_at_a_high_rate_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(num_frames=2, ticks=(0, 20_000_000)))
    assert "at 1000.0 frames a second are more than 100000 frames" in refused(path, fps=1000.0)
    assert len(read_clip(path, fps=0.001)[0]) == 21


def test_limits_are_ones_own(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(num_frames=50))
    make_video(path.with_suffix(".avi"), MadeVideo(codec="mpeg4"))
    assert "64×48 is over the limit of 3071 pixels" in refused(path, limits=Limits(max_pixels=3071))
    assert "over the limit of 1 s" in refused(path, limits=Limits(max_duration_s=1.0))
    assert "more than 49 frames" in refused(path, limits=Limits(max_frames=49))
    nine = "a clip of 9 frames of 64×48 takes"
    assert nine in refused(path, num_frames=9, limits=Limits(max_clip_bytes=8 * 64 * 48 * 3))
    assert nine in refused(path.with_suffix(".avi"), num_frames=9, limits=Limits(max_clip_bytes=8 * 64 * 48 * 3))
    assert len(read_clip(path, limits=Limits(max_pixels=3072, max_duration_s=2.0, max_frames=50))[0]) == 8


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_video_of_very_many_frames_takes_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """100,000 frames of 2×2 pixels, a packet of one GOP over and over."""
    path = tmp_path / f"long{suffix}"
    one = make_video(tmp_path / f"one{suffix}", MadeVideo(width=16, height=16, num_frames=50, gop=50))
    with av.open(str(one)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(stream) if packet.size]
        for number in range(100_000):
            packet = av.Packet(packets[number % 50][0])
            packet.is_keyframe = packets[number % 50][1]
            packet.stream, packet.time_base = copy, Fraction(1, 25)
            packet.pts = packet.dts = number
            target.mux(packet)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames, pts_s = read_clip(path, num_frames=4)
    assert len(frames) == 4
    assert np.diff(pts_s) == pytest.approx(33333 / 25, abs=0.1)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * RSS_UNIT < 400 << 20
