"""Where a request goes: a URL taken apart, and what a redirect makes of it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote, urljoin

from urllib3.exceptions import LocationValueError
from urllib3.util import Url, parse_url

from .reasons import Reason, failure

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An http or https URL without its userinfo, which travels as a header."""

    url: str
    """Absolute, percent-encoded, without userinfo and fragment."""
    scheme: str
    """`http` or `https`."""
    host: str
    """Its host, as names are compared."""
    port: int
    """Its port."""
    authorization: str | None
    """The value of the Authorization header."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom it asks: credentials are not told to another."""
        return self.scheme, self.host, self.port

    def headers(self) -> dict[str, str]:
        """The headers that this target alone gets."""
        return {"Authorization": self.authorization} if self.authorization else {}

    def redirected(self, location: str) -> Target:
        """Where a Location header leads from here. Raises SampleError."""
        try:
            joined = urljoin(self.url, location)
        except ValueError:
            raise failure(Reason.BAD_URL, "it redirects to what is no URL") from None
        target = parse_target(joined, "it redirects to ")
        if self.scheme == "https" and target.scheme == "http":
            raise failure(Reason.SCHEME_REFUSED, "it redirects from https to http")
        if target.authorization is None and target.origin == self.origin:
            return Target(
                url=target.url,
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                authorization=self.authorization,
            )
        return target


def parse_target(url: str, said: str = "") -> Target:
    """Take a URL apart; `said` begins what is said of a bad one. Raises SampleError.

    Its message repeats no part of the URL but the scheme: what cannot be parsed can hide secrets anywhere.
    """
    try:
        parts = parse_url(url)
    except LocationValueError:
        raise failure(Reason.BAD_URL, f"{said}what cannot be parsed as a URL") from None
    scheme = (parts.scheme or "").lower()
    if scheme not in _PORTS:
        raise failure(Reason.SCHEME_REFUSED, f"{said}the scheme {scheme[:20]!r}, expected http or https")
    if not parts.host:
        raise failure(Reason.BAD_URL, f"{said}a URL without a host")
    return Target(
        url=Url(scheme, None, parts.host, parts.port, parts.path or "/", parts.query).url,
        scheme=scheme,
        host=parts.host.lower(),
        port=parts.port or _PORTS[scheme],
        authorization=_basic(parts.auth) if parts.auth else None,
    )


def _basic(auth: str) -> str:
    return "Basic " + b64encode(unquote(auth).encode()).decode()
