"""Secrets in URLs: used, never recorded, and never taken for one another's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from remote_builds import HURRIED, Remote, picture, shard_of

from fovcache.fetch.fetcher import Fetcher
from fovcache.keys.digest import bytes_digest
from fovcache.store.url_memo import UrlMemo

SECRETS = ("us3rname", "pa55word", "5ignature", "t0ken-t0ken-t0ken")


def test_nothing_of_what_urls_keep_secret_is_written_or_said(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    host = remote.server.url.removeprefix("http://")
    user, password, signature, token = SECRETS

    def signed(path: str) -> str:
        query = f"X-Amz-Signature={signature}&X-Amz-Credential={user}&token={token}"
        return f"http://{user}:{password}@{host}{path}?{query}"

    kinds = {"/a.png": "ok", "/b.png": "redirected", "/c.png": "missing", "/d.png": "error", "/e.png": "soft-404"}
    for number, (path, kind) in enumerate(kinds.items()):
        remote.server.put(path, picture(number), kind)
    remote.server.put("/f.tar", shard_of({"0.png": picture(50), "0.cls": b"3", "1.png": b"no picture"}))
    listed = [signed(path) for path in (*kinds, "/f.tar")] + [signed("/g.png").replace("http:", "ftp:")]
    source = remote.urls(listed)
    asked = ["--cache", remote.cache.storage.root, "--encoder", remote.lab.encoder, "--layers", "conv"]
    outputs = []
    for args in (
        remote.lab.build_args(source, remote.cache.storage.root, "--retries", 0, "--json", "-", "-v"),
        remote.lab.build_args(signed("/a.png"), remote.cache.storage.root, "--json", "-", "-v"),
        remote.lab.build_args(source, remote.cache.storage.root, "--retries", 0, "-v"),
        ["explain", signed("/a.png"), *asked],
        ["explain", source, *asked, "--json", "-"],
        ["info", "--cache", remote.cache.storage.root],
        ["verify", "--cache", remote.cache.storage.root, "--recompute", 3],
    ):
        done = remote.lab.run(*args)
        assert done.status in (0, 1), done
        outputs += [done.out, done.err]
    assert any("Authorization" in headers for headers in remote.server.counts.headers)  # they were used
    assert any(signature in path for _, path in remote.server.counts.requests)
    said = "\n".join([*outputs, *caplog.messages, caplog.text])
    written = {
        name: (remote.cache.storage.root / name).read_bytes() for name in remote.lab.files(remote.cache.storage.root)
    }
    assert "urls.sqlite" in written
    for secret in SECRETS:
        assert secret not in said
        assert [name for name, data in written.items() if secret.encode() in data or secret in name] == []


def _by_number(number: int) -> bytes:
    return shard_of({f"{key}.png": picture(100 * number + key) for key in range(4)})


class _ByToken(BaseHTTPRequestHandler):
    """One path, whose objects are told apart by a token that is no part of a recorded URL."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = _by_number(int(parse_qs(urlsplit(self.path).query)["token"][0].rpartition("-")[2]))
        etag = f'"{bytes_digest(body)[:16]}"'
        is_known = self.headers.get("If-None-Match") == etag
        time.sleep(0.02)  # so that those that were asked for together are answered together
        self.send_response(304 if is_known else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0" if is_known else str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if is_known else body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def by_token() -> Iterator[str]:
    """The beginning of such URLs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _ByToken)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/get.tar?token=t0ken-t0ken-t0ken-"
    server.shutdown()
    thread.join()
    server.server_close()


def test_objects_whose_urls_differ_in_a_secret_only_are_told_apart(remote: Remote, by_token: str) -> None:
    source = remote.urls([f"{by_token}{number}" for number in range(16)])
    expected = [bytes_digest(picture(100 * number + key)) for number in range(16) for key in range(4)]
    for _ in range(2):
        report = remote.build(source, fetch=replace(HURRIED, scratch_bytes=10**9))
        assert report.failed == 0
        assert remote.cache.features().keys == expected


def test_what_is_remembered_of_one_of_them_is_never_said_of_another(tmp_path: Path, by_token: str) -> None:
    """However their downloads overlap."""
    first, second = f"{by_token}1", f"{by_token}2"
    with Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(tmp_path / "memo")) as fetcher:
        fetcher.download(first)
        fetcher.download(second)
        fetcher.remember(first, b"the first")
    with Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(tmp_path / "memo")) as fetcher:
        assert fetcher.revalidate(second) is None
        assert fetcher.revalidate(first) == b"the first"
