"""The benchmark of cached against online training, in small: what it compares is the same training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fovcache.bench.cached_online import (
    BAR,
    ONE_AT_A_TIME,
    OVERLAPPED,
    Request,
    build_clips,
    compare_rates,
    main,
    measure_divergence,
)
from fovcache.errors import UsageError
from fovcache.probes.train.config import CACHED

CLIPS = ("av1_video.mkv", "corrupted.mp4", "h265_video.mp4", "nasa_13013_rotated.mp4", "test_non_zero_start.mp4")


@pytest.mark.needs_shared
def test_cached_and_online_training_on_real_clips_are_the_same_training(tmp_path: Path, shared: Path) -> None:
    request = Request(
        sources=tuple(str(shared / "data" / "clips" / name) for name in CLIPS),
        encoder="vit-tiny",
        layer="blocks.0",
        size=32,
        frames=2,
        batch_size=2,
        device="cpu",
    )
    clips = build_clips(request, tmp_path)
    assert clips.num == len(CLIPS) - 1  # one does not decode, and is in neither
    same, rounded, apart = measure_divergence(request, clips, 2, 4)
    assert (same.distance, same.of_way) == (0, 0)
    assert same.losses[0] == same.losses[1]
    for each in (rounded, apart):
        assert 0 < each.distance < each.of_way < 1
    comparison = compare_rates(replace(request, device="auto"), clips, rounds=2, cached_steps=4, online_steps=1)
    assert "auto" not in comparison.title
    assert [timing.amount for timing in comparison.timings] == [8, 2, 2]
    assert [len(timing.seconds) for timing in comparison.timings] == [2, 2, 2]
    asked, reported = comparison.bars
    fastest = comparison.fastest([OVERLAPPED, ONE_AT_A_TIME])
    assert (asked.method, asked.other, asked.at_least) == (CACHED, fastest, BAR)
    assert (reported.method, reported.other, reported.at_least) == (CACHED, ONE_AT_A_TIME, None)


@pytest.mark.needs_shared
def test_its_files_are_named_after_the_head(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [str(shared / "data" / "clips" / name) for name in CLIPS]
    options = "--encoder vit-tiny --layer blocks.0 --size 32 --frames 1 --batch 2 --device cpu --rounds 1"
    steps = "--cached-steps 1 --online-steps 1 --same-steps 1 --apart-steps 1"
    monkeypatch.setattr("sys.argv", ["cached_online", *clips, *options.split(), *steps.split(), "--out", str(tmp_path)])
    main()
    name = "cached_online-projection"
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.json", f"{name}.md", f"{name}-apart.json"}
    assert json.loads((tmp_path / f"{name}.json").read_text())["benchmark"] == name


@pytest.mark.needs_shared
def test_too_few_clips_are_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = str(shared / "data" / "clips" / CLIPS[0])
    options = ["--encoder", "vit-tiny", "--layer", "blocks.0", "--size", "32", "--frames", "1", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["cached_online", clip, *options])
    with pytest.raises(UsageError, match="1 of the clips can be decoded, expected at least 6 clips"):
        main()
