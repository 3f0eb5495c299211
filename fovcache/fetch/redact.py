"""URLs without their secrets, as datasets, logs, the memo and reports hold them."""

from __future__ import annotations

import logging
import re
from urllib.parse import unquote

_SIGNING = re.compile(
    "awsaccesskeyid|expires|googleaccessid|key-pair-id|policy|sig|signature"
    "|x-(amz|goog)-(algorithm|credential|date|expires|security-token|signature|signedheaders)",
    re.IGNORECASE,
)
"""What S3, Google Cloud Storage and CloudFront add to a URL when they sign it, and change when they sign anew."""

_AZURE_SIGNING = re.compile("se|ske|skoid|sks|skt|sktid|skv|sp|spr|sr|st|sv", re.IGNORECASE)
"""The same of Azure; beside a `sig` only, for the names are short enough to mean anything."""
_AZURE_SIGNATURE = re.compile(r"[?&]sig=", re.IGNORECASE)

_SECRET = re.compile(
    "(access|api|secret|subscription)[_-]?key|((access|auth|id|private|refresh)[_-]?)?token"
    "|auth|authorization|bearer|client[_-]?secret|credentials?|jwt|passwd|password|pwd|secret",
    re.IGNORECASE,
)
_PERHAPS_SECRET = re.compile("key|session([_-]?id)?", re.IGNORECASE)
"""`key=photos/1.jpg` and `session=3` name an object, and stay."""
_LIKE_A_SECRET = re.compile(r"[\w~+=-]{16,}")

_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*:)?//[^/?#]*@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#?]*)=([^&;#]*)")


def redact(url: str) -> str:
    """`url` without userinfo and without the values of parameters that grant access; the rest byte for byte.

    A signed URL is the same after it was signed anew.
    """
    bare = _USERINFO.sub(lambda match: f"{match[1] or ''}//", url)
    is_azure = _AZURE_SIGNATURE.search(bare) is not None

    def keep_or_drop(match: re.Match[str]) -> str:
        drop = _is_signing(match, is_azure) or _is_secret(match)
        return f"{match[1]}=" if drop else match[0]

    return _PARAMETER.sub(keep_or_drop, bare)


def may_hide_identity(url: str) -> bool:
    """Whether `redact` drops a value that belongs to no signing scheme: perhaps by it alone two objects differ."""
    is_azure = _AZURE_SIGNATURE.search(url) is not None
    return any(_is_secret(match) and not _is_signing(match, is_azure) for match in _PARAMETER.finditer(url))


def _is_signing(parameter: re.Match[str], is_azure: bool) -> bool:
    name = unquote(parameter[1])
    return bool(_SIGNING.fullmatch(name) or (is_azure and _AZURE_SIGNING.fullmatch(name)))


def _is_secret(parameter: re.Match[str]) -> bool:
    name, value = unquote(parameter[1]), unquote(parameter[2])
    return bool(_SECRET.fullmatch(name) or (_PERHAPS_SECRET.fullmatch(name) and _LIKE_A_SECRET.fullmatch(value)))


class RedactingFilter(logging.Filter):
    """Redacts the URLs in the arguments of another library's log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without secrets."""
        if isinstance(record.args, tuple):
            record.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True
