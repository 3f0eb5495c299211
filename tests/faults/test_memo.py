"""The memo of file digests: it saves reading, and never gives a wrong key."""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fovcache.keys.digest import file_digest
from fovcache.sources import scan
from fovcache.sources.scan import scan_sources
from fovcache.store.memo import RACY_NS, Memo

PNG = frozenset({".png"})


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of files that have not changed for so long that the memo trusts their times."""
    root = tmp_path_factory.mktemp("settled")
    for name in ("kept", "edited", "moved", "built"):
        (root / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (number, len(name), 0)).save(root / name / f"{number}.png")
        write_tar(root / name / "shard.tar", shade=len(name))
    time.sleep(RACY_NS / 1e9 + 0.1)
    return root


def write_tar(path: Path, *, shade: int) -> None:
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            data = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 99, shade)).save(data, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(data.getvalue())
            archive.addfile(member, io.BytesIO(data.getvalue()))


def keys(source: Path, memo: Memo, suffixes: frozenset[str] = PNG) -> dict[str, str]:
    """Each sample's key by its uri, as a scan finds them; the memo is written."""
    found = scan_sources([str(source)], suffixes, memo)
    assert found.unreadable == ()
    memo.save()
    return {sample.uri: sample.key for sample in found.samples}


@pytest.fixture
def memo(settled: Path, tmp_path: Path) -> Path:
    """A memo that knows the files in `kept` and `edited`."""
    keys(settled / "kept", Memo(tmp_path / "memo.sqlite"))
    keys(settled / "edited", Memo(tmp_path / "memo.sqlite"))
    return tmp_path / "memo.sqlite"


@pytest.fixture
def reads(memo: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, from then on, for their digest or their members."""
    found: list[str] = []
    for name in ("file_digest", "read_tar"):
        original = getattr(scan, name)

        def spy(path: Any, *args: Any, original: Any = original) -> Any:
            found.append(Path(path).name)
            return original(path, *args)

        monkeypatch.setattr(scan, name, spy)
    return found


def test_unchanged_files_are_not_read_again(settled: Path, memo: Path, reads: list[str]) -> None:
    expected = keys(settled / "kept", Memo(None))
    assert len(reads) == 5
    reads.clear()
    assert keys(settled / "kept", Memo(memo)) == expected
    assert reads == []


def test_rehash_reads_every_file(settled: Path, memo: Path, reads: list[str]) -> None:
    keys(settled / "kept", Memo(memo, ignore=True))
    assert len(reads) == 5


def test_a_shards_members_are_remembered_for_one_kind_of_input(settled: Path, memo: Path, reads: list[str]) -> None:
    assert len(keys(settled / "kept", Memo(memo), PNG | {".jpg"})) == 7
    assert reads == ["shard.tar"]


def test_a_new_file_is_read_again_until_its_times_are_settled(tmp_path: Path, memo: Path, reads: list[str]) -> None:
    source = tmp_path / "new"
    source.mkdir()
    (source / "new.png").write_bytes(b"new")
    for _ in range(2):
        keys(source, Memo(memo))
    assert reads == ["new.png"] * 2


def test_edits_that_keep_size_and_mtime_are_seen(settled: Path, memo: Path, reads: list[str]) -> None:
    source = settled / "edited"
    before = keys(source, Memo(memo))
    for name in ("1.png", "shard.tar"):
        path = source / name
        stat = path.stat()
        with path.open("r+b") as file:
            data = bytearray(file.read())
            data[data.index(b"IDAT") + 6] ^= 1
            file.seek(0)
            file.write(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    after = keys(source, Memo(memo))
    assert sorted(reads) == ["1.png", "shard.tar"]
    assert after == keys(source, Memo(None))
    assert {uri for uri in before if after[uri] != before[uri]} == {"1.png", "shard.tar#0.png"}


def test_edits_within_the_clocks_grain_are_seen(tmp_path: Path) -> None:
    source, memo = tmp_path / "own", tmp_path / "memo.sqlite"
    source.mkdir()
    path = source / "a.png"
    for number in range(100):
        path.write_bytes(number.to_bytes(8, "little"))
        keys(source, Memo(memo))
        with path.open("r+b", buffering=0) as file:  # in the same tick, more often than not
            file.write(number.to_bytes(8, "big"))
        assert keys(source, Memo(memo)) == {"a.png": file_digest(path)}


def test_a_moved_source_is_read_anew_and_its_features_are_reused(settled: Path, lab: Any) -> None:
    cache, source = lab.folder / "cache", settled / "moved"
    first = lab.build(source, cache)
    elsewhere = settled / "elsewhere" / "moved"
    elsewhere.parent.mkdir()
    source.rename(elsewhere)
    second = lab.build(elsewhere, cache)
    assert (second["computed"], second["reused"], second["failed"]) == (0, 7, 0)
    assert (second["dataset"], second["dataset_name"]) == (first["dataset"], first["dataset_name"])
    assert lab.run("verify", "--cache", cache, "--recompute", 2).status == 0  # it knows where they are now


def test_a_build_without_its_memo_reads_everything_and_computes_nothing(settled: Path, lab: Any) -> None:
    cache, source = lab.folder / "cache", settled / "built"
    lab.build(source, cache)
    (cache / "memo.sqlite").unlink()
    assert lab.build(source, cache)["computed"] == 0
    assert lab.build(source, cache, "--rehash")["computed"] == 0


@pytest.mark.parametrize("data", [b"", b"no database", bytes(8192), b"SQLite format 3\0" + bytes(4080)])
def test_a_memo_that_is_no_database_is_done_without_and_made_anew(
    settled: Path, memo: Path, reads: list[str], data: bytes
) -> None:
    expected = keys(settled / "kept", Memo(None))
    memo.write_bytes(data)
    assert keys(settled / "kept", Memo(memo)) == expected
    reads.clear()
    assert keys(settled / "kept", Memo(memo)) == expected
    assert reads == []


def test_a_changed_digest_in_a_row_is_not_believed(settled: Path, memo: Path, reads: list[str]) -> None:
    expected = keys(settled / "kept", Memo(memo))
    with sqlite3.connect(memo) as connection:
        rows = connection.execute("SELECT path, value FROM memo").fetchall()
        for path, value in rows:
            changed = bytes([value[0] ^ 1]) + value[1:]
            connection.execute("UPDATE memo SET value = ? WHERE path = ?", (changed, path))
    connection.close()
    assert keys(settled / "kept", Memo(memo)) == expected
    assert len(reads) == 5


@pytest.mark.parametrize("column", ["size", "mtime_ns", "hashed_ns", "value", "seal"])
@pytest.mark.parametrize("value", [None, -1, 1.5, "text", b"\xff\xfe"])
def test_a_row_with_a_value_of_another_kind_is_not_believed(
    settled: Path, memo: Path, column: str, value: object
) -> None:
    expected = keys(settled / "kept", Memo(memo))
    with sqlite3.connect(memo) as connection:
        connection.execute(f"UPDATE memo SET {column} = ?", (value,))
    connection.close()
    assert keys(settled / "kept", Memo(memo)) == expected


def test_no_flipped_byte_in_the_memo_gives_a_wrong_key(settled: Path, memo: Path, tmp_path: Path) -> None:
    expected = keys(settled / "kept", Memo(None))
    sound, chance = memo.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(sound)
        data[chance.randrange(len(data))] = chance.randrange(256)
        damaged = tmp_path / "damaged.sqlite"
        damaged.write_bytes(data)
        assert keys(settled / "kept", Memo(damaged)) == expected


def test_a_copied_source_with_its_times_kept_is_read(settled: Path, memo: Path, reads: list[str]) -> None:
    copy = shutil.copytree(settled / "kept", settled / "copy")
    assert keys(copy, Memo(memo)) == keys(settled / "kept", Memo(memo))
    assert len(reads) == 5
