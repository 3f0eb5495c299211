"""What a decoder is spared: only packets that wanted frames need are decoded, where the table can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode import video as video_module
from fovcache.decode.clip import read_clip
from fovcache.decode.frame_table import FrameTable, read_table
from fovcache.decode.limits import Limits
from fovcache.decode.video_file import VideoSource, open_video

GOP = 25
B_FRAMES = {"num_b_frames": 3, "options": {"x264-params": "b-adapt=0:scenecut=0:b-pyramid=none"}}


@pytest.fixture
def table_of(tmp_path: Path) -> Callable[..., FrameTable]:
    def make(name: str, **what: Any) -> FrameTable:
        path = make_video(tmp_path / name, MadeVideo(num_frames=100, gop=GOP, **what))
        with open_video(VideoSource(path=str(path)), Limits()) as video:
            return read_table(video, Limits())

    return make


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_ordinary_videos_have_exact_tables_and_frames_to_pass_over(
    name: str, codec: str, table_of: Callable[..., FrameTable]
) -> None:
    options = {"x264-params": "scenecut=0"} if codec == "h264" else {"x265-params": "scenecut=0:open-gop=0"}
    table = table_of(name, codec=codec, num_b_frames=3, options=options)
    assert table.is_exact
    assert np.flatnonzero(table.is_key).tolist() == [0, 25, 50, 75]
    assert (~table.is_needed).mean() > 0.3


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("open.mp4", {"num_b_frames": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}}),
        ("open.mp4", {"codec": "hevc", "num_b_frames": 3, "options": {"x265-params": "open-gop=1:scenecut=0"}}),
        ("in_band.mp4", {"options": {"x264-params": "repeat-headers=1:scenecut=0"}}),
        ("a.webm", {"codec": "vp9"}),
        ("a.mp4", {"codec": "av1"}),
    ],
)
def test_decoding_can_begin_at_these_keyframes_too(
    name: str, what: dict[str, Any], table_of: Callable[..., FrameTable]
) -> None:
    table = table_of(name, **what)
    assert table.is_exact
    assert table.is_key.sum() >= 4


@pytest.mark.parametrize(
    "what",
    [
        {"options": {"intra-refresh": "1"}},
        {"width": 32, "height": 32, "options": {"intra-refresh": "1"}},
        {"codec": "hevc", "options": {"x265-params": "intra-refresh=1"}},
    ],
)
def test_an_intra_refresh_is_no_keyframe(what: dict[str, Any], table_of: Callable[..., FrameTable]) -> None:
    assert table_of("a.mp4", **what).is_key.sum() == 1


def test_nothing_is_passed_over_where_there_are_temporal_layers(table_of: Callable[..., FrameTable]) -> None:
    table = table_of("a.mp4", codec="hevc", num_b_frames=3, options={"x265-params": "temporal-layers=3"})
    assert table.is_exact
    assert table.is_needed.all()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "mpeg4"), ("a.ts", "h264"), ("a.webm", "vp8")]
)
def test_packets_that_cannot_be_trusted_are_not(name: str, codec: str, table_of: Callable[..., FrameTable]) -> None:
    assert not table_of(name, codec=codec).is_exact


@pytest.mark.parametrize(
    ("ask", "most"),
    [
        ({"num_frames": 1, "start_s": 2.04, "end_s": 2.1}, 2 + 1),  # a frame early in the third group
        ({"num_frames": 1, "start_s": 1.92, "end_s": 2.0}, 25 // 4 + 3),  # late in the second: its P-frames, and one
        ({"num_frames": 4}, 4 * (25 // 4 + 3)),
    ],
)
def test_only_what_is_needed_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any], most: int
) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(num_frames=100, gop=GOP, **B_FRAMES))
    decoded = []
    decode_run = video_module._decode_run

    def counted(*arguments: Any) -> Any:
        for frame in decode_run(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_module, "_decode_run", counted)
    monkeypatch.setattr(video_module, "_in_order", None)  # no way but the fast one
    read_clip(path, **ask)
    assert 0 < len(decoded) <= most


def test_packets_that_do_not_fit_in_memory_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", MadeVideo(num_frames=100, gop=GOP, **B_FRAMES))
    want = [read_clip(path, num_frames=num_frames) for num_frames in (1, 4, 13)]
    monkeypatch.setattr("fovcache.decode.frame_table._KEPT_BYTES", 1000)
    for num_frames, (frames, pts_s) in zip((1, 4, 13), want, strict=True):
        again = read_clip(path, num_frames=num_frames)
        assert np.array_equal(again[0], frames)
        assert np.array_equal(again[1], pts_s)


def test_frames_that_do_not_fit_in_memory_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.ts", MadeVideo(num_frames=50, num_b_frames=2))
    frames, pts_s = read_clip(path, num_frames=4)
    monkeypatch.setattr(video_module, "_KEPT_FRAME_BYTES", 10_000)
    again = read_clip(path, num_frames=4)
    assert np.array_equal(again[0], frames)
    assert np.array_equal(again[1], pts_s)
