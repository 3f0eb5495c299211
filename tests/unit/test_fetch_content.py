"""What a body may begin with, how a server tells versions apart, and the options' ranges."""

from __future__ import annotations

import io
import re
import tarfile
import time
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fovcache.errors import UsageError
from fovcache.fetch.content import HEAD_BYTES, text_fault
from fovcache.fetch.freshness import is_same_version, validators_of
from fovcache.fetch.options import FetchOptions
from fovcache.fetch.reasons import Reason, failure, reason_of, status_reason
from fovcache.store.url_memo import Validators

MEDIA_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts", ".flv", ".jpg", ".png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (0x2020, 33)])
def test_images_are_media(kind: str, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    assert text_fault(buffer.getvalue()[:HEAD_BYTES]) == ""


def test_archives_of_texts_are_media() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("<html>.txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"text"))
    assert text_fault(buffer.getvalue()[:HEAD_BYTES]) == ""


@pytest.mark.needs_shared
def test_real_clips_are_media(shared: Path) -> None:
    clips = [path for path in (shared / "data").rglob("*") if path.suffix in MEDIA_SUFFIXES]
    assert clips
    heads = {path: path.read_bytes()[:HEAD_BYTES] for path in clips}
    assert not [path for path, head in heads.items() if head and text_fault(head)]


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html>",
        b"\n\n  <HTML lang=en>",
        b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "<html>".encode("utf-16"),
        b'{"message": "Not Found"}',
        b"404 page not found\n",
        "Datei nicht gefunden, schön".encode(),
        "Datei nicht gefunden, schön".encode("latin-1"),
        b" ",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    ],
)
def test_pages_and_texts_are_no_media(body: bytes) -> None:
    assert text_fault(body)


@given(st.text(st.characters(min_codepoint=32), min_size=1))
def test_no_text_is_media(text: str) -> None:
    assert text_fault(text.encode("utf-8", "replace")) or re.match("P[1-6][ #]", text)


def headers_of(**headers: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


NOW = formatdate(time.time(), usegmt=True)
OLD = formatdate(1_700_000_000, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (headers_of(), None),
        (headers_of(ETag='"a"'), Validators(etag='"a"')),
        (headers_of(ETag='W/"a"', Content_Length="12"), Validators(etag='W/"a"', size_bytes=12)),
        (headers_of(ETag='"a"', Last_Modified=NOW, Date=NOW), Validators(etag='"a"', last_modified=NOW)),
        (headers_of(Last_Modified=OLD), Validators(last_modified=OLD)),
        (headers_of(Last_Modified=OLD, Date=NOW, Content_Length="1"), Validators(last_modified=OLD, size_bytes=1)),
        (headers_of(Last_Modified=formatdate(time.time() + 3600, usegmt=True)), None),
        (headers_of(Last_Modified=OLD, Date=OLD), None),
        (headers_of(Last_Modified="yesterday"), None),
        (headers_of(ETag='"a\r\n b"'), None),
        (headers_of(ETag='"ä"', Last_Modified=OLD), Validators(last_modified=OLD)),
        (headers_of(ETag='"a"', Content_Length="-1"), Validators(etag='"a"')),
        (headers_of(ETag='"a"', Content_Length="9" * 30), Validators(etag='"a"')),
    ],
)
def test_what_tells_versions_apart(headers: dict[str, str], expected: Validators | None) -> None:
    assert validators_of(headers) == expected
    if expected is not None:
        assert is_same_version(headers, expected)
        assert not is_same_version(headers, Validators(etag='"b"'))


def test_every_reason_has_a_permanence_and_is_found_again() -> None:
    transient = {
        "busy",
        "changed",
        "connection-failed",
        "host-not-found",
        "server-error",
        "timed-out",
        "tls-failed",
        "too-slow",
        "truncated",
    }
    assert {str(reason) for reason in Reason if not reason.is_permanent} == transient
    for reason in Reason:
        error = failure(reason, "details: more")
        assert (error.stage, error.permanent) == ("fetch", reason.is_permanent)
        assert reason_of(error.reason) is reason
    assert reason_of("the image ends early") is None


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [
        ([404, 410], "not-found"),
        ([401, 402, 403, 407, 451], "forbidden"),
        ([408, 425, 429], "busy"),
        ([400, 405, 409, 416, 418, 499], "http-client-error"),
        ([500, 502, 503, 504, 520, 599], "server-error"),
        ([206, 300, 302, 304, 999], "unexpected-status"),
        ([204], "empty"),
    ],
)
def test_statuses(statuses: list[int], reason: str) -> None:
    assert {str(status_reason(status)) for status in statuses} == {reason}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", -1),
        ("connect_timeout_s", 0),
        ("read_timeout_s", float("nan")),
        ("backoff_s", float("inf")),
        ("concurrency", 0),
        ("scratch_bytes", 0),
        ("max_file_bytes", 0),
        ("rate_window_s", -1),
    ],
)
def test_options_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} of {value} is out of range; expected"):
        FetchOptions(**{name: value})
