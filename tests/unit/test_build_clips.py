"""Building over videos and stills: what rows are made of, what a key is made of, and what is never done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.builder.report import BuildReport
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.errors import SelectionError, UsageError
from fovcache.maintain.estimate import estimate
from fovcache.maintain.explain import ExplainReport, explain
from fovcache.maintain.export import export
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.repair import repair
from fovcache.maintain.verify import verify

SIZE = 24
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
# The rows of `pixels` are what the encoder was fed.
PIXELS = f"""
class Net(nn.Module):
    image_size, image_mean, image_std = {SIZE}, {MEAN}, {STD}

    def __init__(self):
        super().__init__()
        self.pixels = nn.Identity()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 4, 5)

    def forward(self, x):
        return self.head(self.pixels(x))


def make():
    return Net()
"""
NUM_SHOWN = {"long.mp4": 30, "odd.mkv": 17, "short.webm": 5}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos at 25 frames a second."""
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "long.mp4", MadeVideo(num_frames=30, num_b_frames=2, seed=1))
    make_video(folder / "odd.mkv", MadeVideo(num_frames=17, width=34, height=50, seed=2))
    make_video(folder / "short.webm", MadeVideo(num_frames=5, codec="vp8", seed=3))
    return folder


@pytest.fixture
def mixed(tmp_path: Path, videos: Path, make_images: Callable[..., Path]) -> Path:
    """The videos, and two stills."""
    folder = make_images(tmp_path / "mixed", 2, size=40)
    for path in videos.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def encoder(encoder_file: Callable[..., str]) -> str:
    return encoder_file(PIXELS)


@pytest.fixture
def cache(tmp_path: Path) -> fovcache.Cache:
    return fovcache.open(tmp_path / "cache")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are opened from now on."""
    found: list[str] = []
    really = av.open

    def note(file: Any, *args: Any, **options: Any) -> Any:
        found.append(str(file))
        return really(file, *args, **options)

    monkeypatch.setattr(av, "open", note)
    return found


@pytest.fixture
def build(cache: fovcache.Cache, encoder: str) -> Callable[..., BuildReport]:
    """Build `pixels`, whole, on the CPU."""
    common = {"encoder": encoder, "layers": ["pixels"], "pool": "tokens", "store_dtype": "fp32", "device": "cpu"}
    return lambda source, **more: cache.build(str(source), **{**common, "num_workers": 2, **more})


def fed(path: Path, **ask: Any) -> torch.Tensor:
    """What an encoder is fed of a video: float32 [frames, 3, height, width]."""
    frames, _ = fovcache.read_clip(path, size=SIZE, **ask)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32) / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def rows_by_uri(features: fovcache.FeatureSet) -> dict[str, torch.Tensor]:
    return {uri: features.subset([at]).tensors()[0][0] for at, uri in enumerate(features.uris)}


def recipes(report: BuildReport) -> dict[str, str]:
    """The digests of the recipes of stills and clips."""
    return dict(zip(("stills", "clips"), report.recipes, strict=True))


@pytest.mark.parametrize(("ask", "num"), [({}, 8), ({"frames": 3}, 3), ({"frames": 1}, 1), ({"frames": 40}, 40)])
def test_rows_are_the_frames_of_the_clip_encoded(
    build: Callable[..., BuildReport], cache: fovcache.Cache, videos: Path, ask: dict[str, int], num: int
) -> None:
    report = build(videos, **ask)
    assert (report.samples, report.computed, report.failed) == (3, 3, 0)
    features = cache.features()
    assert features.shape == (3, num, 3, SIZE, SIZE)
    rows = rows_by_uri(features)
    for name in NUM_SHOWN:
        assert torch.equal(rows[name], fed(videos / name, num_frames=num)), name


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_a_rate_gives_rows_of_unequal_length_in_one_feature_set(
    build: Callable[..., BuildReport], cache: fovcache.Cache, videos: Path, decoder: str
) -> None:
    report = build(videos, fps=10, decoder=decoder)
    assert (report.computed, report.failed) == (3, 0)
    features = cache.features()
    rows = rows_by_uri(features)
    assert {name: len(row) for name, row in rows.items()} == {"long.mp4": 12, "odd.mkv": 7, "short.webm": 2}
    for name, row in rows.items():
        assert torch.equal(row, fed(videos / name, fps=10, backend=decoder)), name
    with pytest.raises(SelectionError, match="3 shapes"):
        features.tensors()


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_the_geometry_is_that_of_the_clip(
    build: Callable[..., BuildReport], cache: fovcache.Cache, videos: Path, fit: str
) -> None:
    build(videos, fit=fit, frames=2)
    for name, row in rows_by_uri(cache.features()).items():
        assert torch.equal(row, fed(videos / name, num_frames=2, fit=fit)), name


def test_a_pooled_layer_keeps_its_frames(cache: fovcache.Cache, videos: Path, encoder: str, tmp_path: Path) -> None:
    cache.build(str(videos), encoder=encoder, layers=["head"], store_dtype="fp32", device="cpu")
    features = cache.features()
    assert features.shape == (3, 8, 4)
    namespace: dict[str, Any] = {}
    exec((tmp_path / "encoder" / "encoder.py").read_text(), namespace)  # noqa: S102 - the encoder above
    with torch.inference_mode():
        for name, row in rows_by_uri(features).items():
            expected = namespace["make"]()(fed(videos / name)).mean((2, 3))
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)


def test_a_mixed_folder_has_two_recipes_in_one_dataset(
    build: Callable[..., BuildReport], cache: fovcache.Cache, mixed: Path
) -> None:
    report = build(mixed)
    assert (report.samples, report.computed, report.failed) == (5, 5, 0)
    assert len(set(report.recipes)) == 2
    assert len(report.features) == len({row["digest"] for row in report.features}) == 2
    stills, clips = (cache.features(recipe=recipe) for recipe in report.recipes)
    assert stills.shape == (2, 3, SIZE, SIZE)
    assert clips.shape == (3, 8, 3, SIZE, SIZE)
    assert stills.uris == ["0000.png", "0001.png"]
    assert sorted(clips.uris) == sorted(NUM_SHOWN)
    with pytest.raises(SelectionError, match="2 features of dataset 'mixed' fit; they differ in recipe"):
        cache.features()
    again = build(mixed)
    assert (again.computed, again.reused, again.recipes) == (0, 5, report.recipes)


def test_only_what_a_source_holds_is_reported(
    build: Callable[..., BuildReport], videos: Path, mixed: Path, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    stills, clips = build(mixed).recipes
    assert build(videos).recipes == (clips,)
    assert build(make_images(tmp_path / "stills", 2)).recipes == (stills,)


@pytest.mark.parametrize("change", [{"frames": 4}, {"fps": 5.0}, {"decoder": "ffmpeg"}])
def test_stills_know_nothing_of_frames(build: Callable[..., BuildReport], mixed: Path, change: dict[str, Any]) -> None:
    first = build(mixed)
    second = build(mixed, **change)
    assert recipes(second)["stills"] == recipes(first)["stills"]
    assert recipes(second)["clips"] != recipes(first)["clips"]
    assert (second.computed, second.reused, second.failed) == (3, 2, 0)


def test_the_default_said_aloud_is_a_hit(build: Callable[..., BuildReport], videos: Path) -> None:
    first = build(videos)
    second = build(videos, frames=8, fit="crop", size=SIZE, decoder="pyav")
    assert (second.recipes, second.computed, second.reused) == (first.recipes, 0, 3)


def test_a_second_build_opens_no_video_and_runs_no_stage(
    build: Callable[..., BuildReport], mixed: Path, opened: list[str]
) -> None:
    assert build(mixed).stages
    assert len(opened) >= 3
    opened.clear()
    second = build(mixed)
    assert (second.computed, second.reused, second.stages) == (0, 5, ())
    assert opened == []


def ask(cache: fovcache.Cache, source: Path, encoder: str, **changes: Any) -> ExplainReport:
    common = {"encoder": encoder, "layers": ("pixels",), "pool": "tokens", "store_dtype": "fp32"}
    return explain(cache.storage, [str(source)], EncoderRequest(**{**common, **changes}), BuildOptions())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"frames": 4}, "input.clip.frames"),
        ({"fps": 8.0}, "input.clip.frames"),
        ({"decoder": "ffmpeg"}, "input.clip.decoder.name"),
        ({"size": 20}, "input.clip.size"),
        ({"fit": "pad"}, "input.clip.fit"),
    ],
)
def test_a_change_of_the_clip_is_a_miss_and_named(
    build: Callable[..., BuildReport],
    cache: fovcache.Cache,
    videos: Path,
    encoder: str,
    changes: dict[str, Any],
    field: str,
    opened: list[str],
) -> None:
    build(videos)
    assert ask(cache, videos, encoder).hits == 3
    opened.clear()
    report = ask(cache, videos, encoder, **changes)
    assert (report.hits, report.misses) == (0, 3)
    ((_, verdict),) = report.groups()
    assert verdict.field == field
    assert opened == []


def test_equal_videos_are_decoded_once(
    build: Callable[..., BuildReport], cache: fovcache.Cache, tmp_path: Path, videos: Path
) -> None:
    folder = tmp_path / "twice"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "clip.mp4").write_bytes((videos / "long.mp4").read_bytes())
    report = build(folder)
    assert (report.samples, report.computed, report.reused) == (2, 1, 1)
    features = cache.features()
    assert features.uris == ["a/clip.mp4", "b/clip.mp4"]
    assert torch.equal(*features.tensors()[0])
    assert features.classes == ("a", "b")


def test_what_is_no_video_is_a_row_of_the_ledger(build: Callable[..., BuildReport], videos: Path, mixed: Path) -> None:
    whole = (videos / "long.mp4").read_bytes()
    (mixed / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (mixed / "empty.mp4").write_bytes(b"")
    (mixed / "text.mkv").write_text("this is a text")
    for computed in (5, 0):
        report = build(mixed)
        assert (report.computed, report.failed, report.exit_status) == (computed, 3, 1)
        failures = {item.uri: (item.stage, item.permanent) for item in report.failures}
        assert failures == dict.fromkeys(("cut.mp4", "empty.mp4", "text.mkv"), ("decode", True))
        assert all(item.reason for item in report.failures)
    assert not build(videos).failures


def test_estimate_counts_frames(cache: fovcache.Cache, videos: Path, encoder: str) -> None:
    request = EncoderRequest(encoder=encoder, layers=("pixels",), pool="tokens", store_dtype="fp32", frames=5)
    found = estimate([str(videos)], request, BuildOptions(device="cpu"), cache.storage)
    row_bytes = 5 * 3 * SIZE * SIZE * 4
    assert (found.samples, found.to_compute, found.row_bytes) == (3, 3, row_bytes)
    assert found.total_bytes == 3 * (row_bytes + 32)
    cache.build(str(videos), encoder=encoder, layers=["pixels"], pool="tokens", store_dtype="fp32", frames=5)
    assert estimate([str(videos)], request, BuildOptions(device="cpu"), cache.storage).to_compute == 0


@pytest.mark.parametrize("ask", [{}, {"fps": 10.0}, {"decoder": "ffmpeg", "frames": 2}])
def test_what_is_lost_comes_back_bit_by_bit(
    build: Callable[..., BuildReport], cache: fovcache.Cache, mixed: Path, ask: dict[str, Any]
) -> None:
    build(mixed, batch_size=2, shard_bytes=40_000, **ask)
    root = cache.storage.root
    names = [*cache.storage.list("shards"), *cache.storage.list("manifests")]
    before = {name: (root / name).read_bytes() for name in names if name.startswith("shards")}
    recomputed = recompute_some(cache.storage, 5, device="cpu")
    assert (recomputed["samples"], recomputed["largest"], recomputed["skipped"]) == (5, {"fp32": 0.0}, ())
    for name, data in before.items():
        (root / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert {item.file for item in verify(cache.storage).damaged} == before.keys()
    report = repair(cache.storage, device="cpu")
    assert (report.unrepaired, report.recomputed) == ((), 5)
    assert {name: (root / name).read_bytes() for name in cache.storage.list("shards")} == before
    assert not verify(cache.storage).damaged
    assert build(mixed, **ask).computed == 0


def test_clips_are_exported_and_loaded(
    build: Callable[..., BuildReport], cache: fovcache.Cache, videos: Path, tmp_path: Path
) -> None:
    import h5py

    build(videos, frames=4)
    features = cache.features()
    x, _ = features.tensors()
    batches = [batch for batch, _ in features.loader(batch_size=2)]
    assert [tuple(batch.shape[:2]) for batch in batches] == [(2, 4), (1, 4)]
    assert torch.equal(torch.cat(batches), x)
    report = export(cache.storage, features, tmp_path / "clips.h5")
    assert report.shape == (3, 4, 3, SIZE, SIZE)
    with h5py.File(tmp_path / "clips.h5") as file:
        assert np.array_equal(file["x"], x.numpy())


def test_the_command_says_the_same(cache: fovcache.Cache, mixed: Path, encoder: str, tmp_path: Path) -> None:
    (mixed / "text.mkv").write_text("this is a text")
    command = [str(Path(sys.executable).with_name("fovcache")), "build", str(mixed), "--encoder", encoder]
    command += ["--cache", str(cache.storage.root), "--layers", "pixels", "--pool", "tokens", "--store-dtype", "fp32"]
    command += ["--device", "cpu", "--frames", "2", "--workers", "2", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    assert "6 samples; 5 computed, 0 reused, 1 failed" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    stills, clips = (cache.features(recipe=recipe) for recipe in report["recipes"])
    assert stills.shape == (2, 3, SIZE, SIZE)
    assert clips.shape == (3, 2, 3, SIZE, SIZE)
    assert torch.equal(rows_by_uri(clips)["odd.mkv"], fed(mixed / "odd.mkv", num_frames=2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": 0}, "num_frames is 0"),
        ({"frames": 4, "fps": 2.0}, "expected one of the two"),
        ({"fps": -1.0}, "fps is -1"),
        ({"decoder": "gstreamer"}, "decoder 'gstreamer' is not one of pyav, ffmpeg"),
    ],
)
def test_what_makes_no_sense_is_refused(
    build: Callable[..., BuildReport], videos: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        build(videos, **options)


def test_limits_refuse_and_are_tried_again_when_they_change(
    build: Callable[..., BuildReport], videos: Path, opened: list[str]
) -> None:
    from fovcache.decode.limits import Limits

    tight = build(videos, limits=Limits(max_duration_s=1.0))
    assert [(item.uri, item.stage, item.permanent) for item in tight.failures] == [("long.mp4", "decode", True)]
    opened.clear()
    assert build(videos, limits=Limits(max_duration_s=1.0)).failed == 1
    assert opened == []
    assert build(videos, limits=Limits(max_duration_s=2.0)).computed == 1


@pytest.mark.needs_shared
def test_real_clips_are_computed_and_the_damaged_one_is_recorded(
    shared: Path, tmp_path: Path, encoder: str, opened: list[str]
) -> None:
    cache = fovcache.open(tmp_path / "real")
    options = {"encoder": encoder, "layers": ["head"], "device": "cpu", "num_workers": 2}
    report = cache.build(str(shared / "data" / "clips"), **options)
    assert (report.samples, report.computed, report.failed, report.exit_status) == (12, 11, 1, 1)
    (failure,) = report.failures
    assert (failure.uri, failure.stage, failure.permanent) == ("corrupted.mp4", "decode", True)
    assert failure.reason.startswith("damaged: ")
    assert cache.features().shape == (11, 8, 4)
    opened.clear()
    again = cache.build(str(shared / "data" / "clips"), **options)
    assert (again.computed, again.reused, again.failed, again.exit_status) == (0, 11, 1, 1)
    assert again.failures == report.failures
    assert (again.stages, opened) == ((), [])
    assert not verify(cache.storage).damaged
