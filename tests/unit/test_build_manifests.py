"""Building what manifests list: windows of videos, annotations, rows at fault, and what lies in tar shards."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import pytest
import torch

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.builder.report import BuildReport
from fovcache.keys.digest import file_digest
from fovcache.keys.recipe import sample_key
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.repair import repair
from fovcache.maintain.verify import verify

SIZE = 16
PIXELS = f"""
class Net(nn.Module):
    image_size = {SIZE}

    def __init__(self):
        super().__init__()
        self.pixels = nn.Identity()

    def forward(self, x):
        return self.pixels(x)


def make():
    return Net()
"""
COLUMNS = ("uri", "label", "caption", "group", "split", "start_s", "end_s")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 4 s, one of .8 s and one that is cut off."""
    folder = tmp_path_factory.mktemp("made")
    make_video(folder / "long.mp4", MadeVideo(num_frames=100, num_b_frames=2, start_s=1.6, seed=1))
    make_video(folder / "short.mp4", MadeVideo(num_frames=20, seed=2))
    whole = (folder / "long.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def folder(tmp_path: Path, made: Path, make_images: Callable[..., Path]) -> Path:
    """The videos and two stills."""
    place = make_images(tmp_path / "data", 2)
    for path in made.iterdir():
        (place / path.name).symlink_to(path)
    return place


@pytest.fixture
def cache(tmp_path: Path) -> fovcache.Cache:
    return fovcache.open(tmp_path / "cache")


@pytest.fixture
def build(cache: fovcache.Cache, encoder_file: Callable[..., str]) -> Callable[..., BuildReport]:
    """Build four frames of each clip, whole, on the CPU."""
    encoder = encoder_file(PIXELS)
    common = {"encoder": encoder, "layers": ["pixels"], "pool": "tokens", "store_dtype": "fp32", "device": "cpu"}
    return lambda source, **more: cache.build(str(source), **{**common, "frames": 4, "num_workers": 2, **more})


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A manifest in the format that its name says."""
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(
            pyarrow.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows]), path
        )
    return path


def fed(path: Path, **ask: Any) -> torch.Tensor:
    """What the encoder is fed of a clip: float32 [frames, 3, height, width]."""
    frames, _ = fovcache.read_clip(path, size=SIZE, **{"num_frames": 4, **ask})
    return torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32) / 255


def rows_of(features: fovcache.FeatureSet) -> list[torch.Tensor]:
    return [features.subset([at]).tensors()[0][0] for at in range(len(features))]


def failures(report: BuildReport) -> dict[str, tuple[str, str, bool]]:
    return {item.uri: (item.stage, item.reason, item.permanent) for item in report.failures}


def num_run(report: BuildReport, stage: str) -> int:
    return int({item["id"]: item["n"] for item in report.stages}[stage])


WINDOWS: list[dict[str, float]] = [
    {"start_s": 0, "end_s": 1},
    {"start_s": 0.5, "end_s": 2.25},
    {"start_s": 3.9},
    {"end_s": 0.04},
    {"start_s": 1, "end_s": 900},
]


def test_windows_of_one_video_are_samples_of_their_own_and_share_one_decode(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = table(folder / "windows.jsonl", [{"uri": "long.mp4", **window} for window in WINDOWS])
    opened: list[str] = []
    really = av.open
    monkeypatch.setattr(
        av, "open", lambda file, *args, **more: (opened.append(str(file)), really(file, *args, **more))[1]
    )
    report = build(manifest, batch_size=len(WINDOWS))
    assert (report.samples, report.computed, report.failed) == (len(WINDOWS), len(WINDOWS), 0)
    assert num_run(report, "decode") == num_run(report, "fetch") == 1
    once = len(opened) // 2  # the first sample is also read to find how large a row is
    features = cache.features()
    content = file_digest(folder / "long.mp4")
    assert features.keys == [
        sample_key(content, float(window.get("start_s", 0.0)), window.get("end_s")) for window in WINDOWS
    ]
    assert len(set(features.keys)) == len(WINDOWS)
    for window, row in zip(WINDOWS, rows_of(features), strict=True):
        assert torch.equal(row, fed(folder / "long.mp4", **window)), window
    opened.clear()
    build(folder / "short.mp4")
    assert once == len(opened) // 2
    opened.clear()
    assert build(manifest).computed == 0
    assert opened == []


def test_windows_keep_their_bits_in_any_company(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    for number, window in enumerate(WINDOWS):
        build(table(folder / f"{number}.jsonl", [{"uri": "long.mp4", **window}]), dataset=f"alone-{number}")
        assert torch.equal(
            cache.features(dataset=f"alone-{number}").tensors()[0][0], fed(folder / "long.mp4", **window)
        )
    together = table(folder / "all.jsonl", [{"uri": "long.mp4", **window} for window in WINDOWS])
    assert build(together).computed == 0


def test_a_window_beyond_the_end_fails_alone(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    rows = [{"uri": "long.mp4", "start_s": 0, "end_s": 1}, {"uri": "long.mp4", "start_s": 4.5}, {"uri": "long.mp4"}]
    manifest = table(folder / "windows.jsonl", [*rows, {"uri": "short.mp4", "start_s": 70, "end_s": 71}])
    for computed in (2, 0):
        report = build(manifest)
        assert (report.samples, report.computed, report.failed, report.exit_status) == (4, computed, 2, 1)
        assert [(item.uri, item.stage, item.permanent) for item in report.failures] == [
            ("long.mp4", "decode", True),
            ("short.mp4", "decode", True),
        ]
        assert report.failures[0].reason == "a window from 4.5 s of a video of 4.000 s"
    assert len(cache.features()) == 2


def test_a_window_that_is_the_whole_video_has_its_key(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    rows = [{"uri": "short.mp4"}, {"uri": "short.mp4", "start_s": 0}, {"uri": "short.mp4", "start_s": -0.0}]
    report = build(table(folder / "same.jsonl", rows))
    assert (report.samples, report.computed, report.reused) == (3, 1, 2)
    assert cache.features().keys == [file_digest(folder / "short.mp4")] * 3
    assert build(folder / "short.mp4").computed == 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_annotations_arrive(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path, suffix: str
) -> None:
    rows = [
        {
            "uri": "long.mp4",
            "label": "dog",
            "caption": "a dog, “running”",
            "group": "g1",
            "split": "train",
            "end_s": 1.0,
        },
        {"uri": "short.mp4", "label": "cat", "caption": "a\ncat", "group": "g2", "split": "test"},
        {"uri": "long.mp4", "label": "ant", "caption": "an ant", "group": "g1", "split": "train", "start_s": 2.0},
    ]
    build(table(folder / f"m{suffix}", rows))
    features = cache.features()
    assert features.classes == ("ant", "cat", "dog")
    assert features.labels is not None
    assert features.labels.tolist() == [2, 1, 0]
    assert features.captions == [row["caption"] for row in rows]
    assert features.groups == ["g1", "g2", "g1"]
    assert features.splits == ["train", "test", "train"]
    assert features.uris == ["long.mp4", "short.mp4", "long.mp4"]
    train = cache.features(split="train")
    assert [caption for caption in train.captions if caption] == ["a dog, “running”", "an ant"]
    assert torch.equal(rows_of(train)[1], fed(folder / "long.mp4", start_s=2.0))


def test_what_a_row_says_changes_no_key(build: Callable[..., BuildReport], folder: Path) -> None:
    first = build(table(folder / "a.jsonl", [{"uri": "short.mp4", "label": 1, "split": "train"}]))
    second = build(table(folder / "b.jsonl", [{"uri": "./short.mp4", "label": 2, "split": "test", "caption": "x"}]))
    assert (second.computed, second.reused, second.recipes) == (0, 1, first.recipes)
    assert second.dataset != first.dataset


def test_rows_at_fault_are_recorded_and_their_neighbours_computed(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    (folder / "notes.doc").write_text("no sample")
    (folder / "fake.mp4").write_text("no video")
    rows: list[dict[str, Any]] = [
        {"uri": "short.mp4"},
        {"uri": "gone.mp4"},
        {"uri": "long.mp4", "start_s": 3, "end_s": 2},
        {"uri": "notes.doc"},
        {"label": 3},
        {"uri": "fake.mp4"},
        {"uri": "file:///etc/passwd.mp4"},
        {"uri": "s3://bucket/a.mp4"},
        {"uri": "0000.png"},
        {"uri": "long.mp4", "start_s": 1, "end_s": 2},
    ]
    manifest = table(folder / "m.jsonl", rows)
    for computed in (3, 0):
        report = build(manifest)
        assert (report.samples, report.computed, report.failed, report.exit_status) == (10, computed, 7, 1)
        found = failures(report)
        assert found["gone.mp4"] == ("fetch", "No such file or directory", False)
        assert found["notes.doc"][:1] + found["notes.doc"][2:] == ("fetch", True)
        assert "ending '.doc'" in found["notes.doc"][1]
        assert found["long.mp4"] == (
            "fetch",
            "start_s is 3 and end_s is 2, expected the end after the start (m.jsonl:3)",
            True,
        )
        assert found["m.jsonl:5"] == ("fetch", "it has no uri (m.jsonl:5)", True)
        assert found["fake.mp4"][::2] == ("decode", True)
        assert found["file:///etc/passwd.mp4"][1].startswith("scheme-refused: ")
        assert found["s3://bucket/a.mp4"][1].startswith("scheme-refused: ")
    clips = cache.features(recipe=report.recipes[1])
    assert clips.uris == ["short.mp4", "long.mp4"]
    make_video(folder / "gone.mp4", MadeVideo(num_frames=20, seed=5))
    assert (build(manifest).computed, build(manifest).failed) == (1, 6)


def test_a_window_of_a_still_is_a_row_of_the_ledger(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    rows = [{"uri": "0000.png"}, {"uri": "0001.png", "start_s": 1, "end_s": 2}, {"uri": "0000.png", "start_s": 0}]
    report = build(table(folder / "m.jsonl", rows))
    assert (report.samples, report.computed, report.reused, report.failed) == (3, 1, 1, 1)
    assert failures(report) == {"0001.png": ("decode", "a window from 1.0 s of what has no time", True)}
    assert cache.features().shape == (2, 3, SIZE, SIZE)


def shard(path: Path, members: Mapping[str, bytes]) -> Path:
    import io

    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def tar(folder: Path, tmp_path: Path) -> Path:
    """A shard of videos and a still, with annotations."""
    (tmp_path / "shards").mkdir()
    return shard(
        tmp_path / "shards" / "a.tar",
        {
            "000.mp4": (folder / "long.mp4").read_bytes(),
            "000.cls": b"7",
            "000.txt": b"the long one",
            "001.png": (folder / "0000.png").read_bytes(),
            "001.cls": b"3",
            "002.mp4": (folder / "short.mp4").read_bytes(),
            "002.cls": b"5",
            "003.mp4": (folder / "cut.mp4").read_bytes(),
            "003.cls": b"1",
        },
    )


def test_a_tar_shard_of_videos(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path, tar: Path
) -> None:
    report = build(tar, dataset="shard")
    assert (report.samples, report.computed, report.failed) == (4, 3, 1)
    assert list(failures(report)) == ["a.tar#003.mp4"]
    clips = cache.features(recipe=report.recipes[1])
    assert clips.uris == ["a.tar#000.mp4", "a.tar#002.mp4"]
    assert clips.labels is not None
    assert clips.labels.tolist() == [7, 5]
    assert clips.captions == ["the long one", None]
    for name, row in zip(("long.mp4", "short.mp4"), rows_of(clips), strict=True):
        assert torch.equal(row, fed(folder / name))
    assert build(folder / "short.mp4").computed == 0  # the key is of the bytes, wherever they lie


def test_a_manifest_may_name_a_tar_shard(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path, tar: Path
) -> None:
    rows = [
        {"uri": "../shards/a.tar", "split": "train", "caption": "of the shard", "label": 9},
        {"uri": "short.mp4", "label": 2, "start_s": 0.2},
    ]
    report = build(table(folder / "m.jsonl", rows))
    assert (report.samples, report.computed, report.failed) == (5, 4, 1)
    clips = cache.features(recipe=report.recipes[1])
    assert clips.uris == ["../shards/a.tar#000.mp4", "../shards/a.tar#002.mp4", "short.mp4"]
    assert clips.labels is not None
    assert clips.labels.tolist() == [7, 5, 2]  # what a member says of itself comes first
    assert clips.captions == ["the long one", "of the shard", None]
    assert clips.splits == ["train", "train", None]


def test_a_window_of_a_tar_shard_is_refused(build: Callable[..., BuildReport], folder: Path, tar: Path) -> None:
    rows = [{"uri": "../shards/a.tar", "start_s": 0.5, "end_s": 1}, {"uri": "short.mp4"}]
    report = build(table(folder / "m.jsonl", rows))
    assert (report.samples, report.computed, report.failed) == (2, 1, 1)
    ((stage, reason, permanent),) = failures(report).values()
    assert (stage, permanent) == ("fetch", True)
    assert "start_s and end_s are of a video" in reason


def test_file_urls_where_they_are_allowed(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    manifest = table(folder / "m.jsonl", [{"uri": f"file://{folder}/short.mp4"}, {"uri": f"file://{folder}/0000.png"}])
    assert build(manifest).failed == 2
    report = build(manifest, allow_file_urls=True)
    assert (report.computed, report.failed) == (2, 0)
    name = next(iter(cache.storage.list("shards")))
    data = (cache.storage.root / name).read_bytes()
    (cache.storage.root / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert repair(cache.storage, device="cpu").exit_status == 0
    assert (cache.storage.root / name).read_bytes() == data


def test_what_is_lost_of_windows_comes_back_bit_by_bit(
    build: Callable[..., BuildReport], cache: fovcache.Cache, folder: Path
) -> None:
    rows = [{"uri": "long.mp4", **window} for window in WINDOWS] + [{"uri": "short.mp4"}, {"uri": "0001.png"}]
    build(table(folder / "m.csv", rows), batch_size=2, shard_bytes=30_000)
    root = cache.storage.root
    before = {name: (root / name).read_bytes() for name in cache.storage.list("shards")}
    assert len(before) >= 4
    recomputed = recompute_some(cache.storage, 7, device="cpu")
    assert (recomputed["samples"], recomputed["largest"], recomputed["skipped"]) == (7, {"fp32": 0.0}, ())
    for name, data in before.items():
        (root / name).write_bytes(data[: len(data) // 2])
    report = repair(cache.storage, device="cpu")
    assert (report.unrepaired, report.recomputed) == ((), 7)
    assert {name: (root / name).read_bytes() for name in cache.storage.list("shards")} == before
    assert not verify(cache.storage).damaged
