"""An HTTP server on localhost that does to each path what it is told to, and counts what it sends."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from served import FAULTS, HARMLESS, OVERSIZED_BYTES, Counts, Served

MAX_S = 20.0
"""No fault holds a connection longer."""
MAX_CONNECTIONS = 64
NO_HOST = ".".join(["x" * 60] * 5) + ".invalid"
"""A host that cannot be found, and for which no name server is asked: its name is too long."""
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>No such file.</body></html>\n"


class FaultServer:
    """Serves `files`, a mapping of paths to `Served`, until it is closed."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.counts = Counts()
        self.pause_s = 0.02
        """Between two bytes that drip."""
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.under_way = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.faults = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def num_connections(self) -> int:
        """How many connections were made to it."""
        return self._server.num_connections

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, path: str, data: bytes, kind: str = "ok", **options: object) -> str:
        """Serve a file; its URL."""
        assert kind in FAULTS or kind in HARMLESS, kind
        self.files[path] = Served(data, kind, **options)  # type: ignore[arg-type]
        return self.url + path

    def put_all(
        self, files: Mapping[str, bytes], *, share: float, seed: int, kinds: Iterable[str] = tuple(FAULTS)
    ) -> dict[str, str]:
        """Serve files, of which a share has faults: every kind in turn, on paths that the seed picks; path → kind."""
        chance = random.Random(seed)
        faulty = chance.sample(sorted(files), round(len(files) * share))
        names = list(kinds)
        faults = {path: names[number % len(names)] for number, path in enumerate(faulty)}
        for path, data in files.items():
            self.put(path, data, faults.get(path) or chance.choice(HARMLESS))
        return {path: self.files[path].kind for path in files}

    def heal(self, *, only_transient: bool = True) -> None:
        """End the faults that a server can get over by itself, or all of them."""
        for served in self.files.values():
            if served.kind in FAULTS and not (only_transient and FAULTS[served.kind][1]):
                served.kind = "ok"

    def close(self) -> None:
        """End it, with every connection."""
        self.stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    faults: FaultServer
    daemon_threads = False  # server_close waits for them: hang_up and MAX_S bound that
    request_queue_size = 128

    def __init__(self, *args: object) -> None:
        self.num_connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(*args)

    def process_request(self, request, client_address) -> None:
        self._slots.acquire(timeout=MAX_S)
        with self._lock:
            self._open.add(request)
            self.num_connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)
        self._slots.release()

    def hang_up(self) -> None:
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = MAX_S
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        faults = self.server.faults
        with faults.lock:
            faults.counts.requests.append((self.command, self.path))
            faults.counts.headers.append(dict(self.headers))
            faults.under_way += 1
            faults.counts.most_at_once = max(faults.counts.most_at_once, faults.under_way)
        try:
            path, _, query = self.path.partition("?")
            served = faults.files.get(path)
            if served is None:
                self._missing(Served(b""))
                return
            served.num_asked += 1
            method: Callable[[Served], None] = getattr(self, "_" + served.kind.replace("-", "_"))
            self._ok(served) if "whole" in query else method(served)
        finally:
            with faults.lock:
                faults.under_way -= 1

    # What ends well.

    def _ok(self, served: Served, body: bytes | None = None, **more: str) -> None:
        headers = served.headers()
        asked = self.headers.get("If-None-Match")
        if self.command == "HEAD" and not served.answers_head:
            self._answer(405)
        elif asked is not None and asked == headers.get("ETag") and served.obeys_conditions:
            self._answer(304, **headers)
        else:
            self._answer(200, served.data if body is None else body, **headers, **more)

    def _recovers(self, served: Served) -> None:
        if served.num_asked == 1:
            self._answer(503, PAGE, Retry_After="0")
        else:
            self._ok(served)

    def _redirected(self, served: Served) -> None:
        is_second = "hop" in self.path.partition("?")[2]
        second = f"{self.server.faults.url}{self.path}&whole" if is_second else "?hop"
        self._answer(302, PAGE, Location=served.location or second)

    def _chunked(self, served: Served) -> None:
        middle = len(served.data) // 2
        self._begin_chunks(**served.headers())
        self._chunks(served.data[:middle], served.data[middle:], b"")

    def _gzip(self, served: Served) -> None:
        import gzip

        self._ok(served, gzip.compress(served.data), Content_Encoding="gzip")

    def _called_text(self, served: Served) -> None:
        self._ok(served, Content_Type="text/html; charset=utf-8")

    # What is refused.

    def _missing(self, served: Served) -> None:
        self._answer(404, PAGE, Content_Type="text/html")

    def _gone(self, served: Served) -> None:
        self._answer(410)

    def _forbidden(self, served: Served) -> None:
        self._answer(403, PAGE)

    def _teapot(self, served: Served) -> None:
        self._answer(418, PAGE)

    def _soft_404(self, served: Served) -> None:
        self._answer(200, PAGE, Content_Type="video/mp4")

    def _json(self, served: Served) -> None:
        self._answer(200, b'{"error": "no such object"}', Content_Type="application/octet-stream")

    def _text(self, served: Served) -> None:
        self._answer(200, "Datei nicht gefunden: schön\n".encode() * 100)

    def _empty(self, served: Served) -> None:
        self._answer(200)

    def _no_content(self, served: Served) -> None:
        self._answer(204)

    def _partial(self, served: Served) -> None:
        self._answer(206, served.data[:10])

    def _nowhere(self, served: Served) -> None:
        self._answer(302, PAGE)

    def _loop(self, served: Served) -> None:
        self._answer(301, PAGE, Location=self.path)

    def _file_redirect(self, served: Served) -> None:
        self._answer(302, PAGE, Location="file:///etc/passwd")

    def _bad_redirect(self, served: Served) -> None:
        self._answer(302, PAGE, Location="http://[::1/")

    def _oversized(self, served: Served) -> None:
        self._begin(200, Content_Length=str(OVERSIZED_BYTES))
        self._send_body(served.data)

    def _oversized_stream(self, served: Served) -> None:
        self._begin_chunks()
        self._chunks(*[served.data[:4096].ljust(4096, b"\0")] * (OVERSIZED_BYTES // 4096), b"")

    # What a server gets over.

    def _error(self, served: Served) -> None:
        self._answer(500, PAGE)

    def _unavailable(self, served: Served) -> None:
        self._answer(503, PAGE)

    def _busy(self, served: Served) -> None:
        self._answer(429, Retry_After=served.retry_after)

    def _truncated(self, served: Served) -> None:
        self._begin(200, Content_Length=str(len(served.data) + 1000), **served.headers())
        self._send_body(served.data)

    def _broken_chunks(self, served: Served) -> None:
        self._begin_chunks()
        self._chunks(served.data)  # and not the empty one that ends a body

    def _bad_chunks(self, served: Served) -> None:
        self._begin_chunks()
        self._chunks(served.data)
        self._send_body(b"no number\r\n")

    def _bad_gzip(self, served: Served) -> None:
        self._answer(200, b"\x1f\x8b\x08" + served.data, Content_Encoding="gzip")

    def _resets(self, served: Served) -> None:
        self._reset()

    def _hangs_up(self, served: Served) -> None:
        self.close_connection = True

    def _garbage(self, served: Served) -> None:
        self._send_body(b"\0\1\2 220 this is another protocol\r\n")
        self.close_connection = True

    def _resets_midway(self, served: Served) -> None:
        self._begin(200, Content_Length=str(len(served.data)))
        self._send_body(served.data[: len(served.data) // 2])
        time.sleep(0.01)  # what is under way when a connection is reset is lost
        self._reset()

    def _silent(self, served: Served) -> None:
        self.server.faults.stop.wait(MAX_S)
        self.close_connection = True

    def _stalls(self, served: Served) -> None:
        self._begin(200, Content_Length=str(len(served.data)))
        self._send_body(served.data[: len(served.data) // 2])
        self._silent(served)

    def _drips_headers(self, served: Served) -> None:
        self._drip(b"HTTP/1.1 200 OK\r\nX-Never-Ending: " + bytes([65]) * 10**5)

    def _drips(self, served: Served) -> None:
        self._begin(200, Content_Length=str(10**5))
        self._drip(served.data * 10)

    def _drips_chunks(self, served: Served) -> None:
        self._begin_chunks()
        self._chunks(served.data)
        self._drip(b"5;" + bytes([65]) * 10**5)

    def _no_host(self, served: Served) -> None:
        self._answer(302, PAGE, Location=f"http://{NO_HOST}{self.path}")

    # How.

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        if status in (204, 304):
            self._begin(status, keep=True, **headers)
        else:
            self._begin(status, keep=True, Content_Length=str(len(body)), **headers)
            self._send_body(body)

    def _begin(self, status: int, *, keep: bool = False, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not keep:
            self.send_header("Connection", "close")  # which makes this handler close it
        self.end_headers()

    def _begin_chunks(self, **headers: str) -> None:
        self._begin(200, Transfer_Encoding="chunked", **headers)

    def _chunks(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._send_body(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    def _drip(self, data: bytes) -> None:
        faults, end_s = self.server.faults, time.monotonic() + MAX_S
        for byte in data:
            if faults.stop.wait(faults.pause_s) or time.monotonic() > end_s:
                break
            self._send_body(bytes([byte]))
        self.close_connection = True

    def _send_body(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        self.wfile.write(data)
        with self.server.faults.lock:
            self.server.faults.counts.body_bytes += len(data)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
