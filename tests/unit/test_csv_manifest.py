"""Manifests as CSV: labels and times written as text, and rows that are none."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fovcache.errors import SourceError
from fovcache.sources.entry import Entry
from fovcache.sources.manifest import read_manifest


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path, text: str | None = None) -> list[Entry]:
    if text is not None:
        path.write_text(text, encoding="utf-8", newline="")
    return list(read_manifest(path, 0, None))


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["1", "-2", "", "0"], [1, -2, None, 0]),
        (["007", "7"], ["007", "7"]),
        (["1", "2.0"], ["1", "2.0"]),
        (["1", "cat"], ["1", "cat"]),
        (["1", " 2"], ["1", " 2"]),
        (["+1"], ["+1"]),
        (["-0"], ["-0"]),
        (["١"], ["١"]),
        ([str(2**63 - 1), str(-(2**63))], [2**63 - 1, -(2**63)]),
        ([str(2**63), "1"], [str(2**63), "1"]),
        (["9" * 5000], ["9" * 5000]),
        (["True"], ["True"]),
    ],
)
def test_csv_labels_are_integers_if_all_of_them_are(tmp_path: Path, texts: list[str], labels: list[Any]) -> None:
    path = write(tmp_path / "m.csv", [{"uri": "a", "label": text} for text in texts])
    assert [(entry.label, entry.fault) for entry in read(path)] == [(label, "") for label in labels]


def test_one_label_that_makes_all_of_them_text_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "m.csv", [{"uri": "a", "label": text} for text in ("1", "2", "3x")])
    read(path)
    (warning,) = caplog.messages
    assert "all labels are text" in warning
    assert "line 4 is '3x'" in warning


def test_a_row_at_fault_does_not_decide_what_labels_are(tmp_path: Path) -> None:
    found = read(tmp_path / "m.csv", "uri,label\na,1\nb,x,y\nc,2\n")
    assert [entry.label for entry in found] == [1, None, 2]


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        ("", "", (None, None)),
        ("1", "2", (1.0, 2.0)),
        (" .5 ", "1e1", (0.5, 10.0)),
        ("0", "", (0.0, None)),
        ("-0", "", (0.0, None)),
        ("", "+3.", (0.0, 3.0)),
    ],
)
def test_csv_times(tmp_path: Path, start: str, end: str, window: tuple[float | None, float | None]) -> None:
    (entry,) = read(tmp_path / "m.csv", f"uri,start_s,end_s\na,{start},{end}\n")
    assert ((entry.start_s, entry.end_s), entry.fault) == (window, "")


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "0x10", "1:30", "1e999", "-1", "1,5", "one"])
def test_csv_times_that_are_no_seconds_are_faults_with_their_value(tmp_path: Path, text: str) -> None:
    bad, good = read(write(tmp_path / "m.csv", [{"uri": "a", "start_s": text}, {"uri": "b", "start_s": 1}]))
    assert "start_s is" in bad.fault
    assert bad.fault.endswith("(m.csv:2)")
    assert (good.start_s, good.fault) == (1.0, "")


NO_ROWS: dict[str, tuple[str, list[str], list[int] | None]] = {
    "ragged": ("a,x\nb,x,y\nc\nd,z\n", ["a", "d"], [3, 4]),
    "open quote": ('a,"x\nb,y\nc,z\n', ["b", "c"], [2]),
    "two open quotes": ('a,"x\nb,y\nc,"z\nd,w\n', ["b", "d"], [2, 4]),
    "text after a quote": ('a,"x" y\nb,z\n', ["b"], [2]),
    "lines inside quotes": ('a,"one\ntwo"\nb,c,d\ne,f\n', ["a", "e"], [4]),
    "nul": ("a,x\0\nb,y\n", ["b"], [2]),
    "nul tail": ("a,x\n\0\0\0\0", ["a"], [3]),
    "long field": ("a," + "x" * (3 << 20) + "\nb,y\n", ["b"], [2]),
    "long record": ('a,"' + ("x" * 1000 + "\n") * 2500 + '"\nb,y\n', ["b"], None),
}


@pytest.mark.parametrize(("text", "uris", "lines"), NO_ROWS.values(), ids=NO_ROWS.keys())
def test_a_row_that_is_no_csv_loses_no_neighbour(
    tmp_path: Path, text: str, uris: list[str], lines: list[int] | None
) -> None:
    found = read(tmp_path / "m.csv", "uri,caption\n" + text)
    assert [entry.uri for entry in found if not entry.fault] == uris
    faults = [entry for entry in found if entry.fault]
    if lines is not None:
        assert [entry.uri for entry in faults] == [f"m.csv:{line}" for line in lines]
    else:
        assert faults[0].uri == "m.csv:2"


def test_a_file_full_of_open_quotes_ends_soon(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="quotes that are not closed"):
        read(tmp_path / "m.csv", "uri,caption\n" + 'a","b\n' * 500_000)


def test_a_long_caption_is_read_from_csv(tmp_path: Path) -> None:
    (entry,) = read(write(tmp_path / "m.csv", [{"uri": "a", "caption": "é" * (1 << 19)}]))
    assert entry.caption == "é" * (1 << 19)
