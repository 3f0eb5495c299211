"""One file by http or https: the request, its redirects and retries, and what is checked about the answer."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Protocol, TypeVar

from blake3 import blake3
from urllib3 import BaseHTTPResponse, Retry, Timeout
from urllib3 import exceptions as http_errors

from .. import __version__
from ..errors import SampleError
from ..store.url_memo import Validators
from .content import HEAD_BYTES, text_fault
from .freshness import is_same_version, validators_of
from .options import FetchOptions
from .pace import Pace
from .reasons import Reason, failure, status_reason, status_text
from .redact import RedactingFilter
from .routes import Routes
from .target import parse_target

_READ_BYTES = 1 << 18
_MAX_DISCARD_BYTES = 1 << 16
"""The body of an answer that is of no use is read up to here, so that its connection can serve again."""
_MAX_POOLS = 64
_MAX_SHOWN = 80

_redacting = RedactingFilter()
T = TypeVar("T")


class Sink(Protocol):
    """Takes one body; begun anew for each try."""

    def start(self, size_bytes: int | None) -> None:
        """A body of about so many bytes comes, None where it is not known."""

    def write(self, data: bytes) -> None:
        """Its next bytes."""

    def discard(self) -> None:
        """It will not be completed: forget what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a download gave."""

    size_bytes: int
    """The body's length."""
    digest: str
    """The body's BLAKE3, hexadecimal."""
    validators: Validators | None
    """By which its server can say later that it is unchanged; None where it said nothing that could."""


class HttpClient:
    """Fetches files. One serves many threads.

    Everything that can go wrong with a URL is a SampleError of the fixed list in reasons.py; after `close`, or when
    `stop` is set, whatever waits ends with CancelledError.
    """

    def __init__(self, options: FetchOptions, stop: threading.Event | None = None) -> None:
        self._options = options
        self._stop = stop or threading.Event()
        self._routes = Routes(
            Pace(min_bytes_per_s=options.min_bytes_per_s, window_s=options.rate_window_s, stop=self._stop),
            num_pools=_MAX_POOLS,
            maxsize=options.concurrency,
            timeout=Timeout(connect=options.connect_timeout_s, read=options.read_timeout_s),
            headers={"Accept-Encoding": "identity", "User-Agent": f"fovcache/{__version__}"},
        )
        for name in ("urllib3.connectionpool", "urllib3.connection"):  # they log URLs, queries and all
            logging.getLogger(name).addFilter(_redacting)

    def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        self._routes.close()

    def download(self, url: str, sink: Sink) -> Fetched:
        """Write what a URL gives to `sink`. Raises SampleError, and what `sink` raises."""

        def attempt() -> Fetched:
            try:
                with self._response("GET", url) as response:
                    if response.status != 200:
                        raise self._refused(response)
                    return self._receive(response, sink)
            except BaseException:
                sink.discard()
                raise

        return self._retry(attempt)

    def is_unchanged(self, url: str, known: Validators) -> bool:
        """Whether a URL still gives the version that `known` was said of; no body is read. Raises SampleError.

        Without an ETag the headers are asked for and compared. If-Modified-Since would ask another question: a file
        that was replaced by an older one has not been modified since.
        """
        method, headers = ("GET", {"If-None-Match": known.etag}) if known.etag else ("HEAD", {})

        def attempt() -> bool:
            with self._response(method, url, headers) as response:
                if response.status == 304 and known.etag:
                    return True
                if response.status == 200:
                    return is_same_version(response.headers, known)
                if known.etag is None:  # some servers answer no HEAD: the download will tell
                    return False
                raise self._refused(response)

        return self._retry(attempt)

    def _retry(self, attempt: Callable[[], T]) -> T:
        """Transient failures are tried again, those of a body's middle like those of a connection."""
        policy = Retry(
            total=self._options.retries,
            backoff_factor=self._options.backoff_s,
            backoff_jitter=self._options.backoff_s,
            backoff_max=self._options.max_wait_s,
        )
        while True:
            if self._stop.is_set():
                raise CancelledError("the fetch was stopped")
            try:
                return attempt()
            except SampleError as error:
                if error.permanent:
                    raise
                try:
                    policy = policy.increment("GET", error=error)
                except http_errors.MaxRetryError:
                    raise error from None
                wait_s = error.wait_s if isinstance(error, _RefusedError) else None
                self._stop.wait(policy.get_backoff_time() if wait_s is None else wait_s)

    @contextlib.contextmanager
    def _response(self, method: str, url: str, headers: Mapping[str, str] = {}) -> Iterator[BaseHTTPResponse]:
        """The answer at the end of the redirects; what is left of it is given up. Raises SampleError."""
        response = self._follow(method, url, headers)
        try:
            yield response
        except http_errors.HTTPError as error:
            raise _body_failure(error) from None
        finally:
            self._give_up(response)

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        target = parse_target(url)
        for _ in range(self._options.max_redirects + 1):
            manager = self._routes.manager(target)
            sent = {**manager.headers, **headers, **target.headers()}
            try:
                response = manager.urlopen(
                    method, target.url, headers=sent, redirect=False, retries=False, preload_content=False
                )
            except http_errors.HTTPError as error:
                raise _connection_failure(error, target.host[:_MAX_SHOWN]) from None
            location = response.get_redirect_location()
            if not location:
                return response
            self._give_up(response)
            target = target.redirected(location)
        raise failure(Reason.REDIRECT_LOOP, f"more than {self._options.max_redirects} redirects")

    @staticmethod
    def _give_up(response: BaseHTTPResponse) -> None:
        if response.status != 200 or response.length_remaining == 0:  # read, so that the connection can serve again
            with contextlib.suppress(http_errors.HTTPError, SampleError, CancelledError):
                response.read(_MAX_DISCARD_BYTES, decode_content=False)
        response.close()  # closes what was not read to its end

    def _refused(self, response: BaseHTTPResponse) -> SampleError:
        reason, text = status_reason(response.status), f"HTTP {status_text(response.status)}"
        return _RefusedError(reason, text, self._asked_wait_s(response))

    def _asked_wait_s(self, response: BaseHTTPResponse) -> float | None:
        try:
            asked_s = Retry().get_retry_after(response)
        except http_errors.InvalidHeader:
            return None
        return None if asked_s is None else min(asked_s, self._options.max_wait_s)

    def _receive(self, response: BaseHTTPResponse, sink: Sink) -> Fetched:
        declared = response.length_remaining  # that of an encoded body is another, hence the check of each chunk
        self._check_size(declared or 0, "declares")
        validators = validators_of(response.headers)
        chunks = iter(lambda: response.read1(_READ_BYTES, decode_content=True), b"")
        head = _read_head(chunks)
        sink.start(declared)
        sink.write(head)
        hasher, size_bytes = blake3(head), len(head)
        for chunk in chunks:
            size_bytes += len(chunk)
            self._check_size(size_bytes, "has sent")
            sink.write(chunk)
            hasher.update(chunk)
        return Fetched(size_bytes=size_bytes, digest=hasher.hexdigest(), validators=validators)

    def _check_size(self, size_bytes: int, what: str) -> None:
        limit = self._options.max_file_bytes
        if size_bytes > limit:
            raise failure(Reason.TOO_LARGE, f"the server {what} {size_bytes} bytes, at most {limit} are fetched")


class _RefusedError(SampleError):
    """The server answered, and not with the file."""

    def __init__(self, reason: Reason, details: str, wait_s: float | None) -> None:
        super().__init__("fetch", f"{reason}: {details}", permanent=reason.is_permanent)
        self.wait_s = wait_s


def _read_head(chunks: Iterator[bytes]) -> bytes:
    """The first bytes, which say whether the rest is wanted. Raises SampleError."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    if not head:
        raise failure(Reason.EMPTY, "the body has no bytes")
    if fault := text_fault(head[:HEAD_BYTES]):
        raise failure(Reason.NOT_MEDIA, fault)
    return head


def _connection_failure(error: http_errors.HTTPError, host: str) -> SampleError:
    """What urllib3 raised before there was an answer. Its own text can hold the URL, and a proxy's password."""
    match error:
        case http_errors.LocationValueError():
            return failure(Reason.BAD_URL, "the host's name cannot be one")
        case http_errors.NameResolutionError():
            return failure(Reason.HOST_NOT_FOUND, f"no address is known for {host}")
        case http_errors.NewConnectionError():
            return failure(Reason.CONNECTION_FAILED, f"{host} could not be connected to{_cause(error)}")
        case http_errors.TimeoutError():
            return failure(Reason.TIMED_OUT, f"{host} did not answer in time")
        case http_errors.SSLError():
            return failure(Reason.TLS_FAILED, f"no secure connection to {host}{_cause(error)}")
        case http_errors.ProxyError():
            return failure(Reason.CONNECTION_FAILED, f"the proxy did not connect to {host}")
    return failure(Reason.CONNECTION_FAILED, f"{host} gave no answer in HTTP{_cause(error)}")


def _body_failure(error: http_errors.HTTPError) -> SampleError:
    """What urllib3 raised while a body was read."""
    match error:
        case http_errors.TimeoutError():
            return failure(Reason.TIMED_OUT, "the server went silent within the body")
        case http_errors.DecodeError():
            return failure(Reason.TRUNCATED, "the body's content encoding is broken")
    return failure(Reason.TRUNCATED, f"the body ended early{_cause(error)}")


def _cause(error: BaseException) -> str:
    """` (Connection refused)`: the system's word for it, where there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return f" ({seen.strerror})"
        nested = next((arg for arg in seen.args if isinstance(arg, BaseException)), None)
        seen = nested or seen.__cause__
    return ""
