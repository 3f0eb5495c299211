"""URL lists as sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovcache.errors import SourceError
from fovcache.sources.entry import Entry
from fovcache.sources.url_list import read_url_list, url_entries


def read(path: Path, data: bytes, **options: object) -> list[Entry]:
    path.write_bytes(data)
    return list(read_url_list(path, 2, "train", **options))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_one_url_a_line_with_comments_and_empty_lines(tmp_path: Path, mark: bytes, end: bytes) -> None:
    lines = [b"https://h.org/a.mp4", b"", b"# a comment", b"  http://127.0.0.1:8000/b c.mp4?x=1#t \t", b"   "]
    found = read(tmp_path / "list.txt", mark + end.join(lines))
    assert [(entry.uri, entry.place, entry.source, entry.split, entry.fault) for entry in found] == [
        (url, url, 2, "train", "") for url in ("https://h.org/a.mp4", "http://127.0.0.1:8000/b c.mp4?x=1#t")
    ]
    assert all(entry.is_remote for entry in found)


def test_secrets_stay_in_the_place(tmp_path: Path) -> None:
    (entry,) = read(tmp_path / "list.txt", b"https://me:hunter2@h.org/a.mp4?token=s3cret&v=1")
    assert entry.place == "https://me:hunter2@h.org/a.mp4?token=s3cret&v=1"
    assert "hunter2" not in entry.uri
    assert "s3cret" not in entry.uri
    assert entry.uri.startswith("https://h.org/a.mp4?")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("clips/a.mp4", "manifest"),
        ("/clips/a.mp4", "manifest"),
        ("file:///etc/passwd", "scheme-refused"),
        ("FILE:/etc/passwd", "scheme-refused"),
        ("ftp://me:hunter2@h.org/a.mp4", "scheme-refused"),
        ("s3://bucket/a.mp4", "scheme-refused"),
        ("data:video/mp4;base64,AAAA", "scheme-refused"),
        ("javascript:alert(1)", "scheme-refused"),
        ("C:\\clips\\a.mp4", "scheme-refused"),
        ("https://", "cannot be understood"),
        ("http:///a.mp4", "cannot be understood"),
        ("https:/h.org/a.mp4", "cannot be understood"),
        ("https://me:hunter2@h.org:port/a", "cannot be understood"),
        ("https://me:hun/ter2@h.org/a", "cannot be understood"),
        ("https://[::1/a", "cannot be understood"),
        ("https://h.org:99999/a", "cannot be understood"),
        ("https://h.org/a\0.mp4", "NUL"),
        ("https://h.org/a\x1b[31m.mp4", "control characters"),
        ("https://h.org/" + "x" * (1 << 20), "at most 1048576"),
    ],
)
def test_a_line_that_is_no_url_is_a_fault_beside_its_neighbours(tmp_path: Path, line: str, reason: str) -> None:
    text = f"https://h.org/1.mp4\n{line}\nhttps://h.org/2.mp4\n"
    first, fault, last = read(tmp_path / "list.txt", text.encode())
    assert (first.fault, last.fault) == ("", "")
    assert [first.uri, last.uri] == ["https://h.org/1.mp4", "https://h.org/2.mp4"]
    assert reason in fault.fault
    assert fault.fault.endswith("(list.txt:2)")
    assert (fault.place, fault.is_remote) == ("", False)
    assert fault.uri
    assert fault.uri.isprintable()
    assert len(fault.uri) <= 200 + 3 * 200
    assert "ter2" not in fault.uri + fault.fault


def test_file_urls_are_paths_where_they_are_allowed(tmp_path: Path) -> None:
    lines = [
        f"file://{tmp_path}/a%20b%C3%A9.mp4",
        f"file://localhost{tmp_path}/x.mp4",
        "file:/elsewhere/y.mp4",
        "file://host/etc/passwd",
        "file:relative.mp4",
        "file:///a%FF.mp4",
        "file:///a%00.mp4",
        "file:///a#b.mp4",
        "file:///a?b.mp4",
    ]
    found = read(tmp_path / "list.txt", "\n".join(lines).encode(), allow_file_urls=True)
    assert [(entry.uri, entry.place) for entry in found[:3]] == [
        ("a bé.mp4", f"{tmp_path}/a bé.mp4"),
        ("x.mp4", f"{tmp_path}/x.mp4"),
        ("/elsewhere/y.mp4", "/elsewhere/y.mp4"),
    ]
    assert not any(entry.fault or entry.is_remote for entry in found[:3])
    assert all(entry.fault and not entry.place for entry in found[3:])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"# only\n\n# comments\n", "is empty"),
        ("https://h.org/a.mp4\n".encode("utf-16"), "UTF-16"),
        ("https://h.org/a.mp4\n".encode("utf-16-le"), "UTF-16"),
        ("https://h.org/a.mp4\n".encode("utf-32-be"), "UTF-16"),
        (b"https://h.org/\xe9.mp4\n", "is not UTF-8: byte 0xe9"),
        (b"\x1f\x8b\x08\x00\x00" + bytes(range(256)), "not UTF-8"),
    ],
)
def test_what_is_no_list_is_one_clear_error(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(SourceError, match=expected) as raised:
        read(tmp_path / "list.txt", data)
    assert str(tmp_path / "list.txt") in str(raised.value)


def test_a_list_that_is_not_there_or_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for name in ("nowhere.txt", "folder.txt"):
        with pytest.raises(SourceError, match="cannot be read"):
            list(read_url_list(tmp_path / name, 0, None))


def test_a_source_that_is_a_url_lists_itself() -> None:
    good, bad = url_entries(["https://h.org/a.tar?sig=abc", "https://h.org:x/a.tar"], 1, "val")
    assert (good.place, good.split, good.source, good.fault) == ("https://h.org/a.tar?sig=abc", "val", 1, "")
    assert "abc" not in good.uri
    assert bad.fault
