"""Samples that fail: the ledger says which, where and why; the others do not notice; nothing is tried in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from PIL import Image

import fovcache
from fovcache.errors import SelectionError

# Black pictures give NaN, white ones a number beyond fp16; a row also depends on its place in the batch.
TOUCHY = """
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = torch.nn.Identity(), torch.nn.Identity()

        def forward(self, x):
            place = torch.arange(len(x)).view(-1, 1, 1, 1) + len(x) * 100
            x = self.early(x + place * (x.mean((1, 2, 3), keepdim=True) > 0))
            light = (x - place).mean((1, 2, 3), keepdim=True)
            return self.late(x / (light > -1) * torch.where(light > 0.999, 1e6, 1.0))

    def make():
        return Net()
"""


def failures(report: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What failed: uri, stage, reason, permanent."""
    return [tuple(item[name] for name in ("uri", "stage", "reason", "permanent")) for item in report["failures"]]


def plain(folder: Path, name: str, value: int) -> None:
    Image.new("RGB", (8, 8), (value, value, value)).save(folder / name)


def ledger(lab: Any, cache: Path) -> list[dict[str, Any]]:
    """The rows of the ledger as they lie on disk, with their attempts."""
    documents = [json.loads((cache / name).read_bytes()) for name in lab.files(cache, "manifests")]
    rows = [{**row, "attempt": document["attempt"]} for document in documents for row in document["failures"]]
    return sorted(rows, key=lambda row: (row["key"], row["attempt"]))


@pytest.fixture
def log(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the encoder writes that it ran."""
    path = Path(lab.folder / "forward.log")
    monkeypatch.setenv("FORWARD_LOG", str(path))
    return path


@pytest.fixture
def broken(lab: Any) -> Path:
    """Ten pictures, and four files that are none."""
    source = lab.pictures(10)
    Image.new("RGB", (64, 64), (9, 99, 200)).save(source / "003-cut.jpg")
    (source / "003-cut.jpg").write_bytes((source / "003-cut.jpg").read_bytes()[:-40])
    (source / "004-empty.png").write_bytes(b"")
    (source / "005-text.jpg").write_text("this is a text")
    (source / "006-head.png").write_bytes((source / "006.png").read_bytes()[:60])
    return Path(source)


def test_what_is_no_picture_is_a_row_of_the_ledger_and_the_run_goes_on(lab: Any, broken: Path) -> None:
    cache = lab.folder / "cache"
    done = lab.run(*lab.build_args(broken, cache))
    assert (done.status, done.errors) == (1, [])
    assert "10 computed, 0 reused, 4 failed" in done.out
    report = lab.build(broken, cache, status=1)
    found = {uri: (stage, permanent) for uri, stage, _, permanent in failures(report)}
    assert found == dict.fromkeys(("003-cut.jpg", "004-empty.png", "005-text.jpg", "006-head.png"), ("decode", True))
    reasons = {uri: reason for uri, _, reason, _ in failures(report)}
    assert reasons["004-empty.png"] == "the file is empty"
    assert reasons["005-text.jpg"] == "not an image that can be read"
    features = fovcache.open(cache).features()
    assert (len(features), features.num_failed) == (10, 4)
    assert not {"003-cut.jpg", "004-empty.png", "005-text.jpg", "006-head.png"} & set(features.uris)
    assert lab.damage(cache) == []


def test_permanent_failures_are_not_tried_again_and_still_fail_the_run(lab: Any, broken: Path, log: Path) -> None:
    cache = lab.folder / "cache"
    first = lab.build(broken, cache, status=1)
    log.unlink()
    before = lab.files(cache)
    second = lab.build(broken, cache, status=1)
    assert (second["computed"], second["reused"], second["failed"]) == (0, 10, 4)
    assert failures(second) == failures(first)
    assert not log.exists()
    assert lab.files(cache) == before


def test_retry_failed_tries_permanent_failures_again(lab: Any, broken: Path) -> None:
    cache = lab.folder / "cache"
    lab.build(broken, cache, status=1)
    report = lab.build(broken, cache, "--retry-failed", status=1)
    assert (report["computed"], report["failed"]) == (0, 4)
    assert [row["attempt"] for row in ledger(lab, cache)] == [0, 1] * 4


def test_permanent_failures_are_tried_again_once_when_the_decoder_changes(
    lab: Any, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = lab.folder / "cache"
    lab.build(broken, cache, status=1)
    monkeypatch.setattr(PIL, "__version__", "99.0")
    for _ in range(2):
        report = lab.build(broken, cache, status=1)
        assert (report["computed"], report["failed"]) == (0, 4)
        assert [row["attempt"] for row in ledger(lab, cache)] == [0, 1] * 4


def test_every_copy_of_a_failing_picture_is_counted_and_it_is_tried_once(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(3)
    for name in ("a.png", "b.png", "c.png"):
        (source / name).write_bytes(b"no picture")
    report = lab.build(source, cache, status=1)
    assert [uri for uri, *_ in failures(report)] == ["a.png", "b.png", "c.png"]
    assert (report["samples"], report["computed"], report["reused"], report["failed"]) == (6, 3, 0, 3)
    assert len(ledger(lab, cache)) == 1


def test_a_run_in_which_everything_fails_names_a_dataset_without_features(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.folder / "src"
    source.mkdir()
    for number in range(9):
        (source / f"{number}.png").write_text(f"no picture {number}")
    for _ in range(2):
        report = lab.build(source, cache, status=1)
        assert (report["computed"], report["failed"]) == (0, 9)
    assert lab.files(cache, "shards") == []
    assert lab.run("ls", "--cache", cache, "--json", "-").json[0]["features"] == []
    with pytest.raises(SelectionError, match="no feature"):
        fovcache.open(cache).features()
    assert lab.damage(cache) == lab.leftovers(cache) == []


def test_features_that_are_not_finite_fail_their_sample_alone(lab: Any) -> None:
    encoder = lab.write_encoder(TOUCHY, "touchy.py")
    cache, source = lab.folder / "cache", lab.pictures(8)
    plain(source, "002.png", 0)
    plain(source, "005.png", 255)
    args = ("--encoder", encoder, "--layers", "late", "--pool", "mean")

    report = lab.build(source, cache, *args, "--store-dtype", "fp32", status=1)
    assert failures(report) == [("002.png", "encode", "the encoder returned NaN at layer late", True)]

    report = lab.build(source, cache, *args, "--store-dtype", "fp16", status=1)
    assert failures(report) == [
        ("002.png", "encode", "the encoder returned NaN at layer late", True),
        ("005.png", "encode", "the encoder returned infinity at layer late as fp16", True),
    ]
    for dtype, num_rows in (("fp32", 7), ("fp16", 6)):
        rows, _ = fovcache.open(cache).features(store_dtype=dtype).tensors()
        assert len(rows) == num_rows
        assert torch.isfinite(rows).all()


def test_a_failure_in_a_late_layer_does_not_keep_an_early_one_from_being_asked_for(lab: Any) -> None:
    encoder = lab.write_encoder(TOUCHY, "touchy.py")
    cache, source = lab.folder / "cache", lab.pictures(4)
    plain(source, "002.png", 0)
    args = ("--encoder", encoder, "--pool", "mean")
    assert lab.build(source, cache, *args, "--layers", "early,late", status=1)["failed"] == 1
    report = lab.build(source, cache, *args, "--layers", "early")
    assert (report["computed"], report["reused"], report["failed"]) == (1, 3, 0)
    assert lab.build(source, cache, *args, "--layers", "early,late", status=1)["computed"] == 0


@pytest.mark.parametrize(
    ("how", "failing"),
    [("decode", (0,)), ("decode", (1, 2, 6)), ("decode", (4, 5, 6, 7)), ("encode", (0,)), ("encode", (3,))],
)
def test_the_bits_of_other_rows_do_not_depend_on_failing_neighbours(
    lab: Any, how: str, failing: tuple[int, ...]
) -> None:
    encoder = lab.write_encoder(TOUCHY, "touchy.py")
    source = lab.pictures(11)
    args = ("--encoder", encoder, "--layers", "late", "--pool", "mean", "--store-dtype", "fp32")
    lab.build(source, lab.folder / "healthy", *args)
    healthy = fovcache.open(lab.folder / "healthy").features()
    expected = dict(zip(healthy.uris, healthy.tensors()[0], strict=True))
    for number in failing:
        if how == "encode":
            plain(source, f"{number:03d}.png", 0)
        else:
            (source / f"{number:03d}.png").write_bytes(b"no picture, number %d" % number)
    assert lab.build(source, lab.folder / "cache", *args, status=1)["failed"] == len(failing)
    features = fovcache.open(lab.folder / "cache").features()
    assert len(features) == 11 - len(failing)
    for uri, row in zip(features.uris, features.tensors()[0], strict=True):
        assert torch.equal(row, expected[uri]), uri


def test_a_file_that_goes_or_changes_before_it_is_decoded_fails_and_is_tried_again(
    lab: Any, forks: Any, gate: Any
) -> None:
    cache, source = lab.folder / "cache", lab.pictures(40)
    gone, changed = source / "038.png", source / "039.png"
    kept = {path: path.read_bytes() for path in (gone, changed)}
    pid = forks.start(*lab.build_args(source, cache, "--json", "-"), environ=gate.environ)
    lab.wait_for(lambda: lab.files(cache, "plans"), "the plan")
    gone.unlink()
    changed.write_bytes(kept[gone])
    gate.open()
    done = forks.finish(pid)
    assert (done.status, done.json["computed"]) == (1, 38)
    assert failures(done.json) == [
        ("038.png", "fetch", "cannot read 038.png: No such file or directory", False),
        ("039.png", "fetch", "039.png changed since it was scanned", False),
    ]
    for path, data in kept.items():
        path.write_bytes(data)
    report = lab.build(source, cache)
    assert (report["computed"], report["reused"], report["failed"]) == (2, 38, 0)
    assert len(fovcache.open(cache).features()) == 40
    assert lab.damage(cache) == lab.leftovers(cache) == []


def test_a_file_that_cannot_be_read_is_unreadable_and_tried_again(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(4)
    (source / "nowhere.png").symlink_to("is/not/there.png")
    for _ in range(2):
        report = lab.build(source, cache, status=1)
        assert failures(report) == [("nowhere.png", "fetch", "No such file or directory", False)]
    (source / "nowhere.png").unlink()
    assert lab.build(source, cache)["reused"] == 4


def unchanged(lab: Any, cache: Path, folder: str) -> dict[str, int]:
    return {name: (cache / name).stat().st_mtime_ns for name in lab.files(cache, folder)}


def test_adding_a_layer_later_computes_and_writes_only_that_layer(lab: Any, log: Path) -> None:
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache, "--layers", "conv")
    before = unchanged(lab, cache, "shards")
    lab.build(source, cache, "--layers", "conv,head")
    after = unchanged(lab, cache, "shards")
    assert before.items() < after.items()
    opened = fovcache.open(cache)
    head = opened.features(layer="head")
    num_bytes = sum((cache / name).stat().st_size for name in after.keys() - before.keys())
    assert num_bytes < head.nbytes + 8 * 32 + 1024
    assert opened.features(layer="conv").num_failed == head.num_failed == 0
    log.unlink()
    assert lab.build(source, cache, "--layers", "head")["computed"] == 0
    assert not log.exists()


def test_adding_pictures_later_computes_and_writes_only_them(lab: Any, log: Path) -> None:
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache)
    before = unchanged(lab, cache, "shards")
    rows, _ = fovcache.open(cache).features().tensors()
    log.unlink()
    lab.pictures(5, seed=1, name="more")
    for number in range(5):
        (lab.folder / "more" / f"{number:03d}.png").rename(source / f"9{number:02d}.png")
    report = lab.build(source, cache)
    assert (report["computed"], report["reused"]) == (5, 8)
    assert [int(line) for line in log.read_text().split()] == [2, 4, 1]  # the block's size is found, and the new ones
    assert before.items() < unchanged(lab, cache, "shards").items()
    features = fovcache.open(cache).features()
    assert torch.equal(features.tensors()[0][:8], rows)
    assert len(features) == 13
