"""Reading rows out of shards: all of them in order, or any of them at random."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import psutil
import torch

from ..errors import DamageError
from ..store.index import IndexedShard
from ..store.safetensors_file import array_bytes
from ..store.shard import TORCH_DTYPES, ShardHeader, read_shard_header, read_shard_keys, tensor_bytes
from ..store.storage import LocalStorage
from .window import Window

_JOB_BYTES = 8 << 20
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
_ADVICE = "delete the cache's folder `index` (it is made anew) and run `fovcache verify`"


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
        """Row i of the order is row `row[i]` of `shards[shard[i]]`; both int32 [n].

        Raises DamageError when a shard has fewer rows than that.
        """
        self.storage = storage
        """The cache's files."""
        self._feature = feature
        self._shards = shards
        self._shard, self._row = shard, row
        used = np.flatnonzero(np.bincount(shard))
        self._names = [shards[number].name for number in used.tolist()]
        file_of = np.zeros(len(shards), np.int32)
        file_of[used] = np.arange(len(used))
        self._file = file_of[shard]
        self._headers: list[ShardHeader] = [read_shard_header(storage, name) for name in self._names]
        self._infos = [header.tensors[feature] for header in self._headers]
        counts = np.array([info.shape[0] for info in self._infos], np.int64)
        if (row >= counts[self._file]).any():
            raise DamageError(f"the index names rows that shards of {shards[0].recipe} do not have; {_ADVICE}")
        self.shapes = sorted({info.shape[1:] for info in self._infos})
        """The shapes that rows have; one, unless the encoder was fed inputs of several shapes."""
        self.dtype = TORCH_DTYPES[self._infos[0].dtype] if self._infos else torch.float32
        self._mappable = not on_network(storage.root)

    def __len__(self) -> int:
        return len(self._row)

    def subset(self, positions: np.ndarray) -> Rows:
        """The rows at `positions`, int64 [m], in that order."""
        return Rows(self.storage, self._feature, self._shards, self._shard[positions], self._row[positions])

    def shards_at(self, positions: Sequence[int]) -> list[IndexedShard]:
        """The shards that the rows at `positions` lie in, in the order of their first."""
        return [self._shards[number] for number in dict.fromkeys(self._shard[list(positions)].tolist())]

    @property
    def shape_counts(self) -> dict[tuple[int, ...], int]:
        """How many rows have each shape, in the order of `shapes`."""
        num_of = np.bincount(self._file, minlength=len(self._infos)).tolist()
        counts = dict.fromkeys(self.shapes, 0)
        for info, num in zip(self._infos, num_of, strict=True):
            counts[info.shape[1:]] += num
        return counts

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, where all have one shape."""
        return math.prod(self.shapes[0]) * self.dtype.itemsize

    def check_keys(self, keys: np.ndarray) -> None:
        """Raise DamageError unless the shards hold these keys (uint8 [n, 32]) where the index says."""
        by_file = np.argsort(self._file, kind="stable")
        bounds = np.searchsorted(self._file[by_file], np.arange(len(self._names) + 1))
        for name, header, (begin, end) in zip(self._names, self._headers, pairwise(bounds.tolist()), strict=True):
            positions = by_file[begin:end]
            held = read_shard_keys(self.storage, name, header)
            if not np.array_equal(held[self._row[positions]], keys[positions]):
                raise DamageError(f"{name} does not hold the samples that the index says; {_ADVICE}")

    def read_all(self, out: torch.Tensor, start: int = 0) -> None:
        """Fill `out` (CPU, [m, …]) with rows start … start + m, with several reads at a time."""
        flat = byte_rows(out)
        file, row = self._file[start : start + len(flat)], self._row[start : start + len(flat)]
        begins, counts = _runs(file, row)
        is_long = counts * self.row_bytes >= _MIN_RUN_BYTES
        rows_per_job = max(1, _JOB_BYTES // max(1, self.row_bytes))
        jobs: list[Callable[[], None]] = [
            partial(self._read_run, int(file[at]), int(row[at]), flat[at : min(at + rows_per_job, begin + count)])
            for begin, count in zip(begins[is_long].tolist(), counts[is_long].tolist(), strict=True)
            for at in range(begin, begin + count, rows_per_job)
        ]
        scattered = np.flatnonzero(np.repeat(~is_long, counts))
        for at in range(0, len(scattered), rows_per_job):
            where = scattered[at : at + rows_per_job]
            jobs.append(partial(self._scatter, file[where], row[where], flat, where))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1, max(1, len(jobs)))) as pool:
            list(pool.map(lambda job: job(), jobs))

    def by_shape(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """For each shape that rows have, the positions that have it, int64 [m], and these rows, CPU [m, *shape]."""
        of_file = np.array([self.shapes.index(info.shape[1:]) for info in self._infos], np.int64)
        for number, shape in enumerate(self.shapes):
            positions = np.flatnonzero(of_file[self._file] == number)
            part = empty_host((len(positions), *shape), self.dtype)
            self.subset(positions).read_all(part)
            yield positions, part

    def gather(self, positions: np.ndarray, out: torch.Tensor | None = None) -> torch.Tensor:
        """The rows at `positions`, int64 [m], in any order: a CPU tensor [m, …], `out` where one is given."""
        data = self._take(self._file[positions], self._row[positions])
        rows = torch.from_numpy(data.reshape(-1)).view(self.dtype).view(len(positions), *self.shapes[0])
        return rows if out is None else out.copy_(rows)

    def _scatter(self, file: np.ndarray, row: np.ndarray, flat: np.ndarray, where: np.ndarray) -> None:
        flat[where] = self._take(file, row)

    def _take(self, file: np.ndarray, row: np.ndarray) -> np.ndarray:
        """uint8 [n, row bytes]."""
        if self._mappable and self.row_bytes and len(row):
            return self._window.take(file, row)
        data = np.empty((len(row), self.row_bytes), np.uint8)
        for at, (number, first) in enumerate(zip(file.tolist(), row.tolist(), strict=True)):
            self._read_run(number, first, data[at : at + 1])
        return data

    def _read_run(self, file: int, first: int, out: np.ndarray) -> None:
        """Fill `out` with consecutive rows of a shard, from row `first` on."""
        offset = self._infos[file].offset + first * self.row_bytes
        try:
            self.storage.read_into(self._names[file], offset, array_bytes(out))
        except (EOFError, FileNotFoundError) as error:
            raise DamageError(f"{self._names[file]} is damaged: {error}; run `fovcache repair`") from error

    @cached_property
    def _window(self) -> Window:
        files = [
            (self.storage.path(name), info.offset, info.shape[0])
            for name, info in zip(self._names, self._infos, strict=True)
        ]
        try:
            return Window(files, self.row_bytes)
        except (ValueError, FileNotFoundError) as error:
            raise DamageError(f"a shard is damaged: {error}; run `fovcache repair`") from error


def _runs(file: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of consecutive rows of one file begin, and how long each is."""
    breaks = np.flatnonzero((np.diff(file) != 0) | (np.diff(row) != 1)) + 1
    begins = np.concatenate([np.zeros(min(1, len(row)), np.int64), breaks])
    return begins, np.diff(begins, append=len(row))


def byte_rows(tensor: torch.Tensor) -> np.ndarray:
    """A contiguous CPU tensor [n, …] as uint8 [n, bytes of a row]; shared, not copied."""
    data = np.frombuffer(tensor_bytes(tensor), np.uint8)
    return data.reshape(len(tensor), tensor.nbytes // max(1, len(tensor)))


def take_rows(table: torch.Tensor, positions: np.ndarray, out: torch.Tensor | None) -> torch.Tensor:
    """`table[positions]` on the CPU, into `out` where one is given; by numpy, since torch would start threads."""
    taken = empty_host((len(positions), *table.shape[1:]), table.dtype) if out is None else out
    # The positions are in range; mode="clip" keeps numpy from going through a buffer of its own.
    np.take(byte_rows(table), positions, axis=0, out=byte_rows(taken), mode="clip")
    return taken


def empty_host(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised CPU tensor in numpy's memory: that is on huge pages, which are faulted in 3 times faster."""
    return torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def on_network(path: os.PathLike[str]) -> bool:
    """Whether a path lies on a network file system, where page faults cost a round trip each."""
    real = os.path.realpath(path)
    mounts = [part for part in psutil.disk_partitions(all=True) if _is_below(real, part.mountpoint)]
    if not mounts:
        return False
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype).startswith(_NETWORK_FILE_SYSTEMS)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
