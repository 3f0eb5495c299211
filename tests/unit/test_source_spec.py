"""What users write as a SOURCE."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovcache.builder.request import dataset_name_of
from fovcache.errors import SourceError
from fovcache.sources.spec import parse_source
from fovcache.store.refs import check_dataset_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards 000 to 003 and val, a manifest and a URL list beside them, and a folder of images."""
    for name in ("000", "001", "002", "003", "val"):
        (tmp_path / f"shard-{name}.tar").write_bytes(b"")
    for name in ("train.csv", "test.CSV", "all.parquet", "rows.jsonl", "list.txt", "list.urls", "notes.md"):
        (tmp_path / name).write_text("uri\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "labels.csv").write_text("uri\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train.csv", "manifest"),
        ("test.CSV", "manifest"),
        ("all.parquet", "manifest"),
        ("rows.jsonl", "manifest"),
        ("*.csv", "manifest"),
        ("list.txt", "url_list"),
        ("list.urls", "url_list"),
        ("images", "files"),
        ("shard-000.tar", "files"),
        ("*", "files"),
    ],
)
def test_a_file_is_a_manifest_or_a_url_list_only_where_its_ending_is_written(
    folder: Path, name: str, kind: str
) -> None:
    spec = parse_source(f"train={folder / name}")
    assert (spec.kind, spec.split, spec.urls) == (kind, "train", ())
    assert spec.root == (folder / "images" if name == "images" else folder)


def test_a_folder_with_the_name_of_a_manifest_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "frames.csv").mkdir()
    spec = parse_source(str(tmp_path / "frames.csv"))
    assert (spec.kind, spec.root) == ("files", tmp_path / "frames.csv")


def test_manifests_and_shards_are_not_mixed_in_one_source(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"several kinds \(files, manifest\)"):
        parse_source(f"{folder}/{{train.csv,shard-000.tar}}")


@pytest.mark.parametrize(
    ("braces", "names"),
    [
        ("shard-{000..002}.tar", ["shard-000", "shard-001", "shard-002"]),
        ("shard-{002..001}.tar", ["shard-002", "shard-001"]),
        ("shard-{val,003}.tar", ["shard-val", "shard-003"]),
        ("shard-00{0..1}.tar", ["shard-000", "shard-001"]),
        ("{shard,shard}-0{00..01}.tar", ["shard-000", "shard-001"]),
        ("shard-{val,0*}.tar", ["shard-val", "shard-000", "shard-001", "shard-002", "shard-003"]),
    ],
)
def test_braces_stand_for_files_in_their_order(folder: Path, braces: str, names: list[str]) -> None:
    spec = parse_source(f"{folder}/{braces}")
    assert [path.stem for path in spec.paths] == names
    assert parse_source(spec.absolute).paths == spec.paths


def test_a_file_that_braces_stand_for_and_that_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"shard-004\.tar does not exist"):
        parse_source(f"{folder}/shard-{{003..005}}.tar")


def test_a_file_whose_name_has_braces_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a{1..3}.tar").write_bytes(b"")
    assert parse_source(f"{tmp_path}/a{{1..3}}.tar").paths == (tmp_path / "a{1..3}.tar",)


@pytest.mark.parametrize(
    ("text", "split", "urls"),
    [
        ("https://h.org/a.tar", None, ["https://h.org/a.tar"]),
        ("train=https://h.org/a.tar", "train", ["https://h.org/a.tar"]),
        ("https://h.org/?a=b", None, ["https://h.org/?a=b"]),
        ("val=http://127.0.0.1:80/x?a=b&c=d=e", "val", ["http://127.0.0.1:80/x?a=b&c=d=e"]),
        ("HTTPS://h.org/a.tar", None, ["HTTPS://h.org/a.tar"]),
        ("https://h/s-{08..11}.tar", None, [f"https://h/s-{n}.tar" for n in ("08", "09", "10", "11")]),
        ("https://h/s-{8..11}.tar", None, [f"https://h/s-{n}.tar" for n in (8, 9, 10, 11)]),
        ("https://h/{a,b}-{0..1}.tar", None, [f"https://h/{n}.tar" for n in ("a-0", "a-1", "b-0", "b-1")]),
        ("https://h/" + "x" * 5000 + ".mp4", None, ["https://h/" + "x" * 5000 + ".mp4"]),
    ],
)
def test_urls_are_sources(text: str, split: str | None, urls: list[str]) -> None:
    spec = parse_source(text)
    assert (spec.kind, spec.split, list(spec.urls), spec.paths) == ("urls", split, urls, ())
    assert spec.root.is_absolute()
    assert spec.root.exists()
    assert parse_source(spec.absolute).urls == spec.urls


def test_a_urls_secrets_are_in_its_urls_alone() -> None:
    spec = parse_source("train=https://me:hunter2@h.org/a-{0..1}.mp4?token=s3cret&v=1")
    assert spec.urls == tuple(f"https://me:hunter2@h.org/a-{n}.mp4?token=s3cret&v=1" for n in (0, 1))
    for shown in (spec.text, spec.absolute, spec.name):
        assert "hunter2" not in shown
        assert "s3cret" not in shown
    assert "h.org/a-{0..1}.mp4" in spec.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://", "cannot be understood"),
        ("https://me:hunter2@h:port/x", "cannot be understood"),
        ("https://me:hun/ter2@h/x", "cannot be understood"),
        ("https://[::1/x?token=hunter2", "cannot be understood"),
        ("https://me:hunter2@h/\nx", "control characters"),
        ("s3://me:hunter2@bucket/x?*", "s3: is not read"),
        ("train=ftp://me:hunter2@host/x", "ftp: is not read"),
        ("file:///etc/passwd", "file: is not read"),
        ("https://me:hunter2@h/{a,b{1..3}}.tar", "none inside another"),
        ("https://me:hunter2@h/x{1..}.tar", "braces that are no range"),
        ("https://me:hunter2@h/all.csv", "download it first"),
        ("https://h/list.txt?token=hunter2", "download it first"),
        ("https://h/{0..1000000}.tar", "more than 1000000"),
        ("https://h/{0..999999999999999999}.tar", "more than 1000000"),
        ("https://h/{1..1000}{1..1000}{1..2}.tar", "more than 1000000"),
        ("nowhere-{0..2000000}.tar", "more than 1000000"),
        ("x" * 5000, "does not exist"),
        ("a\0b", "does not exist"),
        ("a\0b*", "matches no file"),
    ],
)
def test_what_cannot_be_a_source_is_one_clear_line_without_secrets(text: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected) as raised:
        parse_source(text)
    assert "ter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dangling_link_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "gone.tar").symlink_to("nowhere")
    with pytest.raises(SourceError, match="does not exist"):
        parse_source(str(tmp_path / "gone.tar"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shard-*.tar", None),
        ("shard-000.tar", "shard-000"),
        ("train.csv", "train"),
        ("list.urls", "list"),
        ("notes.md", "notes.md"),
        ("images", "images"),
        ("https://h.org/clips/v1/a.tar?token=x", "a"),
        ("https://h.org/clips/v1/a-{0..3}.tar", "v1"),
        ("https://h.org/clip.mp4", "clip.mp4"),
        ("https://h.org", "h.org"),
    ],
)
def test_a_source_names_its_dataset(folder: Path, text: str, name: str | None) -> None:
    spec = parse_source(text if "://" in text else f"{folder}/{text}")
    found = dataset_name_of([spec])
    assert found == (name or folder.name)
    assert check_dataset_name(found) == found


def test_a_name_in_any_alphabet_gives_a_dataset_a_name(tmp_path: Path) -> None:
    for name, expected in (("été", "t"), ("写真", "dataset"), ("Ω mega.tar", "mega")):
        (tmp_path / name).mkdir()
        assert check_dataset_name(dataset_name_of([parse_source(str(tmp_path / name))])) == expected
