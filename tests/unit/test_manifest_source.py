"""Manifests as sources: CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from fovcache.errors import SourceError
from fovcache.sources.entry import Entry
from fovcache.sources.manifest import read_manifest

FORMATS = ("csv", "tsv", "jsonl", "parquet")
ROWS = [
    {"uri": "a.mp4", "label": 3, "caption": 'He said "ja",\nthen left', "group": "g1", "split": "val"},
    {"uri": "sub/b.mp4", "label": -1, "caption": "été", "start_s": 0.5, "end_s": 2.0},
    {"uri": "https://h.org/c.mp4", "end_s": 1.5},
    {"uri": "/elsewhere/d.mp4", "start_s": 3.0},
]


def write(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    """The rows as the ending of `path` says."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",", **options)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in names}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, data: bytes | str | None = None, split: str | None = None, **options: Any) -> list[Entry]:
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_manifest(path, 1, split, **options))


def fields(entry: Entry) -> dict[str, Any]:
    names = ("label", "caption", "group", "split", "start_s", "end_s")
    return {name: getattr(entry, name) for name in names if getattr(entry, name) is not None}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_says_the_same(tmp_path: Path, ending: str) -> None:
    found = read(write(tmp_path / f"m.{ending}", ROWS))
    assert [entry.fault for entry in found] == [""] * 4
    assert [(entry.uri, entry.place, entry.is_remote, entry.source) for entry in found] == [
        ("a.mp4", f"{tmp_path}/a.mp4", False, 1),
        ("sub/b.mp4", f"{tmp_path}/sub/b.mp4", False, 1),
        ("https://h.org/c.mp4", "https://h.org/c.mp4", True, 1),
        ("/elsewhere/d.mp4", "/elsewhere/d.mp4", False, 1),
    ]
    assert [fields(entry) for entry in found] == [
        {"label": 3, "caption": 'He said "ja",\nthen left', "group": "g1", "split": "val"},
        {"label": -1, "caption": "été", "start_s": 0.5, "end_s": 2.0},
        {"start_s": 0.0, "end_s": 1.5},
        {"start_s": 3.0},
    ]


@pytest.mark.parametrize("ending", FORMATS)
def test_the_command_lines_split_comes_before_the_column(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"m.{ending}", [{"uri": "a", "split": "val"}, {"uri": "b", "split": "not a name"}])
    assert [(entry.split, entry.fault) for entry in read(path, split="train")] == [("train", "")] * 2


def test_uris_are_recorded_relative_to_the_sources_root(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    uris = ["a.mp4", "./b.mp4", "../c.mp4", f"{tmp_path}/d.mp4", "/e.mp4", "./take:1.mp4"]
    path = write(tmp_path / "lists" / "m.jsonl", [{"uri": uri} for uri in uris])
    recorded = ["a.mp4", "b.mp4", "../c.mp4", f"{tmp_path}/d.mp4", "/e.mp4", "take:1.mp4"]
    assert [entry.uri for entry in read(path)] == recorded
    recorded = ["lists/a.mp4", "lists/b.mp4", "lists/../c.mp4", "d.mp4", "/e.mp4", "lists/take:1.mp4"]
    found = read(path, root=tmp_path)
    assert [entry.uri for entry in found] == recorded
    assert all(entry.place.startswith("/") for entry in found)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("m.csv", ["uri,label", "a.mp4,1", "", "b.mp4,2", "  "]),
        ("m.ndjson", ['{"uri":"a.mp4","label":1}', "", '{"uri":"b.mp4","label":2}', " "]),
    ],
)
def test_byte_order_marks_line_ends_and_empty_lines(
    tmp_path: Path, name: str, lines: list[str], mark: bytes, end: str
) -> None:
    found = read(tmp_path / name, mark + end.join(lines).encode())
    assert [(entry.uri, entry.label, entry.fault) for entry in found] == [("a.mp4", 1, ""), ("b.mp4", 2, "")]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (3, 3),
        ("3", "3"),
        (3.0, 3),
        ("", None),
        (None, None),
        (float("nan"), None),
        (-(2**63), -(2**63)),
    ],
)
def test_json_labels_keep_their_type(tmp_path: Path, value: Any, label: Any) -> None:
    (entry,) = read(write(tmp_path / "m.jsonl", [{"uri": "a", "label": value}]))
    assert (entry.label, type(entry.label), entry.fault) == (label, type(label), "")


def test_parquet_labels_with_missing_values_are_integers(tmp_path: Path) -> None:
    columns = {
        "uri": pyarrow.array(["a", "b", "c"], pyarrow.large_string()),
        "label": pyarrow.array([3.0, float("nan"), None], pyarrow.float64()),
        "group": pyarrow.array([7.0, None, float("nan")], pyarrow.float32()),
        "caption": pyarrow.array(["x", None, ""]).dictionary_encode(),
        "split": pyarrow.array(["train", "train", None]).dictionary_encode(),
        "start_s": pyarrow.array([1, 2, None], pyarrow.int8()),
        "end_s": pyarrow.nulls(3),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    found = read(tmp_path / "m.parquet")
    assert [fields(entry) for entry in found] == [
        {"label": 3, "caption": "x", "group": "7", "split": "train", "start_s": 1.0},
        {"split": "train", "start_s": 2.0},
        {},
    ]
    assert type(found[0].label) is int


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"label": True}, "label is True"),
    ({"label": 1.5}, "label is 1.5"),
    ({"label": 2**63}, "does not fit 64 bits"),
    ({"label": [1]}, r"label is \[1\]"),
    ({"caption": 5}, "caption is 5, expected text"),
    ({"caption": "x" * (2 << 20)}, "caption has 2097152 bytes, at most 1048576"),
    ({"caption": "\ud800"}, "half a surrogate pair"),
    ({"caption": "a\0b"}, "NUL"),
    ({"group": {"a": 1}}, "group is"),
    ({"split": "my split"}, "split is 'my split'"),
    ({"split": "1st"}, "split is '1st'"),
    ({"split": "train\n"}, "split is"),
    ({"start_s": -1}, "start_s is -1"),
    ({"start_s": "1"}, "start_s is '1', expected a number"),
    ({"start_s": True}, "start_s is True"),
    ({"end_s": float("inf")}, "end_s is inf"),
    ({"end_s": 10**400}, "end_s is 1000"),
    ({"end_s": 0}, "expected the end after the start"),
    ({"start_s": 2, "end_s": 2}, "start_s is 2 and end_s is 2"),
    ({"uri": ""}, "no uri"),
    ({"uri": None}, "no uri"),
    ({"uri": 5}, "uri is 5"),
    ({"uri": "a\0b"}, "NUL"),
    ({"uri": "\udc80.mp4"}, "half a surrogate pair"),
    ({"uri": "x" * (2 << 20)}, "at most 1048576"),
    ({"uri": "ftp://h.org/a"}, "scheme-refused: 'ftp:'"),
    ({"uri": "s3://b/a"}, "scheme-refused: 's3:'"),
    ({"uri": "file:///etc/passwd"}, "scheme-refused: 'file:'"),
    ({"uri": "C:\\a.mp4"}, "scheme-refused: 'c:'"),
    ({"uri": "https://me:hunter2@h:x/"}, "cannot be understood"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_VALUES, ids=[reason for _, reason in BAD_VALUES])
def test_a_bad_value_loses_its_row_alone_and_says_where(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "m.jsonl", [{"uri": "a"}, {"uri": "bad", **bad}, {"uri": "c", "label": 1}])
    first, fault, last = read(path)
    assert [(entry.uri, entry.fault) for entry in (first, last)] == [("a", ""), ("c", "")]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(fault.fault)
    assert fault.fault.endswith("(m.jsonl:2)")
    assert fault.place == ""
    assert fault.uri.encode().isascii()
    assert len(fault.fault) < 250
    assert "hunter2" not in fault.fault + fault.uri


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "nope",
        '{"uri": "x"',
        '["x"]',
        '"x"',
        "5",
        "null",
        "[" * 100_000,
        '{"label": ' + "9" * 5000 + "}",
        '{"a":\0}',
    ],
)
def test_a_line_that_is_no_json_object_loses_no_neighbour(tmp_path: Path, line: str) -> None:
    first, fault, last = read(tmp_path / "m.jsonl", f'{{"uri": "a"}}\n{line}\n{{"uri": "b"}}\n')
    assert [(entry.uri, entry.fault) for entry in (first, last)] == [("a", ""), ("b", "")]
    assert fault.uri == "m.jsonl:2"
    assert "JSON" in fault.fault


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("m.csv", "", "is empty"),
        ("m.csv", "uri,label\n", "is empty"),
        ("m.csv", "\n\n", "is empty"),
        ("m.jsonl", "", "is empty"),
        ("m.jsonl", b"\xef\xbb\xbf\n  \n", "is empty"),
        ("m.csv", "path,label\na,1\n", "no column 'uri'; its columns are 'label', 'path'; did you mean 'path'"),
        ("m.csv", "URL,label\na,1\n", "did you mean 'URL'"),
        ("m.csv", "uris,label\na,1\n", "nearest: uris"),
        ("m.csv", "uri;label\na;1\n", "commas"),
        ("m.tsv", "uri,label\na,1\n", "no column 'uri'"),
        ("m.csv", "uri,uri\na,b\n", "two columns 'uri'"),
        ("m.csv", '"uri\na\n', "the header cannot be read"),
        (
            "m.jsonl",
            '{"filename": "a", "label": 1}\n{"filename": "b"}\n',
            "'filename', 'label'; did you mean 'filename'",
        ),
        ("m.jsonl", '[\n{"uri":\n"a"}\n]\n', "no line that is a JSON object"),
        ("m.csv", "uri\na\n".encode("utf-16"), "UTF-16"),
        ("m.csv", "uri\nabc\n".encode("utf-16-be"), "UTF-16"),
        ("m.jsonl", '{"uri": "a"}\n'.encode("utf-32"), "UTF-16"),
        ("m.csv", b"uri\na\n\xe9t\xe9\n", "not UTF-8: byte 0xe9"),
        ("m.jsonl", b'{"uri": "\xff"}\n', "not UTF-8: byte 0xff"),
        ("m.parquet", b"", "is no Parquet file"),
        ("m.parquet", b"PAR1 no, it is not PAR1", "is no Parquet file"),
        ("m.parquet", b"uri,label\na,1\n", "is no Parquet file"),
    ],
)
def test_what_is_no_manifest_is_one_clear_error(tmp_path: Path, name: str, data: bytes | str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected) as raised:
        read(tmp_path / name, data)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("uri", [1, 2], "'uri' holds int64, expected text"),
        ("uri", [b"a", b"b"], "'uri' holds binary"),
        ("label", [True, False], "'label' holds bool, expected whole numbers or text"),
        ("label", [[1], [2]], "'label' holds list"),
        ("start_s", ["1", "2"], "'start_s' holds string, expected numbers"),
        ("other", ["1", "2"], "no column 'uri'"),
    ],
)
def test_a_parquet_column_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, column: str, values: list[Any], expected: str
) -> None:
    columns = {"uri": ["a", "b"], column: values} if column != "other" else {column: values}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=expected):
        read(tmp_path / "m.parquet")


def test_parquet_without_rows_is_an_error(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"uri": pyarrow.array([], pyarrow.string())}), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="is empty"):
        read(tmp_path / "m.parquet")


def test_a_parquet_text_that_is_not_utf_8_loses_its_row_alone(tmp_path: Path) -> None:
    texts = pyarrow.array([b"one", b"\xff", None], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"uri": ["a", "b", "c"], "caption": texts}), tmp_path / "m.parquet")
    found = read(tmp_path / "m.parquet")
    assert [(entry.caption, bool(entry.fault)) for entry in found] == [("one", False), (None, True), (None, False)]
    assert found[1].fault == "caption is not UTF-8 (m.parquet:2)"


def test_parquet_rows_are_counted_through_all_its_groups(tmp_path: Path) -> None:
    rows = {"uri": [f"{n}.mp4" for n in range(40_000)], "label": list(range(40_000))}
    rows["uri"][39_999] = "ftp://x"
    parquet.write_table(pyarrow.table(rows), tmp_path / "m.parquet", row_group_size=7_000)
    found = read(tmp_path / "m.parquet")
    assert [entry.label for entry in found[:-1]] == list(range(39_999))
    assert found[-1].fault.endswith("(m.parquet:40000)")


@pytest.mark.parametrize("ending", FORMATS)
def test_columns_that_mean_nothing_are_named_once(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"uri": "a", "width": "1", "Label": "2"}, {"uri": "b", "width": "2", "Label": "3"}]
    assert [fields(entry) for entry in read(write(tmp_path / f"m.{ending}", rows))] == [{}, {}]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "ignored: 'Label', 'width'" in caplog.messages[0]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_split_of_an_unusual_name_is_kept_and_said_once(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    splits = ["train", "trian", "trian", "test", "fold_1"]
    path = write(tmp_path / f"m.{ending}", [{"uri": "a", "split": split} for split in splits])
    assert [entry.split for entry in read(path)] == splits
    (warning,) = caplog.messages
    assert "3 rows" in warning
    assert "'trian' (2 rows; nearest: train)" in warning


def test_nothing_is_said_about_a_manifest_with_nothing_unusual(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for ending in FORMATS:
        read(write(tmp_path / f"m.{ending}", ROWS))
    assert not caplog.messages


def test_file_urls_are_paths_where_they_are_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", [{"uri": f"file://{tmp_path}/a%20b.mp4", "label": 1}])
    (entry,) = read(path, allow_file_urls=True)
    assert (entry.uri, entry.place, entry.label) == ("a b.mp4", f"{tmp_path}/a b.mp4", 1)


def test_a_urls_secrets_are_in_its_place_alone(tmp_path: Path) -> None:
    uris = ["https://me:hunter2@h.org/a?token=s3cret", "https://me:hunter2@h.org:x/a?token=s3cret"]
    good, bad = read(write(tmp_path / "m.jsonl", [{"uri": uri} for uri in uris]))
    assert good.place == uris[0]
    for shown in (good.uri, bad.uri, bad.fault, bad.place):
        assert "hunter2" not in shown
        assert "s3cret" not in shown


def test_a_manifest_that_is_not_there_or_a_folder_is_an_error(tmp_path: Path) -> None:
    for ending in FORMATS:
        (tmp_path / f"folder.{ending}").mkdir()
        for name in ("nowhere", "folder"):
            with pytest.raises(SourceError, match="cannot be read"):
                read(tmp_path / f"{name}.{ending}")
