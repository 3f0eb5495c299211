"""The file that says that a folder is a cache, and of which schema."""

from __future__ import annotations

from ..errors import CacheFormatError, DamageError
from ..keys.digest import canonical_json
from ..keys.recipe import SCHEMA
from .documents import parse_canonical
from .layout import MARKER
from .storage import LocalStorage, Storage, is_temporary


def marker_bytes() -> bytes:
    """The marker of a cache of this schema."""
    return canonical_json({"format": "fovcache", "schema": SCHEMA})


def ensure_marker(storage: Storage) -> None:
    """Make the storage a cache, if it is not one: the first thing that is written."""
    if not storage.exists(MARKER):
        storage.put_if_absent(MARKER, [marker_bytes()])


def is_empty_folder(storage: LocalStorage) -> bool:
    """Whether the folder is absent or empty, but for what a builder left that was killed before it wrote the marker."""
    if not storage.root.is_dir():
        return True
    inside = [entry.name for entry in storage.root.iterdir()]
    return not inside or (inside == [storage.TEMPORARY] and all(map(is_temporary, storage.list(storage.TEMPORARY))))


def check_marker(storage: LocalStorage) -> None:
    """Raise CacheFormatError for a cache of a newer schema, DamageError when the marker is not as it was written."""
    data = storage.read(MARKER)
    if data == marker_bytes():
        return
    try:
        document = parse_canonical(data, MARKER)
        schema = int(document["schema"])
        is_newer = document["format"] == "fovcache" and schema > SCHEMA
    except (DamageError, KeyError, TypeError, ValueError):
        is_newer = False
    if is_newer:
        raise CacheFormatError(
            f"{storage.root} is a cache of schema {schema}, and this fovcache reads up to {SCHEMA}: upgrade fovcache"
        )
    raise DamageError(f"{storage.path(MARKER)} is damaged; `fovcache repair` restores it")
