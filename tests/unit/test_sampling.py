"""Which frames a clip is made of: the rules as they are written, and windows by a player's clock."""

from __future__ import annotations

import io
import math
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.decode.sampling import Sampling, Window, uniform_positions
from fovcache.decode.video import DecodedClip, decode_video
from fovcache.decode.video_file import VideoSource
from fovcache.errors import SampleError, UsageError


def by_the_design(n: int, N: int) -> list[int]:
    return [math.floor((2 * i * (n - 1) + N - 1) / (2 * (N - 1))) for i in range(N)] if N > 1 else [n // 2]


def times_of(num: int, rate: float = 25.0, start_s: float = 0.0) -> tuple[np.ndarray, float]:
    return start_s + np.arange(num) / rate, start_s + num / rate


def test_the_uniform_rule_is_the_designs() -> None:
    for n in range(1, 80):
        for N in range(1, 40):
            assert uniform_positions(n, N).tolist() == by_the_design(n, N)


@pytest.mark.parametrize(
    ("n", "N", "positions"),
    [
        (1, 1, [0]),
        (2, 1, [1]),
        (10, 1, [5]),
        (10, 2, [0, 9]),
        (10, 4, [0, 3, 6, 9]),
        (10, 3, [0, 5, 9]),
        (3, 8, [0, 0, 1, 1, 1, 1, 2, 2]),
        (1, 3, [0, 0, 0]),
        (9, 5, [0, 2, 4, 6, 8]),
    ],
)
def test_uniform_frames_include_both_ends_and_halves_go_up(n: int, N: int, positions: list[int]) -> None:
    assert uniform_positions(n, N).tolist() == positions


def test_counts_of_any_size_stay_exact() -> None:
    assert uniform_positions(10_000_001, 3).tolist() == [0, 5_000_000, 10_000_000]


@pytest.mark.parametrize(("fps", "num", "step"), [(25.0, 50, 1), (12.5, 25, 2), (1.0, 2, 25)])
def test_a_rate_takes_what_is_on_the_screen_at_each_tick(fps: float, num: int, step: int) -> None:
    times_s, end_s = times_of(50)
    assert Sampling(num_frames=None, fps=fps).positions(times_s, end_s).tolist() == list(range(0, num * step, step))


def test_a_rate_above_the_videos_own_repeats_frames() -> None:
    times_s, end_s = times_of(3)
    assert Sampling(num_frames=None, fps=50.0).positions(times_s, end_s).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_rate_follows_the_times_and_not_the_numbers() -> None:
    times_s = np.array([0.0, 0.1, 0.9, 1.0, 1.6])
    assert Sampling(num_frames=None, fps=2.0).positions(times_s, 2.0).tolist() == [0, 1, 3, 3]


@pytest.mark.parametrize("start_s", [0.0, 7.3])
def test_a_window_counts_from_the_first_shown_frame(start_s: float) -> None:
    times_s, end_s = times_of(100, start_s=start_s)
    sampling = Sampling(num_frames=3)
    assert sampling.positions(times_s, end_s, Window(start_s=1.0, end_s=2.0)).tolist() == [25, 37, 49]
    assert sampling.positions(times_s, end_s, Window(start_s=3.0)).tolist() == [75, 87, 99]
    assert sampling.positions(times_s, end_s, Window(end_s=0.4)).tolist() == [0, 5, 9]


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    times_s, end_s = times_of(10, rate=10.0)
    assert Sampling(num_frames=2).positions(times_s, end_s, Window(start_s=0.3, end_s=0.6)).tolist() == [3, 5]
    assert Sampling(num_frames=2).positions(times_s, end_s, Window(start_s=0.21, end_s=0.61)).tolist() == [3, 6]


def test_a_window_between_two_frames_is_what_the_screen_shows() -> None:
    times_s, end_s = times_of(10, rate=1.0)
    assert Sampling(num_frames=2).positions(times_s, end_s, Window(start_s=3.2, end_s=3.4)).tolist() == [3, 3]
    assert Sampling(num_frames=1).positions(times_s, end_s, Window(start_s=9.5)).tolist() == [9]


def test_a_window_that_begins_at_the_end_has_no_frames() -> None:
    times_s, end_s = times_of(10, rate=10.0, start_s=2.0)
    with pytest.raises(SampleError, match=r"a window from 1\.0 s of a video of 1\.000 s") as caught:
        Sampling(num_frames=2).positions(times_s, end_s, Window(start_s=1.0))
    assert caught.value.permanent


@pytest.mark.parametrize(
    "options",
    [
        {"num_frames": 0},
        {"num_frames": -1},
        {"num_frames": 4, "fps": 2.0},
        {"fps": 0.0},
        {"fps": math.nan},
        {"fps": -1.0},
        {"start_s": -1.0},
        {"start_s": 2.0, "end_s": 2.0},
        {"end_s": math.inf},
        {"start_s": math.nan},
        {"size": 0},
        {"size": -8},
        {"size": 10**6},
        {"backend": "none"},
        {"size": 8, "fit": "stretch"},
    ],
)
def test_options_that_make_no_sense_are_the_users(options: dict, plain: Path) -> None:
    with pytest.raises(UsageError):
        read_clip(plain, **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 frames at 25 a second, a keyframe every 12, B-frames, first shown at 1.6 s."""
    return make_video(
        tmp_path_factory.mktemp("plain") / "plain.mp4", MadeVideo(num_frames=50, num_b_frames=2, start_s=1.6)
    )


@pytest.fixture(scope="module")
def frames(plain: Path) -> list[np.ndarray]:
    with av.open(str(plain)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_windows_of_one_video_in_one_pass_are_each_alone(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"a{suffix}", MadeVideo(num_frames=50, num_b_frames=2))
    windows = [
        Window(start_s=0.4, end_s=0.9),
        Window(),
        Window(start_s=1.9),
        Window(start_s=9.0),  # beyond the end
        Window(start_s=0.5, end_s=0.51),
        Window(start_s=0.4, end_s=0.9),
    ]
    (together,) = decode_video(VideoSource(path=str(path)), Sampling(num_frames=4), windows)
    for window, clip in zip(windows, together, strict=True):
        if window.start_s == 9.0:
            assert isinstance(clip, SampleError)
            assert "a window from 9.0 s" in clip.reason
            continue
        assert isinstance(clip, DecodedClip)
        alone = read_clip(path, num_frames=4, start_s=window.start_s, end_s=window.end_s)
        assert np.array_equal(clip.frames, alone[0])
        assert np.array_equal(clip.pts_s, alone[1])


def test_times_are_the_files_own_and_windows_the_players(plain: Path, frames: list[np.ndarray]) -> None:
    got, pts_s = read_clip(plain, num_frames=2, start_s=0.4, end_s=0.8)
    assert np.array_equal(got, np.stack([frames[10], frames[19]]))
    assert pts_s == pytest.approx([1.6 + 0.4, 1.6 + 0.76])


def test_frames_repeat_where_there_are_too_few(plain: Path, frames: list[np.ndarray]) -> None:
    got, pts_s = read_clip(plain, num_frames=120)
    picks = by_the_design(50, 120)
    assert np.array_equal(got, np.stack([frames[pick] for pick in picks]))
    assert pts_s == pytest.approx([1.6 + pick / 25 for pick in picks])


def test_eight_frames_unless_asked_otherwise(plain: Path) -> None:
    assert len(read_clip(plain)[0]) == 8
    assert len(read_clip(plain, fps=5)[0]) == 10


def test_bytes_and_ranges_of_files_are_videos_too(plain: Path, frames: list[np.ndarray], tmp_path: Path) -> None:
    data = plain.read_bytes()
    assert np.array_equal(read_clip(data, num_frames=2)[0], np.stack([frames[0], frames[-1]]))
    (tmp_path / "a,b%d:c.tar").write_bytes(b"x" * 777 + data + data[:999])
    member = VideoSource(path=str(tmp_path / "a,b%d:c.tar"), offset=777, size=len(data))
    ((clip,),) = decode_video(member, Sampling(num_frames=2))
    assert isinstance(clip, DecodedClip)
    assert np.array_equal(clip.frames, np.stack([frames[0], frames[-1]]))


def test_a_still_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "still.mp4").write_bytes(buffer.getvalue())  # the content decides, not the name
    for source in (buffer.getvalue(), tmp_path / "still.mp4"):
        got, pts_s = read_clip(source, num_frames=3)
        assert np.array_equal(got, np.stack([pixels] * 3))
        assert pts_s.tolist() == [0.0] * 3
    assert read_clip(buffer.getvalue(), fps=5.0)[0].shape == (1, 20, 30, 3)
    assert read_clip(buffer.getvalue(), num_frames=2, size=16)[0].shape == (2, 16, 16, 3)
    with pytest.raises(SampleError, match="a window from"):
        read_clip(buffer.getvalue(), start_s=1.0)
