"""An HTTP server on localhost for the demo's clips."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

from fovcache.errors import environment_failure

HOST = "127.0.0.1"
PORT = 8064
"""Where it listens first: URLs are remembered with what they held."""
MAX_CONNECTIONS = 64
TIMEOUT_S = 10.0
"""No connection may be silent for longer."""


@contextlib.contextmanager
def served(folder: Path, port: int = PORT) -> Iterator[str]:
    """Serve a folder's files while a block of code runs; the URL, without a slash at the end.

    Another port is taken where `port` is not free. Requests to it go by no proxy meanwhile. Raises EnvironmentFailure.
    """
    with _bind(folder, port) as server, _without_proxy():
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="demo-server", daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _bind(folder: Path, port: int) -> _Server:
    try:
        return _Server(folder, port)
    except OSError as error:
        if port == 0 or error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise environment_failure(error, f"listen on {HOST}") from error
    return _bind(folder, 0)


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """A proxy would look for the server on its own machine."""
    before = os.environ.get("no_proxy")
    others = before or os.environ.get("NO_PROXY", "")
    os.environ["no_proxy"] = f"{others},{HOST}" if others else HOST
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


class _Server(ThreadingTCPServer):  # HTTPServer looks for the host's name, which can take long
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, folder: Path, port: int) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((HOST, port), partial(_Handler, directory=str(folder)))

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: tuple[str, int]
    ) -> None:
        self._slots.acquire()  # a silent connection gives its slot back after TIMEOUT_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().shutdown_request(request)
        self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error here."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    disable_nagle_algorithm = True  # the body follows the headers at once, however short it is

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
