"""Tar shards whose headers lie: they cost their own samples, never a hang, a crash or all of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fovcache
from fovcache.errors import SourceError
from fovcache.sources.scan import Scan, scan_sources
from fovcache.sources.tar_shards import read_tar
from fovcache.store.memo import Memo

SUFFIXES = frozenset({".jpg", ".png"})
BLOCK = 512
END = bytes(2 * BLOCK)


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A ustar header; sizes that octal digits cannot hold are written in base 256, as GNU tar does."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    is_plain = 0 <= size < 8**11
    block[124:136] = b"%011o\0" % size if is_plain else (size % 2**96 | (size >= 0) << 95).to_bytes(12, "big")
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + padded(data)


def pax(*records: bytes) -> bytes:
    """An extended header for the member that follows; each record says its own length."""
    lines = [next(line for n in range(99) if len(line := b"%d %s\n" % (n, record)) == n) for record in records]
    return member(b"pax", b"".join(lines), b"x")


GOOD = member(b"a.jpg", b"good")


def scan(tmp_path: Path, data: bytes) -> Scan:
    (tmp_path / "s.tar").write_bytes(data)
    return scan_sources([str(tmp_path / "s.tar")], SUFFIXES, Memo(None))


LIES = {
    "a size below zero": header(b"b.jpg", -BLOCK),
    "a size that leads back to the first header": header(b"b.jpg", -3 * BLOCK),
    "an extended size below zero": pax(b"size=-512") + header(b"b.jpg", 0),
    "an extended size beyond the end": pax(b"size=99999999999") + header(b"b.jpg", 0),
    "a folder with a size below zero": header(b"b", -BLOCK, b"5"),
    "a long name of a size below zero": header(b"b", -BLOCK, b"L"),
    "a long name of an exbibyte": header(b"b", 1 << 60, b"L"),
    "a long name of more than 64 bits": header(b"b", 1 << 90, b"L"),
    "an extended header of an exbibyte": header(b"b", 1 << 60, b"x"),
    "three thousand long names in a row": member(b"b", b"name\0", b"L") * 3000,
    "three thousand extended headers in a row": pax(b"path=b") * 3000,
    "an extended header whose records have no length": member(b"b", b"0 path=b\n", b"x"),
    "a sparse map that is no list of numbers": pax(b"GNU.sparse.map=0,3,x,") + member(b"b.jpg", b"x"),
    "a sparse map longer than the archive": pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0")
    + member(b"b.jpg", b"99999999\n1\n"),
    "a sparse file": header(b"b.jpg", 0, b"S"),
    "a header without its checksum": header(b"b.jpg", 4)[:148] + bytes(8) + header(b"b.jpg", 4)[156:],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_costs_what_follows_it_and_is_said(tmp_path: Path, lie: bytes) -> None:
    found = scan(tmp_path, GOOD + lie + END)
    assert [sample.uri for sample in found.samples] == ["s.tar#a.jpg"]
    assert len(found.unreadable) == 1
    assert found.unreadable[0].permanent


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_archive_that_begins_with_a_lie_is_refused_or_said(tmp_path: Path, lie: bytes) -> None:
    try:
        found = scan(tmp_path, lie + GOOD + END)
    except SourceError as error:
        assert "s.tar is not a plain tar archive" in str(error)  # noqa: PT017 - either way will do
    else:
        assert found.unreadable


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD, "marker is missing"),
        (GOOD + bytes(100), "ends early"),
        (GOOD + b"x" * BLOCK, "marker is missing"),
        (GOOD + END + member(b"b.jpg", b"more") + END, "more data follows its end"),
        (GOOD + bytes(BLOCK) + member(b"b.jpg", b"more") + END, "more data follows its end"),
        (member(b"a.jpg", bytes(BLOCK)) + b"x" * BLOCK + END, "marker is missing"),
    ],
    ids=[
        "no end",
        "a short end",
        "garbage",
        "two archives in one",
        "a block lost in the middle",
        "zeros before garbage",
    ],
)
def test_what_stands_after_the_last_sample_is_not_passed_over(tmp_path: Path, data: bytes, said: str) -> None:
    found = scan(tmp_path, data)
    assert [sample.uri for sample in found.samples] == ["s.tar#a.jpg"]
    assert said in found.unreadable[0].reason


@pytest.mark.parametrize("end", [bytes(BLOCK), END, bytes(20 * BLOCK)])
def test_any_number_of_zero_blocks_is_an_end(tmp_path: Path, end: bytes) -> None:
    found = scan(tmp_path, GOOD + end)
    assert (len(found.samples), found.unreadable) == (1, ())


def test_names_and_texts_that_are_no_utf_8_are_kept_or_said(tmp_path: Path) -> None:
    data = member(b"\xff.jpg", b"one") + member(b"b.jpg", b"two") + member(b"b.json", b'{"caption": "\\ud800"}') + END
    found = scan(tmp_path, data)
    assert [sample.uri for sample in found.samples] == ["s.tar#\\xff.jpg"]
    assert [item.uri for item in found.unreadable] == ["s.tar#b.jpg"]
    assert "caption has half a surrogate pair" in found.unreadable[0].reason


def test_a_build_of_a_lying_archive_keeps_the_rest(tmp_path: Path, make_images: object) -> None:
    images = make_images(tmp_path / "images", 2)
    data = b"".join(member(path.name.encode(), path.read_bytes()) for path in sorted(images.iterdir()))
    (tmp_path / "s.tar").write_bytes(data + header(b"x.png", -BLOCK) + END)
    cache = fovcache.open(tmp_path / "cache")
    report = cache.build(str(tmp_path / "s.tar"), encoder="pixels", num_workers=1)
    assert (report.samples, report.computed, report.failed, report.exit_status) == (3, 2, 1, 1)
    assert report.failures[0].uri == "s.tar#x.png"
    assert len(cache.features()) == 2


@given(data=st.data())
def test_no_flipped_byte_raises_anything_but_a_source_error(data: st.DataObject, tmp_path_factory: object) -> None:
    archive = bytearray(
        pax(b"path=a.jpg", b"mtime=1.5") + member(b"x", b"one") + member(b"b", b"bb.jpg\0", b"L") + GOOD * 2 + END
    )
    for position in data.draw(st.lists(st.integers(0, len(archive) - 1), min_size=1, max_size=3)):
        archive[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    path.write_bytes(archive)
    try:
        entries = read_tar(path, SUFFIXES)
    except SourceError:
        return
    for entry in entries:
        assert entry.fault or len(entry.digest) == 64
