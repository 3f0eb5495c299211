"""Names for datasets: what a name points to, since when, and where the samples came from."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DamageError, SelectionError, UsageError, nearest
from ..keys.recipe import SCHEMA
from .documents import sealed, unseal
from .layout import REFS
from .storage import Storage

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """A name for a dataset, written when a build ends."""

    name: str
    """The dataset's name."""
    dataset: str
    """The dataset's digest."""
    created_ns: int
    """When, in nanoseconds since the epoch; the newest of a name is the one that is read."""
    sources: tuple[str, ...] = ()
    """The sources as they were given."""
    roots: tuple[str, ...] = ()
    """Where each source's relative uris start."""
    suffixes: tuple[str, ...] = ()
    """The file name endings that were taken as inputs, sorted."""


def check_dataset_name(name: str) -> str:
    """`name`, or UsageError when it cannot name a dataset."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"dataset name {name!r}: expected letters, digits, '_', '.', '+', '-', at most 100")
    return name


def publish_ref(
    storage: Storage,
    *,
    name: str,
    dataset: str,
    sources: Sequence[str],
    roots: Sequence[str],
    suffixes: Sequence[str],
) -> DatasetRef:
    """Make `name` mean `dataset` from now on."""
    ref = DatasetRef(
        name=check_dataset_name(name),
        dataset=dataset,
        created_ns=time.time_ns(),
        sources=tuple(sources),
        roots=tuple(roots),
        suffixes=tuple(sorted(suffixes)),
    )
    document: dict[str, Any] = {"kind": "ref", "schema": SCHEMA, **asdict(ref)}
    document["created_ns"] = str(ref.created_ns)  # beyond what JSON numbers hold exactly
    storage.put(f"{REFS}/{name}/{ref.created_ns:020d}-{dataset[:16]}.json", [sealed(document)])
    return ref


def read_ref(storage: Storage, file: str) -> DatasetRef:
    """The ref in a file. Raises DamageError, FileNotFoundError."""
    document = unseal(storage.read(file), file)
    try:
        return DatasetRef(
            name=document["name"],
            dataset=document["dataset"],
            created_ns=int(document["created_ns"]),
            sources=tuple(document["sources"]),
            roots=tuple(document["roots"]),
            suffixes=tuple(document["suffixes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f"{file} is not a dataset ref of schema {SCHEMA}: {error}") from error


def read_refs(storage: Storage, name: str | None = None) -> list[DatasetRef]:
    """Every ref, or every one of a name, oldest first."""
    files = storage.list(f"{REFS}/{name}" if name else REFS)
    return sorted((read_ref(storage, file) for file in files), key=lambda ref: ref.created_ns)


def find_ref(storage: Storage, name: str | None) -> DatasetRef:
    """The newest ref of `name`, which may also be a digest or its beginning (at least 8 digits).

    Without a name the only dataset there is. Raises SelectionError otherwise.
    """
    newest = {ref.name: ref for ref in read_refs(storage)}
    if name is None:
        if len(newest) == 1:
            return next(iter(newest.values()))
        said = (
            "the cache has no dataset yet" if not newest else f"name one of the datasets: {', '.join(sorted(newest))}"
        )
        raise SelectionError(said)
    if name in newest:
        return newest[name]
    if re.fullmatch(r"[0-9a-f]{8,64}", name):
        found = [ref for ref in read_refs(storage) if ref.dataset.startswith(name)]
        if len({ref.dataset for ref in found}) == 1:
            return found[-1]
    raise SelectionError(f"the cache has no dataset {name!r}{nearest(name, sorted(newest))}")
