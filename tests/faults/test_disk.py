"""Full and read-only disks: one clear line, status 3, a valid cache, and the same command goes on afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disk import ROOMY, SmallDisk

NUM_SAMPLES = 30


class Folder:
    """A folder that can be made read-only, by its permissions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def remount(self, options: str) -> None:
        for path in (self.path, *self.path.rglob("*")):
            path.chmod((0o500 if path.is_dir() else 0o400) | (0o200 if options == "rw" else 0))

    def close(self) -> None:
        self.remount("rw")


@pytest.fixture
def lockable(tmp_path: Path) -> Iterator[SmallDisk | Folder]:
    """A place that can be made read-only: a file system for root, whom permissions do not stop."""
    place = SmallDisk(tmp_path / "disk") if os.geteuid() == 0 else Folder(tmp_path / "disk")
    yield place
    place.close()


@pytest.fixture(scope="module")
def source(shared_lab: Any) -> Path:
    return Path(shared_lab.pictures(NUM_SAMPLES))


@pytest.fixture(scope="module")
def whole(shared_lab: Any, source: Path) -> dict[str, Any]:
    """What a build comes to that nothing stopped."""
    cache = shared_lab.folder / "whole"
    shared_lab.build(source, cache)
    return dict(shared_lab.contents(cache))


def assert_one_line(done: Any, status: int, *said: str) -> None:
    assert done.status == status, done
    assert len(done.err.splitlines()) == 1, done
    assert done.err.startswith("error: ")
    assert all(words in done.err for words in said), done


@pytest.mark.parametrize("size", ["4k", "12k", "24k", "36k", "60k", "80k", "112k"])
def test_a_build_on_a_full_disk_stops_and_goes_on_when_there_is_room(
    shared_lab: Any, source: Path, whole: dict[str, Any], disk: SmallDisk, size: str
) -> None:
    cache = disk.path / "cache"
    disk.remount(f"size={size}")
    done = shared_lab.run(*shared_lab.build_args(source, cache))
    assert_one_line(done, 3, "the disk is full", "run the same command again")
    assert shared_lab.leftovers(cache) == shared_lab.files(cache, "plans")
    assert shared_lab.run("verify", "--cache", cache).status == 0
    disk.remount(f"size={ROOMY}")
    assert shared_lab.build(source, cache)["failed"] == 0
    assert shared_lab.contents(cache) == whole
    assert shared_lab.leftovers(cache) == []
    assert shared_lab.run("verify", "--cache", cache).status == 0


def test_a_file_size_limit_stops_a_build_like_a_full_disk(
    shared_lab: Any, forks: Any, source: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    done = forks.run(*shared_lab.build_args(source, cache), file_size_limit=3000)
    assert_one_line(done, 3, "cannot write", "too large")
    assert shared_lab.leftovers(cache) == shared_lab.files(cache, "plans")
    assert shared_lab.run("verify", "--cache", cache).status == 0
    shared_lab.build(source, cache)
    assert shared_lab.contents(cache) == whole


def test_a_whole_cache_on_a_read_only_disk_is_used_and_not_written(
    shared_lab: Any, source: Path, lockable: SmallDisk | Folder, tmp_path: Path
) -> None:
    cache = lockable.path / "cache"
    shared_lab.build(source, cache)
    refusal = "the file system is read-only" if os.geteuid() == 0 else "permission denied"
    lockable.remount("ro")
    warm = shared_lab.run(*shared_lab.build_args(source, cache, "--json", "-"))
    assert (warm.status, warm.errors) == (0, [])
    assert (warm.json["computed"], warm.json["reused"]) == (0, NUM_SAMPLES)
    for command in (("ls",), ("info",), ("verify", "--recompute", 2), ("export", "--out", tmp_path / "x.h5")):
        assert shared_lab.run(*command, "--cache", cache).status == 0
    assert_one_line(shared_lab.run(*shared_lab.build_args(source, cache, "--layers", "head")), 3, refusal)
    dropped = shared_lab.run("gc", "--cache", cache, "--grace-hours", 0, "--drop", "src")
    assert_one_line(dropped, 3, refusal)
    more = shared_lab.pictures(3, seed=1, name="more")
    assert_one_line(shared_lab.run(*shared_lab.build_args(more, cache)), 3, refusal)
    lockable.remount("rw")
    assert shared_lab.run("verify", "--cache", cache).status == 0
    assert shared_lab.leftovers(cache) == []


def test_what_a_killed_build_left_does_not_keep_a_read_only_cache_from_being_read(
    shared_lab: Any, forks: Any, source: Path, lockable: SmallDisk | Folder, tmp_path: Path
) -> None:
    cache = lockable.path / "cache"
    shared_lab.build(source, cache)
    counter = tmp_path / "events"
    args = shared_lab.build_args(source, cache, "--layers", "head")
    assert forks.run(*args, events=str(counter), watch=str(cache), from_plan=True, die_at=8).status == -9
    assert shared_lab.leftovers(cache)
    lockable.remount("ro")
    warm = shared_lab.run(*shared_lab.build_args(source, cache))
    assert (warm.status, warm.errors) == (0, [])


def test_a_folder_without_permission_is_one_line(shared_lab: Any, source: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permission bits do not stop root")
    tmp_path.chmod(0o500)
    try:
        done = shared_lab.run(*shared_lab.build_args(source, tmp_path / "cache"))
    finally:
        tmp_path.chmod(0o700)
    assert_one_line(done, 3, "permission denied")


@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_an_export_to_a_full_disk_leaves_nothing(
    shared_lab: Any, source: Path, disk: SmallDisk, tmp_path: Path, suffix: str
) -> None:
    cache = tmp_path / "cache"
    shared_lab.build(source, cache)
    disk.remount("size=16k")
    done = shared_lab.run("export", "--cache", cache, "--out", disk.path / f"x{suffix}")
    assert_one_line(done, 3, "the disk is full")
    assert list(disk.path.iterdir()) == []


def test_json_on_a_full_device_is_one_line(shared_lab: Any, source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shared_lab.build(source, cache)
    assert_one_line(shared_lab.run("ls", "--cache", cache, "--json", "/dev/full"), 3, "the disk is full")
    with Path("/dev/full").open("w") as full:
        process = shared_lab.start("ls", "--cache", cache, "--json", "-", stdout=full)
        assert_one_line(shared_lab.finish(process), 3, "the disk is full")
