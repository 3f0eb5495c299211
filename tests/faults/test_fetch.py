"""Fetching from servers that fail in every way: the right reason, nothing kept, and success once they have healed."""

from __future__ import annotations

import logging
import os
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import NO_HOST, FaultServer
from served import FAULTS, HARMLESS, OVERSIZED_BYTES

from fovcache.errors import SampleError, UsageError
from fovcache.fetch.fetcher import Fetcher
from fovcache.fetch.options import FetchOptions
from fovcache.fetch.reasons import reason_of
from fovcache.keys.digest import bytes_digest
from fovcache.store.url_memo import UrlMemo

HURRIED = FetchOptions(
    read_timeout_s=1,
    retries=1,
    backoff_s=0.01,
    max_wait_s=0.05,
    max_file_bytes=OVERSIZED_BYTES // 2,
    rate_window_s=0.3,
)
ONCE = replace(HURRIED, retries=0)
"""Without a second try."""
JOIN_S = 30
TELLING = (
    "missing",
    "soft-404",
    "loop",
    "bad-redirect",
    "oversized",
    "error",
    "truncated",
    "resets",
    "garbage",
    "no-host",
)
"""Faults of which much could be said."""
SECRETS = {"user": "us3rname", "password": "pa55word", "signature": "5ignature", "token": "t0ken"}

MakeFetcher = Callable[..., Fetcher]


@pytest.fixture
def fetcher(tmp_path: Path, fault_server: FaultServer) -> Iterator[MakeFetcher]:
    """`fetcher(options=HURRIED, memo=None)`; all share a scratch folder."""
    made: list[Fetcher] = []

    def make(options: FetchOptions = HURRIED, memo: Path | None = None, **more: object) -> Fetcher:
        made.append(Fetcher(options, tmp_path / "scratch", UrlMemo(memo), **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def blob(seed: int, size: int = 5000) -> bytes:
    """Bytes that no text has, and no other seed."""
    return b"\0\1\2" + random.Random(seed).randbytes(size - 3)


def files_in(folder: Path) -> list[Path]:
    """What is left of downloads."""
    return [path for path in (folder / "tmp").iterdir() if path.is_file()]


def fault_of(fetcher: Fetcher, url: str) -> tuple[str | None, bool]:
    """Why a URL cannot be fetched, and whether for good."""
    with pytest.raises(SampleError) as caught:
        fetcher.download(url)
    assert caught.value.stage == "fetch"
    return reason_of(caught.value.reason), caught.value.permanent


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_has_its_reason_and_passes_when_the_server_has_healed(
    kind: str, fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    data, fetch = blob(0), fetcher(ONCE)
    url = fault_server.put("/clip.mp4", data, kind)
    assert fault_of(fetch, url) == FAULTS[kind]
    assert fetch.scratch.used_bytes == 0
    assert files_in(tmp_path / "scratch") == []
    fault_server.heal(only_transient=False)
    with fetch.download(url) as file:
        assert (file.path.read_bytes(), file.digest, file.size_bytes) == (data, bytes_digest(data), len(data))


@pytest.mark.parametrize("kind", [kind for kind, (_, permanent) in FAULTS.items() if permanent])
def test_what_is_permanent_is_asked_once(kind: str, fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    fetch = fetcher(replace(HURRIED, retries=5, max_redirects=3))
    fault_of(fetch, fault_server.put("/a", blob(0), kind))
    assert fault_server.files["/a"].num_asked == (4 if kind == "loop" else 1)


@pytest.mark.parametrize("kind", ["error", "busy", "truncated", "bad-chunks", "resets-midway", "hangs-up", "no-host"])
def test_what_is_transient_is_asked_as_often_as_retries_say(
    kind: str, fault_server: FaultServer, fetcher: MakeFetcher
) -> None:
    fetch = fetcher(replace(HURRIED, retries=3))
    assert fault_of(fetch, fault_server.put("/a", blob(0), kind)) == FAULTS[kind]
    assert fault_server.files["/a"].num_asked == 4


@pytest.mark.parametrize(
    "retry_after", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "Mon, 01 Jan 2024 00:00:00 GMT", "soon"]
)
def test_a_server_that_asks_for_patience_gets_some(
    retry_after: str, fault_server: FaultServer, fetcher: MakeFetcher
) -> None:
    url = fault_server.put("/a", blob(0), "busy", retry_after=retry_after)
    assert fault_of(fetcher(), url) == ("busy", False)
    assert fault_server.files["/a"].num_asked == 2


def test_an_encoded_body_counts_as_what_it_becomes(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    url = fault_server.put("/a", bytes(400_000), "gzip")
    fetch = fetcher()
    with fetch.download(url) as file:
        assert file.path.read_bytes() == bytes(400_000)
        assert fetch.scratch.used_bytes == 400_000
    assert fault_of(fetcher(replace(HURRIED, max_file_bytes=399_999)), url) == ("too-large", True)


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("size", [4, 1024, 300_000])
def test_what_ends_well_gives_the_bytes(
    kind: str, size: int, fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    data, fetch = blob(1, size), fetcher()
    with fetch.download(fault_server.put("/a.tar", data, kind)) as file:
        assert (file.path.read_bytes(), file.digest, file.size_bytes) == (data, bytes_digest(data), size)
        assert fetch.scratch.used_bytes == size
        assert file.path.stat().st_mode & 0o077 == 0
        assert file.path.parent.stat().st_mode & 0o077 == 0
    assert fetch.scratch.used_bytes == 0
    assert files_in(tmp_path / "scratch") == []


def test_a_file_as_large_as_is_allowed_passes(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    for path, kind in (("/a", "ok"), ("/b", "chunked")):
        url = fault_server.put(path, blob(0, 10_000), kind)
        with fetcher(replace(HURRIED, max_file_bytes=10_000)).download(url) as file:
            assert file.size_bytes == 10_000
        assert fault_of(fetcher(replace(HURRIED, max_file_bytes=9_999)), url) == ("too-large", True)
        assert fault_of(fetcher(replace(HURRIED, scratch_bytes=19_999)), url) == ("too-large", True)


def test_other_bytes_than_those_of_the_key_are_refused(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    fetch, data = fetcher(), blob(0)
    url = fault_server.put("/a", data)
    fetch.download(url, bytes_digest(data)).release()
    fault_server.put("/a", blob(1))
    with pytest.raises(SampleError) as caught:
        fetch.download(url, bytes_digest(data))
    assert (reason_of(caught.value.reason), caught.value.permanent) == ("changed", False)
    assert fetch.scratch.used_bytes == 0


def test_many_at_once_each_get_their_bytes_or_their_reason(
    fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    files = {f"/{number}.mp4": blob(number, 1000 + 37 * number) for number in range(200)}
    kinds = fault_server.put_all(files, share=0.4, seed=1)
    assert {kind for kind in kinds.values() if kind in FAULTS} == set(FAULTS)
    fetch = fetcher(replace(HURRIED, scratch_bytes=100_000))

    def attempt(path: str) -> tuple[str | None, bool] | bytes:
        try:
            with fetch.download(fault_server.url + path) as file:
                return file.path.read_bytes()
        except SampleError as error:
            return reason_of(error.reason), error.permanent

    with ThreadPoolExecutor(8) as pool:
        first = dict(zip(files, pool.map(attempt, files), strict=True))
        fault_server.heal()
        second = dict(zip(files, pool.map(attempt, files), strict=True))
    for path, kind in kinds.items():
        assert first[path] == FAULTS.get(kind, files[path]), kind
        assert second[path] == (FAULTS[kind] if kind in FAULTS and FAULTS[kind][1] else files[path]), kind
    assert 8000 < fetch.scratch.peak_bytes <= 100_000
    assert fetch.scratch.used_bytes == 0
    assert files_in(tmp_path / "scratch") == []


def test_an_unknown_host_and_a_closed_port(fetcher: MakeFetcher) -> None:
    assert fault_of(fetcher(), f"http://{NO_HOST}/a") == ("host-not-found", False)
    assert fault_of(fetcher(), "http://127.0.0.1:1/a") == ("connection-failed", False)
    assert fault_of(fetcher(), "http://a..b/") == ("bad-url", True)


def test_a_server_without_tls(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    assert fault_of(fetcher(), fault_server.url.replace("http:", "https:") + "/a") == ("tls-failed", False)


def test_no_minimum_rate_lets_a_server_drip(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    fault_server.pause_s = 0.0005
    url = fault_server.put("/a", blob(0, 100), "drips")
    patient = replace(ONCE, rate_window_s=0.01, min_bytes_per_s=0)
    assert fault_of(fetcher(replace(patient, min_bytes_per_s=10**6)), url) == ("too-slow", False)
    assert fault_of(fetcher(patient), url) == ("truncated", False)  # the server ends before what it declared


def test_a_reader_that_is_slow_is_not_a_slow_server(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    """Waiting for room in the scratch folder does not count."""
    fetch = fetcher(replace(HURRIED, scratch_bytes=20_000, rate_window_s=0.01))
    held = [fetch.download(fault_server.put(f"/{number}", blob(number, 9_000))) for number in range(2)]
    waiting = threading.Thread(target=lambda: held.append(fetch.download(fault_server.put("/2", blob(2, 9_000)))))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    held[0].release()
    waiting.join(JOIN_S)
    assert held[2].path.read_bytes() == blob(2, 9_000)


@pytest.mark.parametrize("what", ["the server", "its body", "a retry", "room"])
def test_closing_ends_every_wait(what: str, fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path) -> None:
    kinds = {"the server": "silent", "its body": "stalls", "a retry": "error", "room": "ok"}
    url = fault_server.put("/a", blob(0, 9_000), kinds[what])
    slow = FetchOptions(read_timeout_s=600, backoff_s=600, max_wait_s=600, scratch_bytes=20_000)
    fetch, ends = fetcher(slow), []
    if what == "room":
        for number in range(2):
            fetch.download(fault_server.put(f"/{number}", blob(number, 9_000)))

    def download() -> None:
        try:
            fetch.download(url)
        except CancelledError as error:
            ends.append(type(error))

    thread = threading.Thread(target=download)
    thread.start()
    wanted = 2 if what == "a retry" else 1
    while fault_server.files["/a"].num_asked < wanted:
        thread.join(0.01)
    thread.join(0.1)
    assert ends == []
    fetch.close()
    thread.join(JOIN_S)
    assert ends == [CancelledError]
    assert files_in(tmp_path / "scratch") == []


def test_a_stop_from_outside_ends_a_download(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    stop = threading.Event()
    fetch = fetcher(FetchOptions(read_timeout_s=600), stop=stop)
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    with pytest.raises(CancelledError):
        fetch.download(fault_server.put("/a", blob(0), "silent"))
    timer.join()


@pytest.mark.parametrize("kind", [*HARMLESS, *TELLING])
def test_secrets_are_sent_and_never_said(
    kind: str, fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault_server.put("/a", blob(0), kind)
    userinfo = f"{SECRETS['user']}:{SECRETS['password']}@"
    url = fault_server.url.replace("//", f"//{userinfo}") + "/a?X-Amz-Signature={signature}&token={token}"
    memo, said = tmp_path / "urls.sqlite", ""
    fetch = fetcher(memo=memo)
    with caplog.at_level(logging.DEBUG):
        try:
            fetch.download(url.format(**SECRETS)).release()
            fetch.remember(url.format(**SECRETS), b"value")
        except SampleError as error:
            said = "".join(traceback.format_exception(error)) + repr(error)
        fetch.close()
    assert SECRETS["signature"] in fault_server.counts.requests[0][1]
    assert "Authorization" in fault_server.counts.headers[0]
    assert ("X-Amz-Signature=" in caplog.text) or kind in FAULTS  # urllib3 logs what was answered
    said += caplog.text + (memo.read_bytes().decode("latin-1") if memo.exists() else "")
    assert memo.exists() == (kind in HARMLESS)
    for secret in (*SECRETS.values(), fault_server.counts.headers[0]["Authorization"]):
        assert secret not in said


def test_credentials_are_not_told_to_another_host(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    other = FaultServer()
    try:
        here = fault_server.put("/a", blob(0), "redirected", location=other.put("/b", blob(1)))
        with fetcher().download(here.replace("//", "//me:s3cret@")) as file:
            assert file.path.read_bytes() == blob(1)
        assert "Authorization" in fault_server.counts.headers[0]
        assert "Authorization" not in other.counts.headers[0]
    finally:
        other.close()


def test_the_environments_proxy_is_used(
    fault_server: FaultServer, fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", fault_server.url.replace("//", "//me:s3cret@"))
    fault_server.put("http://elsewhere.invalid/a", blob(3))
    with fetcher().download("http://elsewhere.invalid/a") as file:
        assert file.path.read_bytes() == blob(3)
    assert fault_server.counts.headers[0]["proxy-authorization"] == "Basic bWU6czNjcmV0"
    monkeypatch.setenv("no_proxy", "invalid")
    assert fault_of(fetcher(), f"http://{NO_HOST}/a") == ("host-not-found", False)
    monkeypatch.setenv("http_proxy", "socks9://me:s3cret@host")
    with pytest.raises(UsageError, match=r"the http proxy of the environment cannot be used \(socks9\)"):
        fetcher()


def test_a_connection_serves_many_requests(fault_server: FaultServer, fetcher: MakeFetcher) -> None:
    fetch = fetcher()
    for number in range(5):
        fetch.download(fault_server.put(f"/{number}", blob(number))).release()
        fault_of(fetch, fault_server.put("/missing", b"", "missing"))
    assert fault_server.num_connections == 1


def test_a_full_disk_is_the_environments_failure(
    fault_server: FaultServer, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    import resource

    from fovcache.errors import EnvironmentFailure

    fetch = fetcher()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(EnvironmentFailure, match=r"cannot write .*: File too large"):
            fetch.download(fault_server.put("/a", blob(0, 50_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetch.scratch.used_bytes == 0
    assert files_in(tmp_path / "scratch") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_the_environments_failure(tmp_path: Path) -> None:
    from fovcache.errors import EnvironmentFailure

    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EnvironmentFailure, match="permission denied"):
            Fetcher(HURRIED, tmp_path / "scratch", UrlMemo(None))
    finally:
        tmp_path.chmod(0o700)
