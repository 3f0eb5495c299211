"""What a uri in a manifest or a URL list means: a path or a URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from ..fetch.redact import redact
from .fields import check_text

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_MAX_SHOWN = 200
_BEFORE_AT = re.compile(r"//.*@", re.DOTALL)  # userinfo, also where a URL is too odd for it to be seen as such
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What the uris of one file are relative to."""

    folder: str
    """Absolute; relative uris start here."""
    root: str
    """Absolute; what recorded uris are relative to, `folder` or a folder above it."""
    allow_file_urls: bool
    """Whether `file:` URLs may name local files."""

    def locate(self, uri: str) -> tuple[str, str]:
        """`(uri as recorded, place)`. Raises ValueError with the reason."""
        scheme = scheme_of(uri)
        if scheme in ("http", "https"):
            url = check_url(uri)
            return redact(url), url
        if scheme == "file" and self.allow_file_urls:
            path = _file_path(uri.strip())
        elif scheme:
            raise ValueError(refusal(scheme))
        else:
            path = uri
        place = os.path.join(self.folder, check_text("uri", path).removeprefix("./"))
        return place.removeprefix(self.root.rstrip("/") + "/"), place


def scheme_of(uri: str) -> str:
    """The scheme in lower case, '' for a path. As in RFC 3986, a path whose name has a colon is written `./NAME`."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def refusal(scheme: str) -> str:
    """Why a scheme is refused, in words."""
    if scheme == "file":
        return "scheme-refused: 'file:' URLs are read only where allow_file_urls says so; write the path instead"
    named = f"{scheme[:20]}:"
    return f"scheme-refused: {named!r} is not read, expected http:, https: or a path (./NAME where a name has a colon)"


def shown_uri(uri: str) -> str:
    """A uri that is at fault, fit to be recorded: without secrets, in UTF-8, short and on one line."""
    text = _BEFORE_AT.sub("//", redact(uri.strip()))[:_MAX_SHOWN].encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def check_url(text: str) -> str:
    """An http(s) URL without space around it. Raises ValueError, which does not repeat it: it may hold secrets."""
    url = check_text("uri", text.strip())
    if _CONTROL.search(url):
        raise ValueError("its URL has control characters")
    try:
        parts = urlsplit(url)
        has_host = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError("its URL cannot be understood, expected http(s)://HOST[:PORT]/…")
    return url


def _file_path(url: str) -> str:
    """The path of a `file:` URL. Raises ValueError."""
    try:
        parts = urlsplit(url)
        path = unquote_to_bytes(parts.path).decode()
    except ValueError:
        raise ValueError("its file: URL cannot be understood, expected file:///PATH in UTF-8") from None
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError("scheme-refused: its file: URL names another host, expected file:///PATH")
    if not path.startswith("/") or parts.query or parts.fragment:
        raise ValueError("its file: URL is no absolute path; write # and ? of a name as %23 and %3F")
    return path
