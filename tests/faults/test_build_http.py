"""Building what lies on servers: each sample ends as a row or in the ledger, within a bounded working set."""

from __future__ import annotations

import contextlib
import csv
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import fault_server
import pytest
import torch
from remote_builds import HURRIED, SMALL_BYTES, Remote, picture, pictures, reasons, shard_of
from served import FAULTS, HARMLESS

import fovcache
from fovcache.keys.digest import bytes_digest
from fovcache.keys.recipe import sample_key


class Watch:
    """Looks at how many bytes lie in a folder, all the time: of files that were all there at one moment."""

    def __init__(self, folder: Path) -> None:
        self.peak_bytes = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.001):
            before, after = self._sizes(), self._sizes()
            num_bytes = sum(min(before[path], after[path]) for path in before.keys() & after.keys())
            self.peak_bytes = max(self.peak_bytes, num_bytes)

    def _sizes(self) -> dict[Path, int]:
        found = {}
        for path in self._folder.glob("tmp/*"):
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat().st_size
        return found

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def test_every_sample_of_a_failing_server_ends_as_a_row_or_in_the_ledger(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_server, "MAX_S", 2.0)  # silent ones keep it from serving others
    server, files = remote.server, pictures(500, side=16)
    kinds = server.put_all(files, share=0.4, seed=0)
    source = remote.urls(files)
    good = {path for path, kind in kinds.items() if kind in HARMLESS}
    assert (len(files), len(good), sum(map(len, files.values())) > 2 * SMALL_BYTES) == (500, 300, True)

    with Watch(remote.cache.storage.root / "scratch") as watch:
        first = remote.build(source)
    assert 0 < watch.peak_bytes <= SMALL_BYTES
    assert (first.samples, first.computed, first.failed, first.exit_status) == (500, 300, 200, 1)
    assert reasons(first) == {
        server.url + path: ("fetch", *FAULTS[kind]) for path, kind in kinds.items() if kind in FAULTS
    }
    assert_holds(remote, {path: files[path] for path in good})

    server.heal()
    remote.forget_counts()
    second = remote.build(source)
    permanent = {path for path, kind in kinds.items() if kind in FAULTS and FAULTS[kind][1]}
    assert reasons(second) == {server.url + path: ("fetch", *FAULTS[kinds[path]]) for path in permanent}
    assert (second.computed, second.reused, second.failed) == (200 - len(permanent), 300, len(permanent))
    assert remote.asked_in_full() <= files.keys() - good
    assert_holds(remote, {path: files[path] for path in files.keys() - permanent})

    for served in server.files.values():
        served.kind = "ok"
    third = remote.build(source, retry_failed=True)
    assert (third.computed, third.failed, third.exit_status) == (len(permanent), 0, 0)
    assert_holds(remote, files)

    remote.forget_counts()
    before = {
        name: (remote.cache.storage.root / name).stat().st_mtime_ns for name in remote.cache.storage.list("shards")
    }
    warm = remote.build(source)
    assert (warm.computed, warm.reused, warm.failed, warm.dataset) == (0, 500, 0, third.dataset)
    assert (server.counts.body_bytes, remote.asked_in_full(), len(server.counts.requests)) == (0, set(), 500)
    assert before == {name: (remote.cache.storage.root / name).stat().st_mtime_ns for name in before}


def assert_holds(remote: Remote, files: Mapping[str, bytes]) -> None:
    """The cache holds these and no others, and is sound."""
    features = remote.cache.features()
    expected = {remote.server.url + path: bytes_digest(data) for path, data in files.items()}
    assert dict(zip(features.uris, features.keys, strict=True)) == expected
    root = remote.cache.storage.root
    documents = [json.loads((root / name).read_bytes()) for name in remote.cache.storage.list("manifests")]
    assert sum(shard["num_rows"] for document in documents for shard in document["shards"]) == len(files)
    assert [failure for document in documents for failure in document["failures"]] == []
    assert remote.lab.damage(root) == []


def test_rows_are_those_of_the_same_files_on_disk(remote: Remote) -> None:
    files = pictures(11)
    remote.put(files)
    remote.build(remote.urls(files))
    local = remote.folder / "local"
    local.mkdir()
    for path, data in files.items():
        (local / path[1:]).write_bytes(data)
    x, _ = remote.cache.features().tensors()
    report = remote.build(str(local))
    assert (report.computed, report.reused) == (0, 11)
    other = fovcache.open(remote.folder / "other")
    common = {"layers": ["conv"], "pool": "tokens", "device": "cpu", "batch_size": 4}
    other.build(str(local), encoder=remote.lab.encoder, **common)
    assert torch.equal(other.features().tensors()[0], x)


def test_tar_shards_are_downloaded_once_and_their_members_remembered(remote: Remote) -> None:
    for number in range(4):
        members = {
            name: data
            for key in range(3)
            for name, data in ((f"{key}.png", picture(10 * number + key)), (f"{key}.cls", b"%d" % (10 * number + key)))
        }
        remote.server.put(f"/train-{number:03d}.tar", shard_of(members))
    source = f"train={remote.server.url}/train-{{000..003}}.tar"
    first = remote.build(source)
    assert (first.samples, first.computed, first.dataset_name) == (12, 12, "127.0.0.1")
    features = remote.cache.features(split="train")
    assert features.labels is not None
    assert features.labels.tolist() == [10 * number + key for number in range(4) for key in range(3)]
    assert features.uris[4] == f"{remote.server.url}/train-001.tar#1.png"
    remote.forget_counts()
    warm = remote.build(source)
    assert (warm.computed, warm.reused, remote.server.counts.body_bytes) == (0, 12, 0)
    # Another layer: the shards are needed again, each once.
    other = remote.build(source, layers=["head"])
    assert (other.computed, other.failed) == (12, 0)
    assert len(remote.server.counts.requests) == 4 + 4 + 4
    remote.server.put("/train-002.tar", shard_of({"0.png": picture(20), "9.png": picture(99)}))
    changed = remote.build(source)
    assert (changed.samples, changed.computed, changed.reused) == (11, 1, 10)


def test_a_tar_shard_that_is_none_or_ends_early(remote: Remote) -> None:
    whole = shard_of({f"{key}.png": picture(key) for key in range(3)})
    remote.server.put("/cut.tar", whole[: len(whole) // 4])
    remote.server.put("/png.tar", picture(7))
    report = remote.build(remote.urls(["/cut.tar", "/png.tar"]))
    assert report.exit_status == 1
    assert report.failed == report.samples - report.computed
    assert all(item.stage == "fetch" for item in report.failures)
    assert remote.lab.damage(remote.cache.storage.root) == []


def test_manifests_name_urls_with_labels_and_windows(remote: Remote) -> None:
    from fovcache.bench.made_videos import MadeVideo, make_video

    video = make_video(remote.folder / "long.mp4", MadeVideo(num_frames=50)).read_bytes()
    remote.put({"/a.png": picture(1), "/videos/7": video})  # its name says nothing of its kind
    rows = [
        {"uri": f"{remote.server.url}/videos/7", "label": 1, "start_s": 0, "end_s": 1, "split": "train"},
        {"uri": f"{remote.server.url}/a.png", "label": 2, "split": "train"},
        {"uri": f"{remote.server.url}/videos/7", "label": 3, "start_s": 1.2, "split": "test"},
        {"uri": f"{remote.server.url}/videos/7", "label": 4, "start_s": 77, "split": "test"},
        {"uri": f"{remote.server.url}/gone.mp4", "label": 5, "split": "test"},
    ]
    manifest = remote.folder / "m.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["uri", "label", "split", "start_s", "end_s"])
        writer.writeheader()
        writer.writerows(rows)
    for computed in (3, 0):
        remote.forget_counts()
        report = remote.build(str(manifest), frames=2, size=8)
        assert (report.samples, report.computed, report.failed) == (5, computed, 2)
        assert [(item.stage, item.permanent) for item in report.failures] == [("fetch", True), ("decode", True)]
        assert [path for _, path in remote.server.counts.requests].count("/videos/7") == 1
    clips = remote.cache.features(recipe=report.recipes[1])
    content = bytes_digest(video)
    assert clips.keys == [sample_key(content, 0.0, 1.0), sample_key(content, 1.2, None)]
    assert clips.labels is not None
    assert clips.labels.tolist() == [1, 3]
    assert clips.splits == ["train", "test"]


def test_equal_bytes_at_several_places_are_computed_once(remote: Remote) -> None:
    remote.put({"/a.png": picture(1), "/b.png": picture(1), "/c.png": picture(2)})
    local = remote.folder / "local"
    local.mkdir()
    (local / "c.png").write_bytes(picture(2))
    sources = [str(local), remote.urls(["/a.png", "/b.png", "/c.png"])]
    common = {"encoder": remote.lab.encoder, "layers": ["conv"], "pool": "tokens", "device": "cpu", "fetch": HURRIED}
    report = remote.cache.build(sources, **common)
    assert (report.samples, report.computed, report.reused) == (4, 2, 2)
    assert len(remote.cache.features()) == 4
    assert remote.left() == []


def test_what_is_larger_than_the_working_set_may_be_is_refused_alone(remote: Remote) -> None:
    remote.put({"/large.png": picture(1, side=200), "/small.png": picture(2)})
    report = remote.build(remote.urls(["/large.png", "/small.png"]))
    assert (report.computed, reasons(report)) == (
        1,
        {f"{remote.server.url}/large.png": ("fetch", "too-large", True)},
    )
