"""Real clips, with what each is known for: every frame is a sequential decode's, bit for bit, upright, on time."""

from __future__ import annotations

import functools
import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from fovcache.decode.clip import read_clip
from fovcache.errors import SampleError

pytestmark = pytest.mark.needs_shared

NUM_SHOWN = {
    "01_dog.mp4": 289,
    "03_blocks.mp4": 292,
    "av1_video.mkv": 125,
    "discard_first_keyframe.mp4": 25,
    "flipping_a_pancake.mkv": 310,
    "h264_10bits.mp4": 30,
    "h265_video.mp4": 10,
    "nasa_13013.mp4": 390,
    "nasa_13013_rotated.mp4": 17,
    "test_non_zero_start.mp4": 12,
    "testsrc2_odd_height_and_width_vp9.mp4": 25,
}
"""The decodable clips and how many frames a player shows of each."""


@pytest.fixture(scope="module")
def clips(shared: Path) -> Path:
    return shared / "data" / "clips"


def picks_of(num_shown: int, num_frames: int) -> list[int]:
    n, N = num_shown, num_frames
    return [n // 2] if N == 1 else [Fraction(2 * i * (n - 1) + N - 1, 2 * (N - 1)).__floor__() for i in range(N)]


@functools.lru_cache(maxsize=1)
def shown_frames(path: Path) -> tuple[dict[int, av.VideoFrame], list[float]]:
    """Those frames of a full sequential decode that any of these tests wants, and the times of all."""
    wanted = {pick for N in (1, 4, 8, 13) for pick in picks_of(NUM_SHOWN[path.name], N)}
    frames, times_s = {}, []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 2
        for number, frame in enumerate(container.decode(stream)):
            times_s.append(float(frame.pts * stream.time_base))
            if number in wanted:
                frames[number] = frame
    return frames, times_s


def upright(frame: av.VideoFrame) -> np.ndarray:
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def test_all_clips_are_here(clips: Path) -> None:
    assert {path.name for path in clips.iterdir()} == {*NUM_SHOWN, "corrupted.mp4"}


@pytest.mark.parametrize("name", NUM_SHOWN)
def test_frames_are_those_of_a_sequential_decode(clips: Path, name: str) -> None:
    shown, times_s = shown_frames(clips / name)
    assert len(times_s) == NUM_SHOWN[name]
    for num_frames in (1, 4, 8, 13):
        frames, pts_s = read_clip(clips / name, num_frames=num_frames)
        picks = picks_of(len(times_s), num_frames)
        assert frames.dtype == np.uint8
        assert pts_s.dtype == np.float64
        for got, pick in zip(frames, picks, strict=True):
            assert np.array_equal(got, upright(shown[pick]))
        assert pts_s == pytest.approx([times_s[pick] for pick in picks], abs=1e-9)


@pytest.mark.parametrize("name", ["nasa_13013.mp4", "nasa_13013_rotated.mp4", "testsrc2_odd_height_and_width_vp9.mp4"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [64, 256])
def test_scaled_frames_are_swscales_bicubic(clips: Path, name: str, fit: str, size: int) -> None:
    shown, times_s = shown_frames(clips / name)
    frames, _ = read_clip(clips / name, num_frames=4, size=size, fit=fit)
    for got, pick in zip(frames, picks_of(len(times_s), 4), strict=True):
        frame = shown[pick]
        sides = np.array([frame.width, frame.height])
        if fit == "squash":
            width, height = size, size
        else:
            side = min(sides) if fit == "crop" else max(sides)
            width, height = (int(Fraction(int(each) * size, int(side)) + Fraction(1, 2)) for each in sides)
        scaled = frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
        scaled = np.rot90(scaled, frame.rotation // 90)
        down, right = (abs(length - size) // 2 for length in scaled.shape[:2])
        want = np.zeros((size, size, 3), np.uint8)
        if fit == "pad":
            want[down : down + scaled.shape[0], right : right + scaled.shape[1]] = scaled
        else:
            want = scaled[down : down + size, right : right + size]
        assert np.array_equal(got, want)


def test_a_rotated_clip_is_upright_as_ffmpeg_turns_it(clips: Path) -> None:
    frames, _ = read_clip(clips / "nasa_13013_rotated.mp4", num_frames=4)
    _, height, width, _ = frames.shape
    assert (height, width) == (480, 270)
    options = ["-v", "error", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]
    raw = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", clips / "nasa_13013_rotated.mp4", *options, "-"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    turned = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)[picks_of(17, 4)]
    # Two builds of swscale may differ by a level or two; a wrong turn differs by far more.
    assert np.abs(frames.astype(int) - turned).mean() < 2
    assert np.abs(frames[:, ::-1, ::-1].astype(int) - turned).mean() > 10


def test_the_best_stream_is_taken_and_not_the_first(clips: Path) -> None:
    with av.open(str(clips / "nasa_13013.mp4")) as container:
        first = container.streams.video[0]
        assert (first.width, first.height) == (320, 180)
    assert read_clip(clips / "nasa_13013.mp4", num_frames=1)[0].shape == (1, 270, 480, 3)


def test_frames_that_an_edit_list_hides_are_not_shown(clips: Path) -> None:
    with av.open(str(clips / "discard_first_keyframe.mp4")) as container:
        assert container.streams.video[0].frames == 30
    _, pts_s = read_clip(clips / "discard_first_keyframe.mp4", num_frames=25)
    assert len(set(pts_s)) == 25
    with pytest.raises(SampleError, match=re.escape("a window from 1.0 s")):
        read_clip(clips / "discard_first_keyframe.mp4", start_s=1.0)


def test_a_damaged_clip_is_refused_with_the_reason(clips: Path) -> None:
    with pytest.raises(SampleError, match=r"damaged: decoding fails after 2\.700 s: ") as caught:
        read_clip(clips / "corrupted.mp4", num_frames=8)
    assert caught.value.stage == "decode"
    assert caught.value.permanent


def test_times_are_the_files_own(clips: Path) -> None:
    assert read_clip(clips / "test_non_zero_start.mp4", num_frames=2)[1][0] > 8
