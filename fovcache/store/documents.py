"""JSON documents on disk: written in canonical form, so that any flipped byte shows."""

from __future__ import annotations

import json
from typing import Any

from ..errors import DamageError
from ..keys.digest import Document, bytes_digest, canonical_json, document_digest
from .storage import Storage


def sealed(document: Document) -> bytes:
    """The canonical bytes of a document with its own digest added as `digest`."""
    return canonical_json({**document, "digest": document_digest(document)})


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The document in sealed bytes, without its digest. Raises DamageError when a byte has changed."""
    document = parse_canonical(data, name)
    digest = document.pop("digest", None)
    if digest != bytes_digest(_plain_json(document)) and digest != document_digest(document):
        raise DamageError(f"{name} is damaged: its content does not match its digest")
    return document


def parse_canonical(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object in canonical form. Raises DamageError for anything else."""
    try:
        document = json.loads(data, parse_int=_parse_int)
        if isinstance(document, dict) and (_plain_json(document) == data or canonical_json(document) == data):
            return document
    except ValueError:
        pass
    raise DamageError(f"{name} is damaged: it is not the canonical JSON that was written")


def _parse_int(digits: str) -> int | float:
    """Digits without a point beyond 2^53 can only have been written for a float."""
    number = int(digits)
    return number if abs(number) < 2**53 else float(digits)


def _plain_json(document: dict[str, Any]) -> bytes:
    """What the standard encoder makes of a document: its canonical form, far faster, unless it holds floats or such."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_keyed(storage: Storage, name: str, digest: str) -> dict[str, Any]:
    """A document that is named by its digest. Raises DamageError, FileNotFoundError."""
    document = parse_canonical(storage.read(name), name)
    if document_digest(document) != digest:
        raise DamageError(f"{name} is damaged: its content does not match its name")
    return document


def read_loosely(storage: Storage, name: str) -> dict[str, Any]:
    """What can be read of a document that may be damaged or gone. Nothing of it is to be trusted."""
    try:
        document = json.loads(storage.read(name))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def put_keyed(storage: Storage, name: str, document: Document) -> None:
    """Write a document under its digest unless it is there."""
    if not storage.exists(name):
        storage.put(name, [canonical_json(document)])
