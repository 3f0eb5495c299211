"""Captions as what an encoder reads: keyed by their text, mapped by the dataset, and cared for like any feature."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

import fovcache
from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.cli import app
from fovcache.console import run_command
from fovcache.decode import video as video_module
from fovcache.errors import SelectionError, UsageError
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.estimate import estimate
from fovcache.maintain.explain import explain
from fovcache.maintain.export import export
from fovcache.maintain.gc import collect_garbage
from fovcache.maintain.inventory import cache_contents
from fovcache.maintain.listing import dataset_info, list_cache
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.repair import repair
from fovcache.maintain.verify import verify
from fovcache.probes.quality.input import open_input as open_quality
from fovcache.probes.quality.request import QualityRequest

LONG = "a much longer caption, of more than sixteen bytes, with ünïcode"
CAPTIONS = ("a ball", LONG, "a ball", None, "a cube")
BYTES = {"encoder": "bytes", "device": "cpu", "num_workers": 1}


@pytest.fixture
def cache(tmp_path: Path) -> fovcache.Cache:
    return fovcache.open(tmp_path / "cache")


@pytest.fixture
def write(tmp_path: Path, make_images: Callable[..., Path]) -> Callable[..., str]:
    """`write(captions, files=…)` writes a manifest of five images; `files` says which image each row is of."""
    make_images(tmp_path / "images", 5)

    def write(
        captions: Sequence[str | None] = CAPTIONS, files: Sequence[int] = range(5), name: str = "some.jsonl"
    ) -> str:
        rows = [
            {"uri": f"images/{number:04d}.png", "caption": text, "split": "train" if number else "test"}
            for number, text in zip(files, captions, strict=False)
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / name)

    return write


def counts(report: fovcache.BuildReport) -> tuple[int, int, int, int]:
    assert report.samples == report.computed + report.reused + report.failed
    return report.samples, report.computed, report.reused, report.failed


def texts(features: Any) -> list[str]:
    return [bytes(number for number in row if 0 <= number < 256).decode() for row in features.padded().tolist()]


def test_rows_follow_the_dataset_and_equal_captions_are_computed_once(
    cache: fovcache.Cache, write: Callable[..., str]
) -> None:
    report = cache.build(write(), **BYTES)
    assert counts(report) == (5, 3, 1, 1)
    (failure,) = report.failures
    assert (failure.uri, failure.stage, failure.reason) == ("images/0003.png", "fetch", "it has no caption")
    assert (failure.permanent, report.exit_status) == (True, 1)
    features = cache.features(layer="ids")
    assert texts(features) == [text for text in CAPTIONS if text is not None] == features.captions
    assert (len(features), features.num_failed) == (4, 1)
    assert texts(cache.features(layer="ids", split="test")) == ["a ball"]
    assert texts(features.subset([2, 0, 1])) == ["a ball", "a ball", LONG]
    assert features.lengths.tolist() == [7, len(LONG.encode()) + 1, 7, 7]
    assert len(Catalog(cache.storage).index(features.feature.recipe)) == 3


def test_a_length_cuts_and_a_fill_fills(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    cache.build(write(), **BYTES)
    features = cache.features(layer="ids")
    whole, cut = features.padded(), features.padded(10, fill=-100)
    assert (whole.dtype, whole.shape) == (torch.int64, (4, int(features.lengths.max())))
    assert torch.equal(cut, torch.where(whole < 0, -100, whole)[:, :10])
    assert int((features.lengths > 10).sum()) == 1
    assert torch.equal(features.padded(1000), whole)
    assert features.subset([]).padded().shape == (0, 0)
    with pytest.raises(UsageError, match="length 0 is out of range"):
        features.padded(0)
    with pytest.raises(SelectionError, match=r"have 2 shapes .* take `padded\(\)`"):
        features.tensors()
    assert features.subset([0, 2]).tensors()[0].shape == (2, 16)


def test_a_second_build_runs_nothing_and_one_with_another_caption_only_that(
    cache: fovcache.Cache, write: Callable[..., str]
) -> None:
    cache.build(write(), **BYTES)
    again = cache.build(write(), **BYTES)
    assert counts(again) == (5, 0, 4, 1)
    assert (again.stages, again.bytes_written) == ((), 0)
    before = set(cache.storage.list("shards"))
    changed = cache.build(write(("a ball", "a red one", "a ball", "now it has one", "a cube")), **BYTES)
    assert counts(changed) == (5, 2, 3, 0)
    assert texts(cache.features(layer="ids")) == ["a ball", "a red one", "a ball", "now it has one", "a cube"]
    assert len(set(cache.storage.list("shards")) - before) == 1
    renamed = cache.build(write(files=(4, 3, 2, 1, 0)), **BYTES)  # the same texts of other images
    assert counts(renamed) == (5, 0, 4, 1)


def test_samples_of_equal_content_have_their_own_captions(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    source = write(("one", "two", "three"), files=(1, 1, 2))
    report = cache.build(source, **{**BYTES, "encoder": ["pixels", "bytes"]})
    assert counts(report) == (3, 3, 0, 0)
    assert texts(cache.features(layer="ids")) == ["one", "two", "three"]
    joined = cache.join(pixels=cache.features(layer="pixels8"), ids=cache.features(layer="ids"))
    assert texts(joined.sets["ids"]) == ["one", "two", "three"]
    assert torch.equal(joined.sets["pixels"].tensors()[0], cache.features(layer="pixels8").tensors()[0])
    backwards = cache.features(layer="ids").subset([2, 1, 0])
    assert texts(cache.join(pixels=cache.features(layer="pixels8"), ids=backwards).sets["ids"]) == [
        "one",
        "two",
        "three",
    ]


def test_joined_by_content_alone_ambiguous_captions_are_refused(
    cache: fovcache.Cache, write: Callable[..., str], tmp_path: Path
) -> None:
    cache.build(str(tmp_path / "images"), encoder="pixels", dataset="images", device="cpu")
    cache.build(write(("one", "two"), files=(1, 1)), **BYTES, dataset="ambiguous")
    cache.build(write(("one", "two"), files=(1, 2)), **BYTES, dataset="clear")
    pixels = cache.features(dataset="images", layer="pixels8")
    clear = cache.join(pixels=pixels, ids=cache.features(dataset="clear", layer="ids"), missing="drop")
    assert texts(clear.sets["ids"]) == ["one", "two"]
    with pytest.raises(SelectionError, match="'ids' has samples of equal content with other captions"):
        cache.join(pixels=pixels, ids=cache.features(dataset="ambiguous", layer="ids"), missing="drop")


def test_with_an_encoder_of_frames_each_video_is_decoded_once_and_with_text_alone_none(
    cache: fovcache.Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    original = video_module.read_table
    monkeypatch.setattr(video_module, "read_table", lambda *args, **more: (next(calls), original(*args, **more))[1])
    for seed in range(3):
        make_video(tmp_path / f"{seed}.mp4", MadeVideo(num_frames=6, seed=seed))
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        names = ("0", "1", "2", "torn")
        csv.writer(file).writerows([("uri", "caption"), *((f"{name}.mp4", f"clip {name}") for name in names)])
    source = str(tmp_path / "clips.csv")
    alone = cache.build(source, **BYTES)
    assert counts(alone) == (4, 4, 0, 0)
    assert {stage["id"]: stage["n"] for stage in alone.stages}["decode"] == 1  # all captions are one piece of work
    assert next(calls) == 0
    both = cache.build(source, **{**BYTES, "encoder": ["pixels", "bytes"]}, frames=2)
    assert counts(both) == (4, 3, 0, 1)
    assert next(calls) == 1 + 3  # what is no video is seen before
    assert cache.build(source, **{**BYTES, "encoder": ["bytes", "pixels"]}, frames=2).computed == 0
    assert next(calls) == 2 + 3
    assert (len(cache.features(layer="ids")), len(cache.features(layer="pixels8"))) == (4, 3)


def test_what_holds_for_all_encoders_says_nothing_of_texts(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    cache.build(write(), **BYTES)
    mixed = {"encoder": ["vit-tiny", "bytes"], "weights": {"vit-tiny": "random:0"}, "layers": ["blocks.0"]}
    more = {"size": 32, "pool": "mean", "store_dtype": "fp32", "compute_dtype": "bf16", "isolate_decode": True}
    report = cache.build(write(), **{**BYTES, **mixed}, **more)
    assert [(row["dtype"], row["pool"]) for row in report.features] == [("fp32", "mean"), ("int32", "tokens")]
    assert report.features[1]["digest"] == cache.features(layer="ids").feature.digest
    assert len(cache.features(layer="blocks.0")) == 5


def test_where_nothing_has_a_caption_nothing_is_built(cache: fovcache.Cache, tmp_path: Path, write: Any) -> None:
    write()
    for build in (
        lambda: cache.build(str(tmp_path / "images"), **BYTES),
        lambda: cache.build(write((None, "")), **{**BYTES, "encoder": ["pixels", "bytes"]}),
        lambda: explain(cache.storage, [str(tmp_path / "images")], EncoderRequest(encoder="bytes"), BuildOptions()),
        lambda: estimate([str(tmp_path / "images")], EncoderRequest(encoder="bytes"), BuildOptions()),
    ):
        with pytest.raises(UsageError, match=r"bytes reads captions, and none of [25] samples has one: .*txt"):
            build()
    assert list(cache.storage.list("manifests")) == []


def test_what_a_cache_says_of_itself_counts_captions(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    source = write(("a ball", LONG, "a ball", None, None))
    cache.build(source, **{**BYTES, "encoder": ["pixels", "bytes"]})
    (listed,) = list_cache(Catalog(cache.storage))
    assert [(f["layer"], f["dtype"], f["rows"], f["row_shape"]) for f in listed["features"]] == [
        ("ids", "int32", 3, "various"),
        ("pixels8", "bf16", 5, [3]),
    ]
    told = dataset_info(Catalog(cache.storage), "some")
    assert [failure["uri"] for failure in told["failures"]] == ["images/0003.png", "images/0004.png"]
    contents = cache_contents(cache.storage)
    (dataset,) = contents.datasets
    assert sorted(dataset.rows.values()) == [3, 5]
    assert [(group.reason, group.num_samples) for group in dataset.failures] == [("it has no caption", 2)]
    assert {recipe.encoder: recipe.geometry for recipe in contents.recipes}["bytes"] == ""


def test_explain_and_estimate_speak_of_captions(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    source, request, options = write(), EncoderRequest(encoder="bytes"), BuildOptions(device="cpu")
    before = explain(cache.storage, [source], request, options)
    assert (before.hits, before.misses, before.failed) == (0, 4, 1)
    assert {verdict.field for verdict in before.verdicts if verdict.state == "miss"} == {"caption"}
    cost = estimate([source], request, options, cache.storage)
    assert (cost.samples, cost.to_compute) == (5, 4)
    cache.build(source, **BYTES)
    cost = estimate([source], request, options, cache.storage)
    assert cost.to_compute == 0
    report = explain(cache.storage, [write(("a ball", LONG, "changed"))], request, options)
    assert [(verdict.state, verdict.field) for verdict in report.verdicts] == [("hit", "")] * 2 + [("miss", "caption")]
    assert "changed caption" in report.verdicts[2].reason


def test_captions_are_recomputed_and_repaired_without_their_sources(
    cache: fovcache.Cache, write: Callable[..., str], tmp_path: Path
) -> None:
    cache.build(write(), **BYTES)
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "some.jsonl").unlink()
    recomputed = recompute_some(cache.storage, 10, device="cpu")
    assert (recomputed["samples"], recomputed["largest"], recomputed["within_tolerance"]) == (3, {"int32": 0.0}, True)
    before = {path: path.read_bytes() for path in cache.storage.root.glob("shards/*/*")}
    assert len(before) == 2
    first = next(iter(before))
    first.write_bytes(first.read_bytes()[:-1] + b"\7")
    assert len(verify(cache.storage).damaged) == 1
    report = repair(cache.storage, device="cpu")
    assert (report.unrepaired, report.exit_status) == ((), 0)
    assert {path: path.read_bytes() for path in cache.storage.root.glob("shards/*/*")} == before


def test_a_row_that_is_not_what_it_was_is_told(
    cache: fovcache.Cache, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.build(write(), **BYTES)
    monkeypatch.setattr("fovcache.models.tokens._byte_ids", lambda text: [*text.encode()][::-1])
    assert not recompute_some(cache.storage, 10, device="cpu")["within_tolerance"]
    monkeypatch.setattr("fovcache.models.tokens._byte_ids", lambda text: [7] * 40)
    report = recompute_some(cache.storage, 10, device="cpu")
    assert not report["within_tolerance"]
    assert "a row of ids has shape (48,) now, and (" in report["skipped"][0]


def test_rows_live_as_long_as_a_dataset_has_their_captions(cache: fovcache.Cache, write: Callable[..., str]) -> None:
    cache.build(write(("one", "two")), **BYTES, dataset="first")
    cache.build(write(("two", "three", None)), **BYTES, dataset="second")
    assert len(list(cache.storage.list("manifests"))) == 2
    assert collect_garbage(cache.storage, grace_s=0).removed == ()
    collect_garbage(cache.storage, grace_s=0, drop=("second",))
    assert texts(cache.features(dataset="first", layer="ids")) == ["one", "two"]
    assert len(list(cache.storage.list("manifests"))) == 1
    cache.build(write(("two", "three", None)), **BYTES, dataset="second")
    collect_garbage(cache.storage, grace_s=0, drop=("first",))
    assert texts(cache.features(dataset="second", layer="ids")) == ["two", "three"]  # "two" was the first one's
    assert cache.build(write(("two", "three", None)), **BYTES, dataset="second").computed == 0


def test_an_export_is_padded(cache: fovcache.Cache, write: Callable[..., str], tmp_path: Path) -> None:
    cache.build(write(), **BYTES)
    features = cache.features(layer="ids")
    for name in ("ids.h5", "ids.safetensors"):
        report = export(cache.storage, features, tmp_path / name)
        assert (report.dtype, report.shape, report.was_widened) == ("int32", tuple(features.padded().shape), False)
    with h5py.File(tmp_path / "ids.h5") as file:
        assert torch.equal(torch.from_numpy(file["x"][:]).to(torch.int64), features.padded())


def test_ids_are_no_vectors(
    cache: fovcache.Cache,
    write: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(("one", "two"))
    cache.build(source, **{**BYTES, "encoder": ["pixels", "bytes"]})
    ids = cache.features(layer="ids")
    with pytest.raises(UsageError, match="layer 'ids' holds token ids, whole numbers that 'stats' says nothing of"):
        cache.derive(ids, "stats")
    with pytest.raises(SelectionError, match=r"bytes ids .* holds token ids, which have no quality"):
        open_quality(cache, QualityRequest(encoder="bytes"), "cache")
    with pytest.raises(SelectionError, match="the rows of layer 'pixels8' are bf16, and only token ids can be padded"):
        cache.features(layer="pixels8").padded()
    for encoder, status in (("bytes", 2), ("pixels", 0)):
        also = [] if encoder == "bytes" else ["--encoder", "bytes"]
        args = ["build", source, "--cache", str(tmp_path / "cache"), "--encoder", encoder, *also, "--derive", "stats"]
        monkeypatch.setattr("sys.argv", ["fovcache", *args])
        with pytest.raises(SystemExit) as left:
            run_command(app)
        assert (left.value.code or 0) == status
    assert "error: layer 'ids' holds token ids" in capsys.readouterr().err


def test_tar_shards_have_captions_beside_their_members(
    cache: fovcache.Cache, tmp_path: Path, write_tar: Callable[..., Path]
) -> None:
    path = write_tar(tmp_path / "some.tar", {"a.txt": b"of a\n", "b.txt": "von bé".encode()}, images=("a", "b", "c"))
    report = cache.build([str(path)], **{**BYTES, "encoder": ["pixels", "bytes"]})
    assert counts(report) == (3, 2, 0, 1)
    assert texts(cache.features(layer="ids")) == ["of a\n", "von bé"]
    assert len(cache.features(layer="pixels8")) == 3


@pytest.fixture
def write_tar(tmp_path: Path, make_images: Callable[..., Path]) -> Callable[..., Path]:
    """`write_tar(path, members, images=NAMES)` adds an image of each name to what is given."""
    import io
    import tarfile

    images = sorted(make_images(tmp_path / "in the tar", 5, seed=9).iterdir())

    def write(path: Path, members: dict[str, bytes], images: Sequence[str] = (), files: Any = tuple(images)) -> Path:
        pictures = {f"{name}.png": file.read_bytes() for name, file in zip(images, files, strict=False)}
        with tarfile.open(path, "w") as tar:
            for name, data in sorted({**members, **pictures}.items()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write
