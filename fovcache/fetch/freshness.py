"""How a server says which version of a file it sends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..store.url_memo import Validators

_RACY_S = 2.0
"""A Last-Modified has a grain of a second: a file that was sent sooner after its change may change again within it."""


def validators_of(headers: Mapping[str, str]) -> Validators | None:
    """What the headers of an answer say, None where nothing tells versions apart.

    A weak ETag is taken too: it may be the same for two encodings of a file, but not for two versions of it.
    """
    etag, last_modified = _plain(headers.get("ETag")), _plain(headers.get("Last-Modified"))
    if not etag and not _is_settled(last_modified, headers.get("Date")):
        last_modified = None
    if not etag and not last_modified:
        return None
    length = headers.get("Content-Length", "")
    size_bytes = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    return Validators(etag=etag, last_modified=last_modified, size_bytes=size_bytes)


def is_same_version(headers: Mapping[str, str], known: Validators) -> bool:
    """Whether a server that answers in full would send the version that `known` was said of."""
    return validators_of(headers) == known


def _plain(value: str | None) -> str | None:
    """A header's value that can be sent back as it came, else None."""
    return value if value and value.isprintable() and value.isascii() else None


def _is_settled(last_modified: str | None, date: str | None) -> bool:
    modified = _parse(last_modified)
    sent = _parse(date) or datetime.fromtimestamp(time.time(), UTC)
    return modified is not None and (sent - modified).total_seconds() >= _RACY_S


def _parse(text: str | None) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
