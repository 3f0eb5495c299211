"""Where a build's time went: each worker of each stage is accounted for, from the first to the last moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.builder.progress import Progress
from fovcache.builder.report import BuildReport

SLOW = """
import time


class Net(nn.Module):
    image_size = 16

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        time.sleep(0.02)
        return self.conv(x)


def make():
    return Net()
"""
NUM = 30
KEYS = {"id", "name", "resource", "workers", "n", "failed", "stuck", "total_s", "busy_s", "starved_s", "blocked_s"}
KEYS |= {"idle_s", "busy", "peak_queued", "peak_queued_bytes"}


@pytest.fixture
def source(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    """Stills, two videos and one that is none."""
    folder = make_images(tmp_path / "source", NUM - 3)
    for number in range(2):
        make_video(folder / f"{number}.mp4", MadeVideo(num_frames=10, seed=number))
    (folder / "none.mp4").write_text("no video")
    return folder


@pytest.fixture
def build(tmp_path: Path, source: Path, encoder_file: Callable[..., str]) -> Callable[..., BuildReport]:
    encoder, cache = encoder_file(SLOW), fovcache.open(tmp_path / "cache")
    options = {"encoder": encoder, "layers": ["conv"], "device": "cpu", "num_workers": 3, "batch_size": 4}
    return lambda **more: cache.build(str(source), **{**options, **more})


def test_each_worker_of_each_stage_is_accounted_for(build: Callable[..., BuildReport]) -> None:
    report = build()
    stages = report.document()["stages"]
    assert [(stage["id"], stage["resource"]) for stage in stages] == [
        ("fetch", "disk"),
        ("decode", "cpu"),
        ("encode", "cpu"),
        ("write", "disk"),
    ]
    by_id: dict[str, dict[str, Any]] = {stage["id"]: stage for stage in stages}
    assert {stage_id: (stage["workers"], stage["n"]) for stage_id, stage in by_id.items()} == {
        "fetch": (3, NUM),
        "decode": (3, NUM),
        "encode": (1, 7 + 1),
        "write": (1, 2),
    }
    wall_s = sum(by_id["write"][part] for part in ("busy_s", "starved_s", "blocked_s", "idle_s"))
    assert 0 < wall_s <= report.seconds
    for stage in stages:
        assert stage.keys() == KEYS
        parts = [stage[part] for part in ("busy_s", "starved_s", "blocked_s", "idle_s")]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(stage["workers"] * wall_s, rel=0.01)
        assert stage["total_s"] == stage["busy_s"] > 0
        assert stage["busy"] == pytest.approx(stage["busy_s"] / (stage["workers"] * wall_s), rel=0.01)
    assert by_id["encode"]["busy_s"] >= 0.02 * 8


def test_failures_are_counted_where_they_happen(build: Callable[..., BuildReport], source: Path) -> None:
    assert build().failed == 1
    assert build().stages == ()
    (stages,) = [{stage["id"]: stage for stage in build(retry_failed=True).stages}]
    assert stages["decode"]["n"] == 1


def test_progress_ends_with_all_samples_and_says_how_busy_the_stages_are(
    build: Callable[..., BuildReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fovcache.builder import blocks

    monkeypatch.setattr(blocks, "_SHOW_S", 0.0)
    seen: list[Progress] = []
    build(on_progress=seen.append)
    encoded = [progress for progress in seen if progress.stage == "encode"]
    assert [progress.done for progress in encoded] == sorted(progress.done for progress in encoded)
    assert (encoded[-1].done, encoded[-1].total) == (NUM, NUM)
    assert all(
        [part.split()[0] for part in progress.note.split(" · ")] == ["fetch", "decode", "encode", "write"]
        for progress in encoded
    )
