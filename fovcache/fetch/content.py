"""Whether a body can be an image, a video or an archive, by its first bytes.

A Content-Type is not asked: many servers send videos as text/plain, and pages as what was asked for.
"""

from __future__ import annotations

import re

HEAD_BYTES = 1024
"""How many of a body's first bytes decide."""

_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has (WHATWG's MIME Sniffing). Every image, video and tar header has some."""
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<[a-z!?]", re.IGNORECASE)
_NETPBM = re.compile(rb"P[1-6][\s#]")
"""Images whose header is a text, and in the plain formats all of it."""


def text_fault(head: bytes) -> str:
    """Why a body that begins so is no media, or ''."""
    if not head.startswith(_BYTE_ORDER_MARKS) and (_BINARY.search(head) or _NETPBM.match(head)):
        return ""
    if _MARKUP.match(head):
        return "the body is a page (HTML or XML)"
    return "the body is JSON" if head.lstrip()[:1] in (b"{", b"[") else "the body is a text"
