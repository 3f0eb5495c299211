"""Ending servers that drip, and waits that nobody wants any more.

A read timeout bounds the silence between two packets, so a server that sends a byte a second holds a thread for ever,
in the headers as well as in the body. Here every wait for a server is measured where it happens, at the socket.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from .reasons import Reason, failure

_SLICE_S = 0.25
"""How soon a wait ends after it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The rate that a server must keep."""

    min_bytes_per_s: float
    """On average over a window; 0 for no minimum."""
    window_s: float
    """A window's length in seconds spent waiting for the server: what its reader does meanwhile does not count."""
    stop: threading.Event
    """Ends every wait when it is set."""

    def equip(self, pool: Any) -> Any:
        """Make the connections of a urllib3 pool keep this pace."""
        make: Callable[..., Any] = pool.ConnectionCls

        def connect(*args: Any, **options: Any) -> Any:
            connection = make(*args, **options)
            connection.response_class = self._response
            return connection

        pool.ConnectionCls = connect
        return pool

    def _response(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **options)
        response.fp = io.BufferedReader(_PacedReader(sock, response.fp.detach(), self))
        return response


class _PacedReader(io.RawIOBase):
    """What a socket receives for one response."""

    def __init__(self, sock: socket.socket, file: io.RawIOBase, pace: Pace) -> None:
        self._sock = sock
        self._file = file  # holds the socket open
        self._pace = pace
        self._timeout_s = sock.gettimeout()
        self._has_begun = False
        self._waited_s = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        self._check_rate()
        start = time.monotonic()
        count = self._receive(buffer, start)
        if self._has_begun:  # a server may think before it answers: the read timeout bounds that
            self._waited_s += time.monotonic() - start
            self._received += count
        self._has_begun = True
        return count

    def _receive(self, buffer: Any, start: float) -> int:
        try:
            while not self._pace.stop.is_set():
                left_s = float("inf") if self._timeout_s is None else start + self._timeout_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError("timed out")
                self._sock.settimeout(min(_SLICE_S, left_s))
                try:
                    return self._sock.recv_into(buffer)
                except TimeoutError:
                    continue
            raise CancelledError("the fetch was stopped")
        finally:
            self._sock.settimeout(self._timeout_s)

    def _check_rate(self) -> None:
        """Before a wait and not after it: what is whole when it arrives was not too slow."""
        if self._waited_s >= self._pace.window_s:
            if self._received < self._pace.min_bytes_per_s * self._waited_s:
                rate = self._received / self._waited_s
                expected = f"expected at least {self._pace.min_bytes_per_s:g}"
                raise failure(Reason.TOO_SLOW, f"{rate:.1f} bytes/s over {self._waited_s:.1f} s, {expected}")
            self._waited_s, self._received = 0.0, 0
