"""What containers and streams say beside the frames: turns, cuts, colours, packed frames, changes on the way."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.errors import SampleError


def sequential(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All frames as stored, and when they are shown."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        frames = [(frame.to_ndarray(format="rgb24"), frame.pts) for frame in container.decode(stream)]
        times_s = [float((pts or 0) * stream.time_base) for _, pts in frames]
    return np.stack([frame for frame, _ in frames]), np.array(times_s)


def assert_all_frames_are(path: Path, want: np.ndarray, times_s: np.ndarray) -> None:
    for num_frames in (1, 3, 7, len(want)):
        n, N = len(want), num_frames
        picks = [n // 2] if N == 1 else [(2 * i * (n - 1) + N - 1) // (2 * (N - 1)) for i in range(N)]
        frames, pts_s = read_clip(path, num_frames=num_frames)
        assert np.array_equal(frames, want[picks])
        assert pts_s == pytest.approx(times_s[picks], abs=1e-6)


def ffmpeg(*arguments: object) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL).stdout


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270, -90])
def test_frames_are_turned_as_a_player_turns_them(tmp_path: Path, suffix: str, rotation: int) -> None:
    path = make_video(tmp_path / f"a{suffix}", MadeVideo(rotation=rotation, num_frames=10, num_b_frames=2))
    stored, times_s = sequential(path)
    assert_all_frames_are(path, np.rot90(stored, rotation // 90, axes=(1, 2)), times_s)
    frames, _ = read_clip(path, num_frames=10)
    shown = ffmpeg("-i", path, "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-f", "rawvideo", "-")
    turned = np.frombuffer(shown, np.uint8).reshape(frames.shape).astype(int)
    assert np.abs(turned - frames).mean() < 3  # two builds of swscale
    assert np.abs(turned - frames[:, ::-1, ::-1]).mean() > 20
    assert read_clip(path, num_frames=1, size=32)[0].shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("color_range", "colorspace", "pixel_format"),
    [
        (1, 1, "yuv420p"),
        (2, 1, "yuv420p"),
        (1, 5, "yuv420p"),
        (2, 5, "yuv420p"),
        (1, 1, "yuv420p10le"),
        (2, 5, "yuv444p"),
    ],
)
def test_colours_are_those_that_the_stream_names(
    tmp_path: Path, color_range: int, colorspace: int, pixel_format: str
) -> None:
    what = MadeVideo(color_range=color_range, colorspace=colorspace, pixel_format=pixel_format, num_frames=10)
    path = make_video(tmp_path / "a.mp4", what)
    assert_all_frames_are(path, *sequential(path))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("start_s", [0.3, 1.1, 1.5])
def test_a_cut_without_encoding_hides_what_lies_before_it(tmp_path: Path, codec: str, start_s: float) -> None:
    whole = make_video(tmp_path / "whole.mp4", MadeVideo(codec=codec, num_frames=75, gop=25, num_b_frames=3))
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", start_s, "-i", whole, "-c", "copy", cut)
    shown, times_s = sequential(cut)
    assert len(shown) < 75
    with av.open(str(cut)) as container:
        num_packets = sum(packet.size > 0 for packet in container.demux(video=0))
    assert num_packets > len(shown), "the cut hides nothing"
    assert_all_frames_are(cut, shown, times_s)


def join(path: Path, *parts: Path) -> Path:
    """Encodings one after another in a track that is described as the first of them."""
    with av.open(str(path), "w") as target:
        copy, start = None, 0
        for part in parts:
            with av.open(str(part)) as source:
                stream = source.streams.video[0]
                copy = copy or target.add_stream_from_template(stream)
                packets = [packet for packet in source.demux(stream) if packet.size]
                for packet in packets:
                    packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, copy
                    target.mux(packet)
                start += 40 * len(packets)
    return path


def test_parameter_sets_that_change_on_the_way(tmp_path: Path) -> None:
    """The second half's have the number of the first's and say something else."""
    first = make_video(tmp_path / "1.mkv", MadeVideo(num_frames=20, options={"x264-params": "qp=30"}))
    other = {"x264-params": "qp=20:cabac=0:repeat-headers=1"}
    second = make_video(tmp_path / "2.mkv", MadeVideo(num_frames=20, options=other, seed=1))
    path = join(tmp_path / "a.mkv", first, second)
    shown, times_s = sequential(path)
    assert len(shown) == 40
    assert_all_frames_are(path, shown, times_s)
    assert np.array_equal(read_clip(path, num_frames=1, start_s=0.04, end_s=0.05)[0][0], shown[1])


def test_frames_of_two_sizes_need_a_size(tmp_path: Path) -> None:
    first = make_video(tmp_path / "1.mkv", MadeVideo(num_frames=20))
    wide = MadeVideo(num_frames=20, width=96, options={"x264-params": "repeat-headers=1"})
    path = join(tmp_path / "a.mkv", first, make_video(tmp_path / "2.mkv", wide))
    with pytest.raises(SampleError, match="change their size on the way; set a size"):
        read_clip(path, num_frames=2)
    assert read_clip(path, num_frames=2, size=32)[0].shape == (2, 32, 32, 3)
    assert read_clip(path, num_frames=2, end_s=0.7)[0].shape == (2, 48, 64, 3)


def vop_type(data: bytes) -> int:
    return data[data.index(b"\0\0\1\xb6") + 4] >> 6


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_packed_frames_are_unpacked(tmp_path: Path, suffix: str) -> None:
    """As XviD and DivX wrote them: a B-frame in the packet of the frame before it, then a packet that stands for it."""
    plain = make_video(tmp_path / "plain.mp4", MadeVideo(codec="mpeg4", num_frames=25, num_b_frames=1))
    want, _ = sequential(plain)
    path = tmp_path / f"packed{suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [(bytes(packet), packet.is_keyframe) for packet in source.demux(stream) if packet.size]
        copy = target.add_stream_from_template(stream)
        marked = [(b"\0\0\1\xb2DivX503b1393p" + packets[0][0], True), *packets[1:]]
        packed: list[tuple[bytes, bool]] = []
        for data, is_key in marked:
            if vop_type(data) == 2:  # a B-frame
                packed[-1] = (packed[-1][0] + data, packed[-1][1])
                packed.append((b"\0\0\1\xb6\x58\x00", False))  # "not coded"
            else:
                packed.append((data, is_key))
        for number, (data, is_key) in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = copy, Fraction(1, 25), is_key
            packet.pts = packet.dts = number
            target.mux(packet)
    shown, _ = sequential(path)
    assert len(shown) >= len(want) - 1
    frames, pts_s = read_clip(path, num_frames=len(shown))
    assert np.array_equal(frames, shown)
    assert (np.diff(pts_s) > 0).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_sound_that_goes_on_after_the_pictures_is_no_damage(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"a{suffix}", MadeVideo(num_frames=25, sound_s=5.0))
    assert_all_frames_are(path, *sequential(path))
