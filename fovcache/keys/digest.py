"""BLAKE3 digests of bytes, files and documents.

A document is a JSON value; its digest is the BLAKE3 of its canonical form, RFC 8785 (JCS), so that any
language can compute the same digest. Digests are 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import rfc8785
from blake3 import blake3

Document: TypeAlias = Mapping[str, Any]
"""A JSON object: strings, integers below 2^53, finite floats, booleans, None, lists and objects."""

DIGEST_BYTES = 32
_READ_BYTES = 1 << 20


def canonical_json(document: Any) -> bytes:
    """The RFC 8785 form of a JSON value, as UTF-8.

    Raises ValueError for what JSON cannot hold exactly (NaN, infinities, integers beyond ±2^53).
    """
    return rfc8785.dumps(document)


def bytes_digest(data: bytes | bytearray | memoryview) -> str:
    """BLAKE3-256 of `data`, as hexadecimal."""
    return blake3(data).hexdigest()


def document_digest(document: Any) -> str:
    """BLAKE3-256 of the canonical form of a document, as hexadecimal."""
    return bytes_digest(canonical_json(document))


def file_digest(path: str | os.PathLike[str]) -> str:
    """BLAKE3-256 of a file's bytes, as hexadecimal (equal to what `b3sum` prints)."""
    hasher = blake3()
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    with Path(path).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return hasher.hexdigest()
