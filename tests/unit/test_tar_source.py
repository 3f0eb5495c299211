"""Tar shards as sources, friendly and hostile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fovcache.errors import SourceError
from fovcache.keys.digest import bytes_digest
from fovcache.sources.scan import Scan, scan_sources
from fovcache.store.memo import Memo

SUFFIXES = frozenset({".jpg", ".png"})


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def write_tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def scan(*paths: object) -> Scan:
    return scan_sources([str(path) for path in paths], SUFFIXES, Memo(None))


def test_annotations_belong_to_the_input_of_the_same_name(tmp_path: Path) -> None:
    fields = {"label": 7, "caption": "from json", "group": "g", "split": "val", "other": [1]}
    members = [
        member("a/x.1.jpg", b"one"),
        member("a/x.1.cls", b" 3\n"),
        member("a/x.1.txt", b"ein Hund"),
        member("b.JPG", b"two"),
        member("b.json", json.dumps(fields).encode()),
        member("c.png", b"three"),
        member("readme.md", b"not ours"),
        member("._c.png", b"what another system hides beside a file"),
    ]
    first, second, third = scan(write_tar(tmp_path / "s.tar", members)).samples
    assert (first.uri, first.key, first.label, first.caption) == (
        "s.tar#a/x.1.jpg",
        bytes_digest(b"one"),
        3,
        "ein Hund",
    )
    assert (second.label, second.caption, second.group, second.split) == (7, "from json", "g", "val")
    assert (third.label, third.caption, third.group, third.split) == (None, None, None, None)


def test_the_command_lines_split_comes_before_the_archives(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [member("a.jpg", b"1"), member("a.json", b'{"split": "val"}')])
    assert [sample.split for sample in scan(f"train={tmp_path}/s.tar").samples] == ["train"]


def test_bytes_are_read_in_place(tmp_path: Path) -> None:
    found = scan(write_tar(tmp_path / "s.tar", [member("a.jpg", b"x" * 700), member("b.jpg", b"y" * 3)]))
    assert [found.locations[sample.key].read() for sample in found.samples] == [b"x" * 700, b"y" * 3]


HOSTILE = {
    "absolute": member("/etc/a.jpg", b"x"),
    "climbing": member("../a.jpg", b"x"),
    "climbing inside": member("a/../../b.jpg", b"x"),
    "symbolic link": member("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("a.jpg", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),
    "device": member("a.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "fifo": member("a.jpg", type=tarfile.FIFOTYPE),
    "new line": member("a\nb.jpg", b"x"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_member_is_refused_and_its_neighbours_are_kept(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes]
) -> None:
    good = [member("0.jpg", b"good"), hostile, member("z.jpg", b"also good")]
    found = scan(write_tar(tmp_path / "s.tar", good))
    assert [sample.uri for sample in found.samples] == ["s.tar#0.jpg", "s.tar#z.jpg"]
    (refused,) = found.unreadable
    assert "refused" in refused.reason
    assert refused.permanent


def test_a_member_larger_than_the_archive_is_not_believed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [member("a.jpg", b"good")])
    info = tarfile.TarInfo("huge.jpg")
    info.size = 1 << 60
    data = path.read_bytes()[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 512
    path.write_bytes(data)
    found = scan(path)
    assert [sample.uri for sample in found.samples] == ["s.tar#a.jpg"]
    assert "ends inside" in found.unreadable[0].reason


def test_one_name_twice_is_a_fault_and_not_a_choice(tmp_path: Path) -> None:
    found = scan(write_tar(tmp_path / "s.tar", [member("a.jpg", b"1"), member("a.jpg", b"2")]))
    assert len(found.samples) == 1
    assert "twice" in found.unreadable[0].reason


@pytest.mark.parametrize(
    "members",
    [
        [member("a.jpg", b"1"), member("a.png", b"2")],
        [member("a.cls", b"1")],
        [member("a.jpg", b"1"), member("a.cls", b"one")],
        [member("a.jpg", b"1"), member("a.cls", b"9" * 30)],
        [member("a.jpg", b"1"), member("a.txt", b"\xff")],
        [member("a.jpg", b"1"), member("a.json", b"[1]")],
        [member("a.jpg", b"1"), member("a.json", b'{"label": true}')],
        [member("a.jpg", b"1"), member("a.json", b"{" * 100_000)],
        [member("a.jpg", b"1"), member("a.txt", b"x" * (1 << 21))],
    ],
    ids=["two inputs", "no input", "text class", "huge class", "not utf-8", "list", "true", "deep", "long"],
)
def test_an_annotation_that_cannot_be_understood_loses_its_sample_alone(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    found = scan(write_tar(tmp_path / "s.tar", [*members, member("good.jpg", b"good")]))
    assert [sample.uri for sample in found.samples] == ["s.tar#good.jpg"]
    assert len(found.unreadable) == 1


def test_a_truncated_archive_keeps_its_whole_samples_and_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [member(f"{n}.jpg", bytes([n]) * 600) for n in range(8)])
    whole = path.read_bytes()
    for length in range(1600, 8 * 1536, 531):
        path.write_bytes(whole[:length])
        found = scan(path)
        expected = [sample for sample in range(8) if sample * 1536 + 512 + 600 <= length]
        assert [sample.uri for sample in found.samples] == [f"s.tar#{n}.jpg" for n in expected]
        assert len(found.unreadable) == 1


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"no tar" * 200), lambda p: p.write_bytes(b"")])
def test_a_file_that_is_no_tar_is_an_error(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "s.tar")
    with pytest.raises(SourceError, match="not a plain tar"):
        scan(tmp_path / "s.tar")


def test_a_compressed_tar_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:gz") as archive:
        archive.addfile(*[part if index == 0 else io.BytesIO(part) for index, part in enumerate(member("a.jpg", b"x"))])
    with pytest.raises(SourceError, match="unpacked"):
        scan(tmp_path / "s.tar")
