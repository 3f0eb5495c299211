"""The index: sample key → block and row, for one recipe.

Derived from the manifests and the keys in their shards, kept in a file so that a large cache opens at
once, and rebuilt whenever it does not agree with the manifests that are there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import DamageError, EnvironmentFailure
from ..keys.digest import DIGEST_BYTES, bytes_digest
from ..keys.recipe import SCHEMA
from .layout import INDEX, shard_name
from .manifest import Manifest, manifest_names, read_manifest
from .safetensors_file import array_bytes, file_parts, parse_header
from .shard import Shard, read_shard_header, read_shard_keys
from .storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """A shard that the index points into."""

    recipe: str
    """The recipe's digest."""
    shard: Shard
    """Digest, size and number of rows."""
    features: tuple[str, ...]
    """The features in it."""

    @property
    def name(self) -> str:
        """The shard's file."""
        return shard_name(self.recipe, self.shard.digest)


class RecipeIndex:
    """Where each row of a recipe lies, and what failed."""

    def __init__(self, recipe: str, manifests: Sequence[Manifest], lost: Sequence[str] = ()) -> None:
        self.recipe = recipe
        self.manifests = tuple(manifests)
        self.lost = tuple(lost)
        self.shards = tuple(
            IndexedShard(recipe, shard, manifest.features) for manifest in manifests for shard in manifest.shards
        )
        self._set(np.zeros((0, DIGEST_BYTES), np.uint8), np.zeros(0, np.int32), np.zeros(0, np.int32))

    def _set(self, keys: np.ndarray, shard: np.ndarray, row: np.ndarray) -> None:
        """Rows in the order of their keys' first 8 bytes."""
        self._keys, self._shard, self._row = keys, shard, row
        self._found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> np.ndarray:
        """The key of every row, uint8 [rows, 32], in the order of their first 8 bytes."""
        return self._keys

    def rebuild(self, storage: Storage) -> None:
        """Read every shard's keys. Raises DamageError when a shard's header cannot be read."""
        keys = [read_shard_keys(storage, shard.name) for shard in self.shards]
        counts = [len(part) for part in keys]
        all_keys = np.concatenate(keys) if keys else np.zeros((0, DIGEST_BYTES), np.uint8)
        shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        row = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [np.zeros(0, np.int32)])
        order = np.argsort(_prefixes(all_keys), kind="stable")
        self._set(all_keys[order], shard[order], row[order])

    def save(self, storage: Storage) -> None:
        """Write the index's file; when that fails it is logged, and costs time at the next start."""
        columns = {"key": ("U8", self._keys), "shard": ("I32", self._shard), "row": ("I32", self._row)}
        tensors = {name: (dtype, value.shape, array_bytes(value)) for name, (dtype, value) in columns.items()}
        checksum = bytes_digest(b"".join(tensors[name][2] for name in sorted(tensors)))
        metadata = {"schema": str(SCHEMA), "blake3": checksum, "shards": self._shard_list()}
        try:
            storage.put(f"{INDEX}/{self.recipe}.safetensors", file_parts(tensors, metadata))
        except EnvironmentFailure as error:
            logger.info("the index was not saved: %s", error)

    def load(self, storage: Storage) -> bool:
        """Take the rows from the index's file; False when it is absent, damaged or of other shards."""
        name = f"{INDEX}/{self.recipe}.safetensors"
        try:
            data = storage.read(name)
            infos, metadata = parse_header(data, len(data), name)
            key, row, shard = (infos[column] for column in ("key", "row", "shard"))
        except (DamageError, OSError, KeyError):
            return False
        if metadata.get("shards") != self._shard_list() or metadata.get("schema") != str(SCHEMA):
            return False
        if bytes_digest(memoryview(data)[min(info.offset for info in infos.values()) :]) != metadata.get("blake3"):
            return False
        self._set(
            np.frombuffer(data, np.uint8, key.size_bytes, key.offset).reshape(key.shape),
            np.frombuffer(data, np.int32, shard.shape[0], shard.offset),
            np.frombuffer(data, np.int32, row.shape[0], row.offset),
        )
        return True

    def _shard_list(self) -> str:
        return bytes_digest("".join(shard.shard.digest for shard in self.shards).encode())

    @cached_property
    def features(self) -> frozenset[str]:
        """The digests of all features with at least one row."""
        return frozenset(feature for shard in self.shards for feature in shard.features)

    def row_shape(self, storage: Storage, feature: str) -> tuple[int, ...] | None:
        """The shape of a feature's rows; None when shards differ in it."""
        headers = (read_shard_header(storage, shard.name) for shard in self.shards if feature in shard.features)
        shapes = {header.tensors[feature].shape[1:] for header in headers}
        return shapes.pop() if len(shapes) == 1 else None

    def lookup(self, feature: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For uint8 keys [n, 32]: `(shard, row)`, int32 [n] each; shard is −1 where the feature has no row."""
        prefixes, positions, own_keys = self._of_feature(feature)
        shard = np.full(len(keys), -1, np.int32)
        row = np.zeros(len(keys), np.int32)
        if not len(prefixes) or not len(keys):
            return shard, row
        wanted = _prefixes(keys)
        at = np.searchsorted(prefixes, wanted)
        pending = np.flatnonzero(at < len(prefixes))
        while len(pending):  # a second round only where two keys share their first 8 bytes
            same_prefix = prefixes[at[pending]] == wanted[pending]
            pending = pending[same_prefix]
            hit = (own_keys[at[pending]] == keys[pending]).all(axis=1)
            found = pending[hit]
            shard[found] = self._shard[positions[at[found]]]
            row[found] = self._row[positions[at[found]]]
            pending = pending[~hit]
            at[pending] += 1
            pending = pending[at[pending] < len(prefixes)]
        return shard, row

    def _of_feature(self, feature: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorted key prefixes, their positions in the index, and the keys, of the rows that have a feature."""
        if feature not in self._found:
            has = np.array([feature in shard.features for shard in self.shards], bool)
            if has.all():
                positions = np.arange(len(self._keys))
                keys = self._keys
            else:
                positions = np.flatnonzero(has[self._shard]) if len(has) else np.zeros(0, np.int64)
                keys = self._keys[positions]
            self._found[feature] = (_prefixes(keys), positions, keys)
        return self._found[feature]


def _prefixes(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.uint64)


def open_index(storage: Storage, recipe: str, *, save: bool = False) -> RecipeIndex:
    """The index of a recipe as its manifests stand now.

    When the file on disk does not list exactly their shards, the index is made anew from the keys in the
    shards, and written when `save` is set. A manifest that is damaged, or whose shard is missing or
    of another size, is left out, logged, and named in `RecipeIndex.lost`.
    """
    manifests: list[Manifest] = []
    lost: list[str] = []
    for name in manifest_names(storage, recipe):
        try:
            manifest = read_manifest(storage, name)
            for shard in manifest.shards:
                _check_size(storage, shard_name(recipe, shard.digest), shard)
            manifests.append(manifest)
        except (DamageError, FileNotFoundError) as error:
            logger.warning("%s is left out: %s", name, error)
            lost.append(name)
    index = RecipeIndex(recipe, manifests, lost)
    if not index.load(storage):
        index.rebuild(storage)
        if save:
            index.save(storage)
    return index


def _check_size(storage: Storage, name: str, shard: Shard) -> None:
    try:
        size = storage.size(name)
    except FileNotFoundError:
        raise DamageError(f"its shard {name} is missing") from None
    if size != shard.size_bytes:
        raise DamageError(f"its shard {name} has {size} bytes, expected {shard.size_bytes}")
