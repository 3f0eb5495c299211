"""Building what lies on servers: each sample ends as a row or in the ledger, nothing is downloaded in vain, and a build
that is killed goes on where it was, within a bounded working set."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
import signal
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fault_server
import numpy as np
import pytest
import torch
from fault_server import FaultServer
from PIL import Image
from served import FAULTS, HARMLESS

import fovcache
from fovcache.builder.report import BuildReport
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.fetch.fetcher import Fetcher
from fovcache.fetch.options import FetchOptions
from fovcache.fetch.reasons import reason_of
from fovcache.keys.digest import bytes_digest
from fovcache.keys.recipe import sample_key
from fovcache.maintain.estimate import estimate
from fovcache.maintain.explain import explain
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.repair import repair
from fovcache.store.url_memo import UrlMemo

SMALL_BYTES = 160_000
HURRIED = FetchOptions(
    read_timeout_s=0.8,
    retries=1,
    backoff_s=0.01,
    max_wait_s=0.05,
    max_file_bytes=1 << 19,
    rate_window_s=0.3,
    concurrency=24,
    scratch_bytes=SMALL_BYTES,
)
SECRETS = ("us3rname", "pa55word", "5ignature", "t0ken-t0ken-t0ken")


def picture(seed: int, side: int = 8) -> bytes:
    """A PNG like no other."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def pictures(num: int, *, seed: int = 0, side: int = 8) -> dict[str, bytes]:
    return {f"/{number:03d}.png": picture(1000 * seed + number, side) for number in range(num)}


class Remote:
    """A server, a cache, and builds of one from the other."""

    def __init__(self, lab: Any, server: FaultServer) -> None:
        self.lab = lab
        self.server = server
        self.folder: Path = lab.folder
        self.cache = fovcache.open(self.folder / "cache")

    def urls(self, urls: Mapping[str, Any] | list[str], name: str = "urls.txt") -> str:
        """A URL list."""
        path = self.folder / name
        path.write_text("".join(f"{url if '://' in url else self.server.url + url}\n" for url in urls))
        return str(path)

    def put(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            self.server.put(path, data)

    def build(self, source: str, **more: Any) -> BuildReport:
        common = {"encoder": self.lab.encoder, "layers": ["conv"], "pool": "tokens", "device": "cpu", "fetch": HURRIED}
        report = self.cache.build(source, **{"num_workers": 2, "batch_size": 4, "shard_bytes": 4096, **common, **more})
        assert self.left() == []
        return report

    def left(self) -> list[str]:
        """What a finished build must not leave."""
        return [*self.lab.leftovers(self.cache.storage.root), *self.lab.files(self.cache.storage.root, "scratch")]

    def forget_counts(self) -> None:
        self.server.counts.requests.clear()
        self.server.counts.headers.clear()
        self.server.counts.body_bytes = 0

    def asked_in_full(self) -> set[str]:
        """Paths that were asked for without a condition."""
        counts = self.server.counts
        return {
            path.partition("?")[0]
            for (method, path), headers in zip(counts.requests, counts.headers, strict=True)
            if method == "GET" and "If-None-Match" not in headers
        }


@pytest.fixture
def remote(lab: Any, fault_server: FaultServer) -> Remote:
    return Remote(lab, fault_server)


def reasons(report: BuildReport) -> dict[str, tuple[str, str | None, bool]]:
    """Stage, reason and whether it is permanent, by uri."""
    return {item.uri: (item.stage, reason_of(item.reason), item.permanent) for item in report.failures}


class Watch:
    """Looks at how many bytes lie in a folder, all the time."""

    def __init__(self, folder: Path) -> None:
        self.peak_bytes = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.001):
            num_bytes = 0
            for path in self._folder.glob("tmp/*"):
                try:
                    num_bytes += path.stat().st_size
                except FileNotFoundError:
                    continue
            self.peak_bytes = max(self.peak_bytes, num_bytes)

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


def shard_of(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


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


def test_a_new_version_is_computed_and_a_new_etag_of_the_same_bytes_is_not(remote: Remote) -> None:
    files = pictures(6)
    remote.put(files)
    source = remote.urls(files)
    first = remote.build(source)
    remote.server.put("/003.png", picture(333))
    second = remote.build(source)
    assert (second.computed, second.reused, second.failed) == (1, 5, 0)
    assert second.dataset != first.dataset
    features = remote.cache.features()
    assert features.keys[3] == bytes_digest(picture(333))

    for served in remote.server.files.values():
        served.etag, served.modified_s = False, 1_600_000_000.0
    third = remote.build(source)
    assert (third.computed, third.reused, third.dataset) == (0, 6, second.dataset)
    remote.forget_counts()
    assert remote.build(source).computed == 0
    assert remote.server.counts.body_bytes == 0


def test_a_server_without_versions_is_downloaded_again_and_nothing_computed(remote: Remote) -> None:
    files = pictures(6)
    for path, data in files.items():
        remote.server.put(path, data, etag=False, modified_s=None)
    source = remote.urls(files)
    first = remote.build(source)
    again = remote.build(source)
    assert (again.computed, again.reused, again.dataset) == (0, 6, first.dataset)


def test_a_server_that_is_down_for_a_while_loses_nothing(remote: Remote) -> None:
    files = pictures(6)
    remote.put(files)
    source = remote.urls(files)
    first = remote.build(source)
    for served in remote.server.files.values():
        served.kind = "unavailable"
    down = remote.build(source)
    assert (down.computed, down.failed, down.exit_status) == (0, 6, 1)
    assert set(reasons(down).values()) == {("fetch", "server-error", False)}
    remote.server.heal()
    remote.forget_counts()
    back = remote.build(source)
    assert (back.computed, back.reused, back.dataset) == (0, 6, first.dataset)
    assert remote.server.counts.body_bytes == 0


def test_rehash_downloads_anew(remote: Remote) -> None:
    files = pictures(4)
    remote.put(files)
    remote.build(remote.urls(files))
    remote.forget_counts()
    report = remote.build(remote.urls(files), rehash=True)
    assert (report.computed, report.reused, remote.asked_in_full()) == (0, 4, set(files))


def test_what_is_larger_than_the_working_set_may_be_is_refused_alone(remote: Remote) -> None:
    remote.put({"/large.png": picture(1, side=200), "/small.png": picture(2)})
    report = remote.build(remote.urls(["/large.png", "/small.png"]))
    assert (report.computed, reasons(report)) == (
        1,
        {f"{remote.server.url}/large.png": ("fetch", "too-large", True)},
    )


def test_nothing_of_what_urls_keep_secret_is_written_or_said(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    host = remote.server.url.removeprefix("http://")
    user, password, signature, token = SECRETS

    def signed(path: str) -> str:
        query = f"X-Amz-Signature={signature}&X-Amz-Credential={user}&token={token}"
        return f"http://{user}:{password}@{host}{path}?{query}"

    kinds = {"/a.png": "ok", "/b.png": "redirected", "/c.png": "missing", "/d.png": "error", "/e.png": "soft-404"}
    for number, (path, kind) in enumerate(kinds.items()):
        remote.server.put(path, picture(number), kind)
    remote.server.put("/f.tar", shard_of({"0.png": picture(50), "0.cls": b"3", "1.png": b"no picture"}))
    listed = [signed(path) for path in (*kinds, "/f.tar")] + [signed("/g.png").replace("http:", "ftp:")]
    source = remote.urls(listed)
    asked = ["--cache", remote.cache.storage.root, "--encoder", remote.lab.encoder, "--layers", "conv"]
    outputs = []
    for args in (
        remote.lab.build_args(source, remote.cache.storage.root, "--retries", 0, "--json", "-", "-v"),
        remote.lab.build_args(signed("/a.png"), remote.cache.storage.root, "--json", "-", "-v"),
        remote.lab.build_args(source, remote.cache.storage.root, "--retries", 0, "-v"),
        ["explain", signed("/a.png"), *asked],
        ["explain", source, *asked, "--json", "-"],
        ["info", "--cache", remote.cache.storage.root],
        ["verify", "--cache", remote.cache.storage.root, "--recompute", 3],
    ):
        done = remote.lab.run(*args)
        assert done.status in (0, 1), done
        outputs += [done.out, done.err]
    assert any("Authorization" in headers for headers in remote.server.counts.headers)  # they were used
    assert any(signature in path for _, path in remote.server.counts.requests)
    said = "\n".join([*outputs, *caplog.messages, caplog.text])
    written = {
        name: (remote.cache.storage.root / name).read_bytes() for name in remote.lab.files(remote.cache.storage.root)
    }
    assert "urls.sqlite" in written
    for secret in SECRETS:
        assert secret not in said
        assert [name for name, data in written.items() if secret.encode() in data or secret in name] == []


def _by_number(number: int) -> bytes:
    return shard_of({f"{key}.png": picture(100 * number + key) for key in range(4)})


class _ByToken(BaseHTTPRequestHandler):
    """One path, whose objects are told apart by a token that is no part of a recorded URL."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = _by_number(int(parse_qs(urlsplit(self.path).query)["token"][0].rpartition("-")[2]))
        etag = f'"{bytes_digest(body)[:16]}"'
        is_known = self.headers.get("If-None-Match") == etag
        time.sleep(0.02)  # so that those that were asked for together are answered together
        self.send_response(304 if is_known else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0" if is_known else str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if is_known else body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def by_token() -> Iterator[str]:
    """The beginning of such URLs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _ByToken)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/get.tar?token=t0ken-t0ken-t0ken-"
    server.shutdown()
    thread.join()
    server.server_close()


def test_objects_whose_urls_differ_in_a_secret_only_are_told_apart(remote: Remote, by_token: str) -> None:
    source = remote.urls([f"{by_token}{number}" for number in range(16)])
    expected = [bytes_digest(picture(100 * number + key)) for number in range(16) for key in range(4)]
    for _ in range(2):
        report = remote.build(source, fetch=replace(HURRIED, scratch_bytes=10**9))
        assert report.failed == 0
        assert remote.cache.features().keys == expected


def test_what_is_remembered_of_one_of_them_is_never_said_of_another(tmp_path: Path, by_token: str) -> None:
    """However their downloads overlap."""
    first, second = f"{by_token}1", f"{by_token}2"
    with Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(tmp_path / "memo")) as fetcher:
        fetcher.download(first)
        fetcher.download(second)
        fetcher.remember(first, b"the first")
    with Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(tmp_path / "memo")) as fetcher:
        assert fetcher.revalidate(second) is None
        assert fetcher.revalidate(first) == b"the first"


def read_only(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_explain_and_estimate_write_nothing(remote: Remote) -> None:
    files = pictures(10)
    remote.put(files)
    request = EncoderRequest(encoder=remote.lab.encoder, layers=("conv",), pool="tokens")
    options = BuildOptions(device="cpu", fetch=HURRIED)
    remote.build(remote.urls(dict(list(files.items())[:4])))
    source, before = remote.urls(files, "more.txt"), read_only(remote.cache.storage.root)
    remote.forget_counts()
    report = explain(remote.cache.storage, [source], request, options)
    assert (report.samples, report.hits, report.misses) == (10, 4, 6)
    assert remote.server.counts.body_bytes == 0
    found = estimate([source], request, options, remote.cache.storage)
    assert (found.samples, found.to_compute, found.row_bytes) == (10, 6, 1024)
    assert read_only(remote.cache.storage.root) == before
    assert estimate([source], request, options).to_compute == 10


def test_repair_brings_back_what_servers_still_have(remote: Remote) -> None:
    files = pictures(30)
    remote.put(files)
    tiny = replace(HURRIED, scratch_bytes=20_000)
    remote.build(remote.urls(files), fetch=tiny)
    root = remote.cache.storage.root
    before = remote.lab.contents(root)
    shards = list(remote.cache.storage.list("shards"))
    assert len(shards) > 8
    recomputed = recompute_some(remote.cache.storage, 9, device="cpu")
    assert (recomputed["samples"], recomputed["skipped"], recomputed["within_tolerance"]) == (9, (), True)

    one = root / shards[3]
    one.write_bytes(one.read_bytes()[:-1])
    report = repair(remote.cache.storage, device="cpu")
    assert report.unrepaired == ()
    assert 1 <= report.recomputed <= 4
    assert remote.lab.contents(root) == before

    for name in shards:
        (root / name).unlink()
    report = repair(remote.cache.storage, device="cpu")
    assert (report.unrepaired, report.recomputed) == ((), 30)
    assert remote.lab.damage(root) == []
    assert len(remote.cache.features()) == 30
    assert remote.build(remote.urls(files)).computed == 0

    remote.server.files["/005.png"].kind = "missing"
    for name in list(remote.cache.storage.list("shards")):
        (root / name).unlink()
    report = repair(remote.cache.storage, device="cpu")
    assert report.unrepaired
    assert report.recomputed == 29
    assert remote.lab.damage(root) == []


def test_a_damaged_dataset_of_urls_is_made_anew(remote: Remote) -> None:
    files = pictures(5)
    remote.put(files)
    remote.server.put("/gone.png", b"", "missing")
    remote.build(remote.urls([*files, "/gone.png"]))
    (name,) = remote.cache.storage.list("datasets")
    path = remote.cache.storage.root / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert repair(remote.cache.storage, device="cpu").exit_status == 0
    assert path.read_bytes() == whole


KILLED_FILES = 40


@pytest.fixture(params=[24_000, 10**9], ids=["in waves", "at once"])
def killable(request: pytest.FixtureRequest, remote: Remote) -> tuple[list[str], dict[str, Any]]:
    """How to build what lies on a server, without the cache, and what an uninterrupted build comes to."""
    files = pictures(KILLED_FILES)
    remote.put(files)
    remote.server.put("/010.png", files["/010.png"][:60])  # no picture
    remote.server.put("/020.png", b"", "missing")
    remote.server.put("/t.tar", shard_of({f"{key}.png": picture(7000 + key) for key in range(5)}))
    source = remote.urls([*files, "/t.tar"])
    options = ["--scratch-gb", request.param / 1e9, "--downloads", 4, "--retries", 0]
    cache = remote.folder / "whole"
    report = remote.lab.build(source, cache, *options, status=1)
    assert (report["computed"], report["failed"]) == (KILLED_FILES + 5 - 2, 2)
    return [source, *map(str, options)], dict(remote.lab.contents(cache))


def test_killed_and_run_again_ends_bit_identical(
    remote: Remote, forks: Any, killable: tuple[list[str], dict[str, Any]]
) -> None:
    (source, *options), whole = killable
    lab, chance = remote.lab, random.Random(0)
    environ = {"FORWARD_WAIT_S": "0.01", "no_proxy": "*"}
    num_killed, working_s = 0, 0.0
    for attempt in range(30):
        cache = lab.folder / f"cache{attempt}"
        args = lab.build_args(source, cache, *options)
        pid = forks.start(*args, environ=environ)
        lab.wait_for(lambda cache=cache: lab.files(cache, "leases"), "the lease")
        began = time.monotonic()
        if not working_s:  # the first run tells how long there is to choose from
            assert forks.wait(pid) == 1
            working_s = time.monotonic() - began
            assert lab.contents(cache) == whole
            continue
        time.sleep(chance.random() * working_s)
        forks.kill(pid, signal.SIGKILL)
        if forks.wait(pid) != -signal.SIGKILL:  # it was faster
            continue
        assert lab.damage(cache) == []
        kept = sum(
            shard["num_rows"]
            for name, document in lab.contents(cache).items()
            if name.startswith("manifests/")
            for shard in document["shards"]
        )
        done = forks.run(*args, "--json", "-", environ={"no_proxy": "*"})
        assert (done.status, done.errors) == (1, [])
        assert (done.json["computed"], done.json["failed"]) == (KILLED_FILES + 5 - 2 - kept, 2)
        assert lab.contents(cache) == whole
        assert [*lab.leftovers(cache), *lab.files(cache, "scratch")] == []
        assert lab.damage(cache) == []
        num_killed += 1
        if num_killed == 6:
            return
    pytest.fail(f"only {num_killed} builds were killed before they ended")
