"""Why a fetch can fail: a fixed list, so that a ledger can be counted and compared."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus

from ..errors import SampleError


class Reason(StrEnum):
    """What went wrong. A ledger's reason begins with it."""

    BAD_URL = "bad-url"
    """It is no URL."""
    SCHEME_REFUSED = "scheme-refused"
    """It, or what it redirects to, is not http or https, or leads from https to http."""
    HOST_NOT_FOUND = "host-not-found"
    """No address is known for its host."""
    CONNECTION_FAILED = "connection-failed"
    """The host, or a proxy, refused or dropped the connection before it answered, or answered something else."""
    TLS_FAILED = "tls-failed"
    """The connection could not be made secure."""
    TIMED_OUT = "timed-out"
    """The host sent nothing for too long."""
    TOO_SLOW = "too-slow"
    """The host sends, but below the minimum rate."""
    REDIRECT_LOOP = "redirect-loop"
    """It redirects more often than is followed. Permanent: servers that loop do so until somebody mends them."""
    NOT_FOUND = "not-found"
    """404 or 410."""
    FORBIDDEN = "forbidden"
    """401, 402, 403, 407 or 451."""
    BUSY = "busy"
    """408, 425 or 429."""
    HTTP_CLIENT_ERROR = "http-client-error"
    """Another 4xx."""
    SERVER_ERROR = "server-error"
    """5xx."""
    UNEXPECTED_STATUS = "unexpected-status"
    """Another status than 200, such as 206 that was not asked for, or a redirect to nowhere."""
    EMPTY = "empty"
    """A body of no bytes."""
    TOO_LARGE = "too-large"
    """More bytes than a file may have, or than the scratch folder may hold."""
    NOT_MEDIA = "not-media"
    """A page or a text where an image, a video or an archive was expected."""
    TRUNCATED = "truncated"
    """The body ended before its end, or its encoding is broken."""
    CHANGED = "changed"
    """The bytes are not those of the sample's key."""

    @property
    def is_permanent(self) -> bool:
        """Whether asking the same again cannot help."""
        return self in _PERMANENT


_PERMANENT = frozenset(Reason) - {
    Reason.HOST_NOT_FOUND,
    Reason.CONNECTION_FAILED,
    Reason.TLS_FAILED,
    Reason.TIMED_OUT,
    Reason.TOO_SLOW,
    Reason.BUSY,
    Reason.SERVER_ERROR,
    Reason.TRUNCATED,
    Reason.CHANGED,
}

_BY_STATUS = {
    204: Reason.EMPTY,
    401: Reason.FORBIDDEN,
    402: Reason.FORBIDDEN,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    407: Reason.FORBIDDEN,
    408: Reason.BUSY,
    410: Reason.NOT_FOUND,
    425: Reason.BUSY,
    429: Reason.BUSY,
    451: Reason.FORBIDDEN,
}
_BY_CLASS = {4: Reason.HTTP_CLIENT_ERROR, 5: Reason.SERVER_ERROR}


def failure(reason: Reason, details: str) -> SampleError:
    """The error that a build records. `details` must hold no secret of a URL."""
    return SampleError("fetch", f"{reason}: {details}", permanent=reason.is_permanent)


def reason_of(text: str) -> Reason | None:
    """What a ledger's reason begins with; None when it does not come from here."""
    code = text.partition(":")[0]
    return Reason(code) if code in frozenset(Reason) else None


def status_reason(status: int) -> Reason:
    """What a status other than 200 means."""
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Reason.UNEXPECTED_STATUS)


def status_text(status: int) -> str:
    """`404 Not Found`: the standard's words and not the server's, which may be anything."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
