"""What a server on localhost can do to a file, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256

OLD_S = 1_700_000_000.0
"""When files were modified, unless told otherwise."""
OVERSIZED_BYTES = 1 << 20
"""What `oversized` declares, and `oversized-stream` sends."""

FAULTS: dict[str, tuple[str, bool]] = {
    "missing": ("not-found", True),
    "gone": ("not-found", True),
    "forbidden": ("forbidden", True),
    "teapot": ("http-client-error", True),
    "soft-404": ("not-media", True),
    "json": ("not-media", True),
    "text": ("not-media", True),
    "empty": ("empty", True),
    "no-content": ("empty", True),
    "partial": ("unexpected-status", True),
    "nowhere": ("unexpected-status", True),
    "loop": ("redirect-loop", True),
    "file-redirect": ("scheme-refused", True),
    "bad-redirect": ("bad-url", True),
    "oversized": ("too-large", True),
    "oversized-stream": ("too-large", True),
    "error": ("server-error", False),
    "unavailable": ("server-error", False),
    "busy": ("busy", False),
    "truncated": ("truncated", False),
    "broken-chunks": ("truncated", False),
    "bad-chunks": ("truncated", False),
    "bad-gzip": ("truncated", False),
    "resets": ("connection-failed", False),
    "hangs-up": ("connection-failed", False),
    "garbage": ("connection-failed", False),
    "resets-midway": ("truncated", False),
    "silent": ("timed-out", False),
    "stalls": ("timed-out", False),
    "drips-headers": ("too-slow", False),
    "drips": ("too-slow", False),
    "drips-chunks": ("too-slow", False),
    "no-host": ("host-not-found", False),
}
"""Each kind of fault, with the reason that it must be given and whether that is permanent. They stay until `heal`."""
HARMLESS = ("ok", "recovers", "redirected", "chunked", "gzip", "called-text")
"""Kinds that end well, some of them at the second try."""


@dataclass
class Served:
    """A file of the server."""

    data: bytes
    kind: str = "ok"
    """A key of FAULTS, or one of HARMLESS."""
    etag: bool = True
    """Whether it has an ETag, made of its bytes."""
    modified_s: float | None = OLD_S
    """Its Last-Modified, in seconds since the epoch; None for none."""
    obeys_conditions: bool = True
    """Whether a request with If-None-Match gets 304."""
    answers_head: bool = True
    """Whether HEAD is allowed."""
    location: str | None = None
    """Where `redirected` leads; None for the file itself, by way of two redirects."""
    retry_after: str = "0"
    """What a server that is busy says."""
    num_asked: int = 0
    """How many requests there were for it."""

    def headers(self) -> dict[str, str]:
        """By which versions are told apart."""
        found = {"ETag": f'"{sha256(self.data).hexdigest()[:16]}"'} if self.etag else {}
        return (
            found if self.modified_s is None else {**found, "Last-Modified": formatdate(self.modified_s, usegmt=True)}
        )


@dataclass
class Counts:
    """What the server has done."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path with query, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of each."""
    body_bytes: int = 0
    """How many bytes of bodies it handed to the network."""
    most_at_once: int = 0
    """The most requests that were under way at a time."""
