"""Datasets: immutable, content-addressed lists of samples.

A `Dataset` is what a build found; a `SampleTable` is the same read back, by columns, so that a million samples
open at once and only what is looked at becomes objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DamageError, SelectionError
from ..keys.digest import DIGEST_BYTES, Document, bytes_digest
from ..keys.recipe import SCHEMA, caption_key, is_of_captions
from ..sources.sample import Sample, Unreadable
from .layout import DATASETS, dataset_name, stem
from .safetensors_file import array_bytes, file_parts, parse_header
from .shard import keys_array, keys_hex
from .storage import Storage
from .strings import pack_categories, pack_strings, unpack_categories, unpack_strings

if TYPE_CHECKING:
    from ..sources.scan import Scan

_NUMPY: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "I32": np.dtype(np.int32), "I64": np.dtype(np.int64)}
_NAMES = {value.str: key for key, value in _NUMPY.items()}
_TEXTS = ("uri", "caption")
_CATEGORIES = ("group", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A list of samples in order. Its digest is that of its file's bytes."""

    samples: tuple[Sample, ...]
    """In the order of their sources."""
    unreadable: tuple[Unreadable, ...] = ()
    """What the sources held that could not be read."""

    @classmethod
    def of(cls, scan: Scan) -> Dataset:
        """What the sources of a scan hold."""
        return cls(samples=tuple(scan.samples), unreadable=tuple(scan.unreadable))

    def parts(self) -> list[bytes | memoryview]:
        """The dataset's file: columns as a safetensors file."""
        columns: dict[str, np.ndarray] = {
            "key": keys_array([sample.key for sample in self.samples]).reshape(-1, DIGEST_BYTES),
            "source": np.array([sample.source for sample in self.samples], np.int32),
        }
        for name in _TEXTS:
            columns |= pack_strings(name, [getattr(sample, name) for sample in self.samples])
        for name in _CATEGORIES:
            columns |= pack_categories(name, [getattr(sample, name) for sample in self.samples])
        columns |= _pack_labels([sample.label for sample in self.samples])
        columns |= _pack_unreadable(self.unreadable)
        tensors = {name: (_NAMES[value.dtype.str], value.shape, array_bytes(value)) for name, value in columns.items()}
        return file_parts(tensors, {"format": "fovcache", "kind": "dataset", "schema": str(SCHEMA)})

    @property
    def digest(self) -> str:
        """The dataset's key."""
        return bytes_digest(b"".join(self.parts()))


class SampleTable:
    """A stored dataset by columns."""

    def __init__(self, columns: Mapping[str, np.ndarray], digest: str = "") -> None:
        self._columns = columns
        self.digest = digest
        """The dataset's; empty where it is not known."""
        self.keys = columns["key"]
        """The samples' keys, uint8 [samples, 32]."""

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def caption_keys(self) -> np.ndarray:
        """The keys of the samples' captions, uint8 [samples, 32]."""
        captions = self.texts("caption")
        keys = {caption: caption_key(caption) for caption in set(captions)}
        return keys_array([keys[caption] for caption in captions])

    def row_keys(self, recipe: Document) -> np.ndarray:
        """What the samples' rows of a recipe (by its document) are found by, uint8 [samples, 32]."""
        return self.caption_keys if is_of_captions(recipe) else self.keys

    def texts(self, name: str, positions: np.ndarray | slice = slice(None)) -> list[str | None]:
        """The `uri`, `caption`, `group` or `split` of the samples at `positions`."""
        if name in _TEXTS:
            return unpack_strings(name, self._columns, len(self), positions)
        codes, values = self.categories(name)
        return [values[code] if code >= 0 else None for code in codes[positions].tolist()]

    def categories(self, name: str) -> tuple[np.ndarray, list[str]]:
        """For `group`, `split` or `label`: `(int32 [samples] codes, −1 for None, sorted distinct values)`."""
        return unpack_categories(name, self._columns, len(self))

    def integer_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """`(int64 [samples], bool [samples])`: labels that are integers, and where there is one."""
        if "label.int" not in self._columns:
            return np.zeros(len(self), np.int64), np.zeros(len(self), bool)
        return self._columns["label.int"], self._columns["label.is_int"].astype(bool)

    def labels(self, positions: np.ndarray) -> np.ndarray | None:
        """int64 [m], or None when none of the samples at `positions` has a label.

        Integers keep their values; strings are numbered as in `categories`. Raises SelectionError when only some
        samples have one, or when integers and strings are mixed.
        """
        numbers, is_number = (column[positions] for column in self.integer_labels())
        codes, names = self.categories("label")
        codes = codes[positions]
        missing = int((~is_number & (codes < 0)).sum())
        if missing == len(positions):
            return None
        if missing:
            raise SelectionError(
                f"{missing} of {len(positions)} samples have no label; name a split, or label them all"
            )
        if is_number.any() and not is_number.all():
            raise SelectionError(f"labels are both numbers and texts (such as {names[codes.max()]!r}); use one kind")
        labels: np.ndarray = np.where(is_number, numbers, codes).astype(np.int64)
        return labels

    def samples(self, positions: np.ndarray | slice = slice(None)) -> tuple[Sample, ...]:
        """The samples at `positions`."""
        keys = keys_hex(self.keys[positions])
        texts = {name: self.texts(name, positions) for name in (*_TEXTS, *_CATEGORIES)}
        numbers, is_number = (column[positions].tolist() for column in self.integer_labels())
        codes, names = self.categories("label")
        labels = [
            number if is_int else (names[code] if code >= 0 else None)
            for number, is_int, code in zip(numbers, is_number, codes[positions].tolist(), strict=True)
        ]
        return tuple(
            Sample(key=key, source=source, uri=uri or "", caption=caption, group=group, split=split, label=label)
            for key, source, uri, caption, group, split, label in zip(
                keys, self._columns["source"][positions].tolist(), *texts.values(), labels, strict=True
            )
        )

    @cached_property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """What the sources held that could not be read."""
        if "unreadable.source" not in self._columns:
            return ()
        sources = self._columns["unreadable.source"].tolist()
        uris = unpack_strings("unreadable.uri", self._columns, len(sources))
        reasons = unpack_strings("unreadable.reason", self._columns, len(sources))
        flags = self._columns["unreadable.permanent"].tolist()
        return tuple(
            Unreadable(uri=uri or "", source=source, reason=reason or "", permanent=bool(flag))
            for uri, source, reason, flag in zip(uris, sources, reasons, flags, strict=True)
        )

    def dataset(self) -> Dataset:
        """All of it as objects."""
        return Dataset(samples=self.samples(), unreadable=self.unreadable)


def publish_dataset(storage: Storage, dataset: Dataset) -> str:
    """Write a dataset unless it is there, whole; its digest."""
    parts = dataset.parts()
    digest = bytes_digest(b"".join(parts))
    name = dataset_name(digest)
    if not storage.exists(name) or bytes_digest(storage.read(name)) != digest:
        storage.put(name, parts)
    return digest


def read_table(storage: Storage, digest: str) -> SampleTable:
    """The dataset of a digest, by columns. Raises DamageError, FileNotFoundError."""
    name = dataset_name(digest)
    data = storage.read(name)
    if bytes_digest(data) != digest:
        raise DamageError(f"{name} is damaged: its bytes do not match its name")
    infos, _ = parse_header(data, len(data), name)
    return SampleTable(
        {
            key: np.frombuffer(
                data, _NUMPY[info.dtype], info.size_bytes // _NUMPY[info.dtype].itemsize, info.offset
            ).reshape(info.shape)
            for key, info in infos.items()
        },
        digest,
    )


def read_dataset(storage: Storage, digest: str) -> Dataset:
    """The dataset of a digest, as objects. Raises DamageError, FileNotFoundError."""
    return read_table(storage, digest).dataset()


def dataset_digests(storage: Storage) -> Iterator[str]:
    """The digests of all dataset files."""
    return (stem(name) for name in storage.list(DATASETS))


def _pack_labels(labels: Sequence[int | str | None]) -> dict[str, np.ndarray]:
    columns = pack_categories("label", [label if isinstance(label, str) else None for label in labels])
    if any(isinstance(label, int) for label in labels):
        columns["label.int"] = np.array([label if isinstance(label, int) else 0 for label in labels], np.int64)
        columns["label.is_int"] = np.array([isinstance(label, int) for label in labels], np.uint8)
    return columns


def _pack_unreadable(unreadable: Sequence[Unreadable]) -> dict[str, np.ndarray]:
    if not unreadable:
        return {}
    return {
        **pack_strings("unreadable.uri", [item.uri for item in unreadable]),
        **pack_strings("unreadable.reason", [item.reason for item in unreadable]),
        "unreadable.source": np.array([item.source for item in unreadable], np.int32),
        "unreadable.permanent": np.array([item.permanent for item in unreadable], np.uint8),
    }
