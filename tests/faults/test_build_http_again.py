"""What is asked of servers and computed again: new versions, what was lost, what a killed build still owed."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remote_builds import HURRIED, SMALL_BYTES, Remote, picture, pictures, reasons, shard_of

from fovcache.builder.downloads import Downloads
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.fetch.fetcher import Fetcher
from fovcache.keys.digest import bytes_digest
from fovcache.maintain.estimate import estimate
from fovcache.maintain.explain import explain
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.repair import repair
from fovcache.sources.place import Place
from fovcache.store.url_memo import UrlMemo


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


def test_downloads_that_are_closed_give_no_part_of_a_wave(remote: Remote, tmp_path: Path) -> None:
    """It would be planned as if it were a whole one."""
    urls = [remote.server.put("/a.png", picture(1)), remote.server.put("/b.png", picture(2), "stalls")]
    fetcher = Fetcher(replace(HURRIED, read_timeout_s=60, retries=0), tmp_path / "scratch", UrlMemo(None))
    downloads = Downloads(fetcher, frozenset({".png"}), concurrency=2, scratch_bytes=SMALL_BYTES)
    waves: list[list[Place]] = []

    def take() -> None:
        with contextlib.suppress(CancelledError):
            waves.extend(downloads.waves([Place.of_url(url) for url in urls], lambda place: False))

    thread = threading.Thread(target=take)
    thread.start()
    remote.lab.wait_for(lambda: remote.server.files["/b.png"].num_asked, "the stalled download")
    time.sleep(0.05)
    downloads.close()
    thread.join(10)
    assert not thread.is_alive()
    assert waves == []


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
    environ = {"FORWARD_WAIT_S": "0.005", "no_proxy": "*"}
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
        if forks.wait(pid) != -signal.SIGKILL:  # it was faster: the first one had less of the machine
            working_s *= 0.8
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
        if num_killed == 4:
            return
    pytest.fail(f"only {num_killed} builds were killed before they ended")
