"""Folders of images as sources."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fovcache
from fovcache.errors import SourceError
from fovcache.keys.digest import file_digest
from fovcache.sources.scan import Scan, scan_sources
from fovcache.sources.spec import parse_source
from fovcache.store.memo import Memo

MakeImages = Callable[..., Path]


def scan(*sources: object) -> Scan:
    return scan_sources([str(source) for source in sources], frozenset({".png", ".jpg"}), Memo(None))


def test_the_first_folder_is_the_class_and_the_order_is_that_of_the_paths(
    tmp_path: Path, make_images: MakeImages
) -> None:
    make_images(tmp_path, 4, ("cat", "dog"))
    (tmp_path / "cat" / "deep").mkdir()
    (tmp_path / "cat" / "0000.png").rename(tmp_path / "cat" / "deep" / "x.png")
    found = scan(tmp_path).samples
    assert [(sample.uri, sample.label) for sample in found] == [
        ("cat/0002.png", "cat"),
        ("cat/deep/x.png", "cat"),
        ("dog/0001.png", "dog"),
        ("dog/0003.png", "dog"),
    ]


def test_the_key_is_the_digest_of_the_bytes(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 1)
    (sample,) = scan(tmp_path).samples
    assert sample.key == file_digest(tmp_path / "0000.png")
    assert (sample.label, sample.split, sample.source) == (None, None, 0)


def test_splits_come_from_the_source_and_globs_are_expanded_here(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "a1", 2, seed=1)
    make_images(tmp_path / "a2", 1, seed=2)
    make_images(tmp_path / "b", 1, seed=3)
    found = scan(f"train={tmp_path}/a*", f"test={tmp_path}/b").samples
    assert [(sample.split, sample.source, sample.uri) for sample in found] == [
        ("train", 0, "a1/0000.png"),
        ("train", 0, "a1/0001.png"),
        ("train", 0, "a2/0000.png"),
        ("test", 1, "0000.png"),
    ]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "lr=3", 1)
    assert parse_source(f"{tmp_path}/lr=3").split is None
    os.chdir(tmp_path)
    assert parse_source("lr=3").split is None


def test_equal_contents_are_one_key_at_two_places(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 1)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0000.png").read_bytes())
    found = scan(tmp_path)
    assert len(found.samples) == 2
    assert len({sample.key for sample in found.samples}) == len(found.locations) == 1


def test_hidden_and_foreign_files_are_left_out_and_the_foreign_counted(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 1)
    for name in (".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    make_images(tmp_path / ".cache", 1)
    found = scan(tmp_path)
    assert (len(found.samples), found.num_ignored) == (1, 1)


def test_links_are_followed_and_loops_end(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "real" / "cat", 1)
    make_images(tmp_path / "elsewhere", 1, seed=1)
    (tmp_path / "real" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real")
    assert [sample.uri for sample in scan(tmp_path / "real").samples] == ["cat/0000.png", "dog/0000.png"]


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_goes_on(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 1)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = scan(tmp_path)
    assert [sample.uri for sample in found.samples] == ["0000.png"]
    assert [(item.uri, item.permanent) for item in found.unreadable] == [("gone.png", False)]


def test_a_pipe_and_a_link_to_itself_are_reported_and_do_not_hang(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "self.png").symlink_to("self.png")
    found = scan(tmp_path)
    assert [sample.uri for sample in found.samples] == ["0000.png"]
    assert [item.uri for item in found.unreadable] == ["pipe.png", "self.png"]
    assert found.unreadable[0].reason == "it is not a plain file"


def test_names_that_are_no_utf_8_are_written_out(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images" / "cat", 2)
    (tmp_path / "images" / "cat" / "0001.png").rename(os.fsdecode(bytes(tmp_path / "images" / "cat") + b"/\xff.png"))
    (tmp_path / "images" / "cat").rename(os.fsdecode(bytes(tmp_path / "images") + b"/\xe9t\xe9"))
    found = scan(tmp_path / "images")
    assert [(sample.uri, sample.label) for sample in found.samples] == [
        (r"\xe9t\xe9/0000.png", r"\xe9t\xe9"),
        (r"\xe9t\xe9/\xff.png", r"\xe9t\xe9"),
    ]
    cache = fovcache.open(tmp_path / "cache")
    assert cache.build(str(tmp_path / "images"), encoder="pixels", num_workers=1).computed == 2
    assert cache.features().uris == [sample.uri for sample in found.samples]


def test_a_source_whose_own_path_is_no_utf_8_is_refused(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images", 1)
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff")
    (tmp_path / "images").rename(odd)
    with pytest.raises(SourceError, match="its path is not UTF-8"):
        scan(odd)


@pytest.mark.parametrize("text", ["nowhere", "train=nowhere", "nowhere/*.tar", "empty", "texts"])
def test_a_source_without_samples_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    os.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(SourceError, match=text.replace("*", r"\*")):
        scan(text)


@pytest.fixture(autouse=True)
def _back_again() -> object:
    here = Path.cwd()
    yield
    os.chdir(here)
