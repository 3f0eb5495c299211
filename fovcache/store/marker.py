"""The file that says that a folder is a cache, and of which schema."""

from __future__ import annotations

from ..errors import CacheFormatError, DamageError
from ..keys.digest import canonical_json
from ..keys.recipe import SCHEMA
from .documents import parse_canonical
from .layout import MARKER
from .storage import LocalStorage, Storage


def marker_bytes() -> bytes:
    """The marker of a cache of this schema."""
    return canonical_json({"format": "fovcache", "schema": SCHEMA})


def ensure_marker(storage: Storage) -> None:
    """Make the storage a cache, if it is not one: the first thing that is written."""
    if not storage.exists(MARKER):
        storage.put_if_absent(MARKER, [marker_bytes()])


def check_marker(storage: LocalStorage) -> None:
    """Raise CacheFormatError unless the marker is that of a cache that can be read here."""
    try:
        document = parse_canonical(storage.read(MARKER), MARKER)
        schema = int(document["schema"])
    except (DamageError, KeyError, TypeError, ValueError) as error:
        raise CacheFormatError(f"{storage.path(MARKER)} is damaged: {error}; `fovcache repair` restores it") from error
    if document.get("format") != "fovcache" or schema > SCHEMA:
        raise CacheFormatError(
            f"{storage.root} is a cache of schema {schema}, and this fovcache reads up to {SCHEMA}: upgrade fovcache"
        )
