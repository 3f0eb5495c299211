"""Datasets: immutable, content-addressed lists of samples, and the names that point to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DamageError, SelectionError, UsageError, nearest
from ..keys.digest import DIGEST_BYTES, bytes_digest
from ..keys.recipe import SCHEMA
from ..sources.sample import Sample, Unreadable
from .documents import sealed, unseal
from .layout import DATASETS, REFS, dataset_name, stem
from .safetensors_file import array_bytes, file_parts, parse_header
from .shard import keys_array, keys_hex
from .storage import Storage
from .strings import pack_strings, unpack_strings

_NUMPY: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "I32": np.dtype(np.int32), "I64": np.dtype(np.int64)}
_NAMES = {value.str: key for key, value in _NUMPY.items()}
_STRING_COLUMNS = ("uri", "caption", "group", "split")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A list of samples in order. Its digest is that of its file's bytes."""

    samples: tuple[Sample, ...]
    """In the order of their sources."""
    unreadable: tuple[Unreadable, ...] = ()
    """What the sources held that could not be read."""

    def parts(self) -> list[bytes | memoryview]:
        """The dataset's file: columns as a safetensors file."""
        columns: dict[str, np.ndarray] = {
            "key": keys_array([sample.key for sample in self.samples]).reshape(-1, DIGEST_BYTES),
            "source": np.array([sample.source for sample in self.samples], np.int32),
        }
        for name in _STRING_COLUMNS:
            columns |= pack_strings(name, [getattr(sample, name) for sample in self.samples])
        columns |= _pack_labels([sample.label for sample in self.samples])
        if self.unreadable:
            columns |= _pack_unreadable(self.unreadable)
        tensors = {name: (_NAMES[value.dtype.str], value.shape, array_bytes(value)) for name, value in columns.items()}
        return file_parts(tensors, {"format": "fovcache", "kind": "dataset", "schema": str(SCHEMA)})

    @property
    def digest(self) -> str:
        """The dataset's key."""
        return bytes_digest(b"".join(self.parts()))


def read_dataset(storage: Storage, digest: str) -> Dataset:
    """The dataset of a digest. Raises DamageError, FileNotFoundError."""
    name = dataset_name(digest)
    data = storage.read(name)
    if bytes_digest(data) != digest:
        raise DamageError(f"{name} is damaged: its bytes do not match its name")
    infos, _ = parse_header(data, len(data), name)
    columns = {
        key: np.frombuffer(
            data, _NUMPY[info.dtype], info.size_bytes // _NUMPY[info.dtype].itemsize, info.offset
        ).reshape(info.shape)
        for key, info in infos.items()
    }
    keys = keys_hex(columns["key"])
    texts = {name: unpack_strings(name, columns, len(keys)) for name in _STRING_COLUMNS}
    labels = _unpack_labels(columns, len(keys))
    samples = tuple(
        Sample(key=key, source=source, uri=uri or "", caption=caption, group=group, split=split, label=label)
        for key, source, uri, caption, group, split, label in zip(
            keys, columns["source"].tolist(), *(texts[name] for name in _STRING_COLUMNS), labels, strict=True
        )
    )
    return Dataset(samples=samples, unreadable=_unpack_unreadable(columns))


def _pack_labels(labels: Sequence[int | str | None]) -> dict[str, np.ndarray]:
    columns = pack_strings("label", [label if isinstance(label, str) else None for label in labels])
    if any(isinstance(label, int) for label in labels):
        columns["label.int"] = np.array([label if isinstance(label, int) else 0 for label in labels], np.int64)
        columns["label.is_int"] = np.array([isinstance(label, int) for label in labels], np.uint8)
    return columns


def _unpack_labels(columns: dict[str, np.ndarray], num_rows: int) -> list[int | str | None]:
    labels: list[int | str | None] = list(unpack_strings("label", columns, num_rows))
    if "label.int" in columns:
        numbers, flags = columns["label.int"].tolist(), columns["label.is_int"].tolist()
        labels = [n if is_int else label for label, n, is_int in zip(labels, numbers, flags, strict=True)]
    return labels


def _pack_unreadable(unreadable: Sequence[Unreadable]) -> dict[str, np.ndarray]:
    return {
        **pack_strings("unreadable.uri", [item.uri for item in unreadable]),
        **pack_strings("unreadable.reason", [item.reason for item in unreadable]),
        "unreadable.source": np.array([item.source for item in unreadable], np.int32),
        "unreadable.permanent": np.array([item.permanent for item in unreadable], np.uint8),
    }


def _unpack_unreadable(columns: dict[str, np.ndarray]) -> tuple[Unreadable, ...]:
    if "unreadable.source" not in columns:
        return ()
    sources = columns["unreadable.source"].tolist()
    uris = unpack_strings("unreadable.uri", columns, len(sources))
    reasons = unpack_strings("unreadable.reason", columns, len(sources))
    flags = columns["unreadable.permanent"].tolist()
    return tuple(
        Unreadable(uri=uri or "", source=source, reason=reason or "", permanent=bool(flag))
        for uri, source, reason, flag in zip(uris, sources, reasons, flags, strict=True)
    )


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


def publish_dataset(storage: Storage, dataset: Dataset) -> str:
    """Write a dataset unless it is there; its digest."""
    parts = dataset.parts()
    digest = bytes_digest(b"".join(parts))
    if not storage.exists(dataset_name(digest)):
        storage.put(dataset_name(digest), parts)
    return digest


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


def dataset_digests(storage: Storage) -> Iterator[str]:
    """The digests of all dataset files."""
    return (stem(name) for name in storage.list(DATASETS))
