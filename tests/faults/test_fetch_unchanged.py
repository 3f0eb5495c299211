"""What is unchanged is not downloaded again, and what a server says about it is not believed too easily."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_server import FaultServer
from served import FAULTS, OLD_S

from fovcache.errors import SampleError
from fovcache.fetch.fetcher import Fetcher
from fovcache.fetch.options import FetchOptions
from fovcache.fetch.reasons import reason_of
from fovcache.store.url_memo import UrlMemo, Validators

HURRIED = FetchOptions(read_timeout_s=1, retries=1, backoff_s=0.01, rate_window_s=0.3)
OLD, NEW = b"\0old bytes", b"\0new bytes"

Run = Callable[[str], bytes | None]


@pytest.fixture
def run(tmp_path: Path, fault_server: FaultServer) -> Run:
    """`run(url)`: what a run of its own recalls of a URL; what it does not recall it downloads and remembers."""

    def one_run(url: str) -> bytes | None:
        with Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(tmp_path / "urls.sqlite")) as fetcher:
            value = fetcher.revalidate(url)
            if value is None:
                with fetcher.download(url) as file:
                    fetcher.remember(url, file.path.read_bytes())
            return value

    return one_run


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"etag": False},
        {"modified_s": None},
        {"obeys_conditions": False},
        {"kind": "redirected"},
        {"kind": "gzip"},
        {"kind": "gzip", "etag": False},
    ],
    ids=str,
)
def test_a_warm_run_downloads_nothing(options: dict[str, object], fault_server: FaultServer, run: Run) -> None:
    url = fault_server.put("/a", OLD, **options)
    assert run(url) is None
    before = fault_server.counts.body_bytes
    asked = fault_server.files["/a"].num_asked
    for _ in range(2):
        assert run(url) == OLD
    assert fault_server.files["/a"].num_asked == asked * 3
    if options.get("obeys_conditions", True) and options.get("kind") != "redirected":
        assert fault_server.counts.body_bytes == before


@pytest.mark.parametrize("url", ["/a", "/a?part=1&X-Amz-Signature={0}&X-Amz-Date={0}&X-Amz-Expires=9"])
def test_a_url_that_was_signed_anew_is_known(url: str, fault_server: FaultServer, run: Run) -> None:
    fault_server.put("/a", OLD)
    signed = [fault_server.url.replace("//", f"//me:{number}@") + url.format(number) for number in range(2)]
    assert run(signed[0]) is None
    assert run(signed[1]) == OLD


@pytest.mark.parametrize("options", [{}, {"etag": False}, {"modified_s": None}], ids=str)
def test_a_change_is_seen(options: dict[str, object], fault_server: FaultServer, run: Run) -> None:
    url = fault_server.put("/a", OLD, **options)
    assert run(url) is None
    fault_server.put("/a", NEW, **{"modified_s": OLD_S + 10, **options})
    assert run(url) is None
    assert run(url) == NEW


def test_a_replacement_that_is_older_is_a_change(fault_server: FaultServer, run: Run) -> None:
    url = fault_server.put("/a", OLD, etag=False)
    assert run(url) is None
    fault_server.put("/a", NEW, etag=False, modified_s=OLD_S - 1000)
    assert run(url) is None


def test_another_length_is_a_change(fault_server: FaultServer, run: Run) -> None:
    url = fault_server.put("/a", OLD, etag=False)
    assert run(url) is None
    fault_server.put("/a", OLD + b"more", etag=False)
    assert run(url) is None


@pytest.mark.parametrize(
    "options",
    [
        {"etag": False, "modified_s": None},
        {"etag": False, "modified_s": time.time() + 1000},
        {"etag": False, "answers_head": False},
    ],
    ids=["neither", "too young", "no HEAD"],
)
def test_without_a_word_of_the_server_all_is_downloaded(
    options: dict[str, object], fault_server: FaultServer, run: Run
) -> None:
    url = fault_server.put("/a", OLD, **options)
    for _ in range(3):
        assert run(url) is None


def test_two_objects_that_differ_in_a_secret_are_not_one(fault_server: FaultServer, run: Run) -> None:
    fault_server.put("/a", OLD, etag=False)
    assert run(fault_server.url + "/a?token=1") is None
    fault_server.put("/a", NEW, etag=False)  # what another token would give
    assert run(fault_server.url + "/a?token=2") is None
    fault_server.put("/b", OLD)
    assert run(fault_server.url + "/b?token=1") is None
    assert run(fault_server.url + "/b?token=2") == OLD


@pytest.mark.parametrize("kind", ["missing", "forbidden", "error", "silent", "no-host", "loop", "resets"])
def test_what_fails_has_its_reason(kind: str, fault_server: FaultServer, run: Run) -> None:
    url = fault_server.put("/a", OLD)
    assert run(url) is None
    fault_server.files["/a"].kind = kind
    with pytest.raises(SampleError) as caught:
        run(url)
    assert (reason_of(caught.value.reason), caught.value.permanent) == FAULTS[kind]
    fault_server.files["/a"].kind = "ok"
    assert run(url) == OLD


def test_only_what_was_downloaded_is_remembered(fault_server: FaultServer, tmp_path: Path) -> None:
    memo = UrlMemo(tmp_path / "urls.sqlite")
    with Fetcher(HURRIED, tmp_path / "scratch", memo) as fetcher:
        fetcher.remember(fault_server.put("/a", OLD), b"value")
        assert fetcher.revalidate(fault_server.url + "/a") is None
    assert fault_server.counts.requests == []
    assert not (tmp_path / "urls.sqlite").exists()


URLS = {
    f"http://host/{number}": (Validators(etag=f'"{number}"', size_bytes=number), b"%d" % number) for number in range(9)
}


@pytest.fixture
def memo(tmp_path: Path) -> Path:
    """A memo that knows `URLS`."""
    memo = UrlMemo(tmp_path / "memo.sqlite")
    for url, (validators, value) in URLS.items():
        memo.remember(url, validators, value)
    memo.save()
    return tmp_path / "memo.sqlite"


def test_a_memo_keeps_what_it_was_given(memo: Path) -> None:
    assert {url: UrlMemo(memo).get(url) for url in URLS} == URLS
    assert UrlMemo(memo).get("http://host/other") is None
    assert UrlMemo(memo, ignore=True).get("http://host/1") is None
    assert UrlMemo(None).get("http://host/1") is None


def test_no_flipped_byte_in_the_memo_gives_a_wrong_value(memo: Path) -> None:
    sound, chance = memo.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(sound)
        data[chance.randrange(len(data))] = chance.randrange(256)
        memo.write_bytes(data)
        for url, expected in URLS.items():
            assert UrlMemo(memo).get(url) in (None, expected)


@pytest.mark.parametrize("data", [b"", b"no database", bytes(8192), b"SQLite format 3\0" + bytes(4080)])
def test_a_memo_that_is_no_database_is_made_anew(memo: Path, data: bytes) -> None:
    memo.write_bytes(data)
    damaged = UrlMemo(memo)
    assert damaged.get("http://host/1") is None
    damaged.remember("http://host/1", *URLS["http://host/1"])
    damaged.save()
    assert UrlMemo(memo).get("http://host/1") == URLS["http://host/1"]


@pytest.mark.parametrize("column", ["etag", "last_modified", "size", "value", "seal"])
@pytest.mark.parametrize("value", [None, -1, 1.5, "text", b"\xff\xfe"])
def test_a_row_that_was_changed_is_not_believed(memo: Path, column: str, value: object) -> None:
    with sqlite3.connect(memo) as connection:
        connection.execute(f"UPDATE urls SET {column} = ?", (value,))
    connection.close()
    is_as_it_was = (column, value) == ("last_modified", None)
    assert UrlMemo(memo).get("http://host/1") == (URLS["http://host/1"] if is_as_it_was else None)
