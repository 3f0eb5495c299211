"""Reading rows out of shards: all of them in order, or any of them at random."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from ..errors import DamageError
from ..store.index import IndexedShard
from ..store.safetensors_file import array_bytes
from ..store.shard import TORCH_DTYPES, ShardHeader, read_shard_header, read_shard_keys, tensor_bytes
from ..store.storage import LocalStorage

_CHUNK_BYTES = 8 << 20
_MIN_RUN_BYTES = 1 << 16
_NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse",
    "9p",
    "glusterfs",
    "afs",
)


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive rows of a shard that are consecutive in the destination too."""

    shard: int
    row: int
    position: int
    count: int


class Rows:
    """The rows of one feature in a given order, spread over shards."""

    def __init__(
        self,
        storage: LocalStorage,
        feature: str,
        shards: Sequence[IndexedShard],
        shard: np.ndarray,
        row: np.ndarray,
    ) -> None:
        """Row i of the order is row `row[i]` of `shards[shard[i]]`; both int32 [n]."""
        self._storage = storage
        self._feature = feature
        self._shard, self._row = shard, row
        self._shards = shards
        self._names = [item.name for item in shards]
        self._headers: dict[int, ShardHeader] = {
            number: read_shard_header(storage, self._names[number]) for number in np.unique(shard).tolist()
        }
        self._maps: dict[int, np.ndarray] = {}
        infos = [header.tensors[feature] for header in self._headers.values()]
        self.shapes = sorted({info.shape[1:] for info in infos})
        """The shapes that rows have; one, unless the encoder was fed inputs of several shapes."""
        self.dtype = TORCH_DTYPES[infos[0].dtype] if infos else torch.float32
        self._mappable = not on_network(storage.root)

    def __len__(self) -> int:
        return len(self._row)

    def subset(self, positions: np.ndarray) -> Rows:
        """The rows at `positions`, int64 [m], in that order."""
        return Rows(self._storage, self._feature, self._shards, self._shard[positions], self._row[positions])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, where all have one shape."""
        return math.prod(self.shapes[0]) * self.dtype.itemsize

    def check_keys(self, keys: np.ndarray) -> None:
        """Raise DamageError unless the shards hold these keys (uint8 [n, 32]) where the index says."""
        for number, header in self._headers.items():
            positions = np.flatnonzero(self._shard == number)
            held = read_shard_keys(self._storage, self._names[number], header)
            rows = self._row[positions]
            if rows.max(initial=0) >= len(held) or not np.array_equal(held[rows], keys[positions]):
                raise DamageError(
                    f"{self._names[number]} does not hold the samples that the index says; delete the cache's folder "
                    "`index` (it is made anew) and run `fovcache verify`"
                )

    def read_all(self, out: torch.Tensor, start: int = 0) -> None:
        """Fill `out` (CPU, [m, …]) with rows start … start + m, with several reads at a time."""
        flat = np.frombuffer(tensor_bytes(out), np.uint8).reshape(len(out), self.row_bytes)
        jobs = list(self._jobs(start, start + len(out)))
        threads = min(4, os.cpu_count() or 1, max(1, len(jobs)))
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda run: self._read_run(run, flat, start), jobs):
                pass

    def _jobs(self, start: int, stop: int) -> Iterator[list[_Run]]:
        """Runs to read, cut into pieces of about _CHUNK_BYTES; small scattered ones of a shard together."""
        shard, row = self._shard[start:stop], self._row[start:stop]
        if not len(row):
            return
        breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(row) != 1)) + 1
        begins = np.concatenate([[0], breaks])
        counts = np.diff(np.concatenate([begins, [len(row)]]))
        rows_per_chunk = max(1, _CHUNK_BYTES // self.row_bytes)
        scattered: dict[int, list[_Run]] = {}
        for begin, count in zip(begins.tolist(), counts.tolist(), strict=True):
            number, first = int(shard[begin]), int(row[begin])
            if count * self.row_bytes < _MIN_RUN_BYTES:
                scattered.setdefault(number, []).append(_Run(number, first, start + begin, count))
                continue
            for offset in range(0, count, rows_per_chunk):
                size = min(rows_per_chunk, count - offset)
                yield [_Run(number, first + offset, start + begin + offset, size)]
        yield from scattered.values()

    def _read_run(self, runs: list[_Run], flat: np.ndarray, start: int) -> None:
        if len(runs) == 1:
            run = runs[0]
            at = run.position - start
            self._read_rows(run.shard, run.row, flat[at : at + run.count])
            return
        positions = np.concatenate([np.arange(run.position, run.position + run.count) for run in runs])
        self._gather_shard(runs[0].shard, self._row[positions], flat, positions - start)

    def _read_rows(self, number: int, first: int, out: np.ndarray) -> None:
        offset = self._headers[number].tensors[self._feature].offset + first * self.row_bytes
        try:
            self._storage.read_into(self._names[number], offset, array_bytes(out))
        except (EOFError, FileNotFoundError) as error:
            raise DamageError(f"{self._names[number]} is damaged: {error}; run `fovcache repair`") from error

    def gather(self, positions: np.ndarray, out: torch.Tensor) -> None:
        """Fill `out` (CPU, [m, …]) with the rows at `positions`, int64 [m], any order."""
        flat = np.frombuffer(tensor_bytes(out), np.uint8).reshape(len(out), self.row_bytes)
        shard = self._shard[positions]
        for number in np.unique(shard).tolist():
            where = np.flatnonzero(shard == number)
            self._gather_shard(number, self._row[positions[where]], flat, where)

    def _gather_shard(self, number: int, rows: np.ndarray, flat: np.ndarray, where: np.ndarray) -> None:
        if not self._mappable:
            for row, at in zip(rows.tolist(), where.tolist(), strict=True):
                self._read_rows(number, row, flat[at : at + 1])
        elif len(where) == len(flat):
            np.take(self._map(number), rows, axis=0, out=flat, mode="clip")  # rows are in range; clip skips a copy
        else:
            flat[where] = self._map(number)[rows]

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            info = self._headers[number].tensors[self._feature]
            path = self._storage.path(self._names[number])
            self._maps[number] = np.memmap(path, np.uint8, "r", info.offset, (info.shape[0], self.row_bytes))
        return self._maps[number]


def on_network(path: os.PathLike[str]) -> bool:
    """Whether a path lies on a network file system, where page faults cost a round trip each."""
    real = os.path.realpath(path)
    mounts = [part for part in psutil.disk_partitions(all=True) if _is_below(real, part.mountpoint)]
    if not mounts:
        return False
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype).startswith(_NETWORK_FILE_SYSTEMS)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
