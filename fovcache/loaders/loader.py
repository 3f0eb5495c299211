"""Batches of cached features, in an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import SelectionError, UsageError
from ..keys.digest import bytes_digest
from .feature_set import FeatureSet
from .order import epoch_order
from .prefetch import prefetch_to
from .residency import choose_residency
from .rows import take_rows
from .streams import follow_stream, used_by

logger = logging.getLogger(__name__)

_GATHER_BYTES = 4 << 20
"""Small batches are gathered several at a time, up to about this size together, and then cut apart."""
_CACHED_BYTES = 1 << 20
"""The same where the CPU gathers for itself: no more than its cache holds."""

Batch: TypeAlias = Any
"""`(x, y)` for one feature set, `{name: x, …, "y": y}` for a joined one."""


class Loader:
    """Iterates over batches; each `iter()` is the next epoch.

    Rows that are on the device already are gathered by index there; rows in host memory or in shards are
    gathered by a background thread into reused pinned buffers and copied on a stream of their own. Batches are
    never written to again, but small ones share their memory with their neighbours: who keeps single ones for
    long should clone them.
    """

    def __init__(
        self,
        sets: Mapping[str, FeatureSet],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        residency: str = "auto",
        drop_last: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        as_tuple: bool = False,
    ) -> None:
        """`sets` are aligned feature sets of equal length; the first one's labels are served.

        Raises UsageError for a batch size below 1, an unknown residency, or worker processes or pinning that would
        only cost time here.
        """
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is out of range; expected at least 1")
        if num_workers or pin_memory:
            raise UsageError(
                f"num_workers={num_workers}, pin_memory={pin_memory}: this loader reads no files per batch, so worker "
                "processes and pinning per batch only cost time (CUDA tensors cannot be shared with workers at all); "
                "leave them at 0 and False"
            )
        self._sets = dict(sets)
        self._first = next(iter(sets.values()))
        self._batch_size, self._drop_last = batch_size, drop_last
        self._shuffle, self._seed = shuffle, seed
        self._as_tuple = as_tuple
        self._device = torch.empty(0, device=device).device  # with its index: another may be the current one later
        self._labels = self._first.labels
        for feature_set in sets.values():
            _ = feature_set.row_shape  # rows of several shapes make no batches: say so now
        self.residency = choose_residency(residency, sum(item.nbytes for item in sets.values()), self._device)
        """Where the rows are kept, and why."""
        logger.info("rows are kept on %s: %s", self.residency.kind, self.residency.reason)
        self._resident: dict[str, torch.Tensor] | None = None
        row_bytes = max(1, sum(item.rows.row_bytes for item in sets.values()))
        in_cache = self.residency.kind == "device" and self._device.type == "cpu"
        gather_bytes = _CACHED_BYTES if in_cache else _GATHER_BYTES
        self._rows_per_gather = batch_size * max(1, gather_bytes // (batch_size * row_bytes))
        self._epoch = self._next_epoch = 0
        self._batch = self._resume_batch = 0

    @property
    def num_rows(self) -> int:
        """Rows in an epoch."""
        return len(self._first)

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(self.num_rows, self._batch_size)
        return whole + int(rest > 0 and not self._drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter()` the epoch of this number."""
        self._epoch = self._next_epoch = epoch
        self._batch = self._resume_batch = 0

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._next_epoch, self._resume_batch
        self._epoch, self._batch = epoch, start
        self._next_epoch, self._resume_batch = epoch + 1, 0
        return self._batches(epoch, start)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands: the epoch, the batches it has given out, and what they were cut from."""
        at_rest = self._next_epoch != self._epoch + 1
        return {
            "epoch": self._next_epoch if at_rest else self._epoch,
            "batch": self._resume_batch if at_rest else self._batch,
            **self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next `iter()` go on where `state` was taken.

        Raises SelectionError naming what differs when the state is of another order of batches.
        """
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise SelectionError(
                    f"the loader's state was saved with {name} {state.get(name)!r}, and it is {own!r} now"
                )
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if batch >= len(self):
            epoch, batch = epoch + 1, 0
        self._epoch = self._next_epoch = epoch
        self._batch = self._resume_batch = batch

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "batch_size": self._batch_size,
            "drop_last": self._drop_last,
            "rows": self._rows_digest,
        }

    @cached_property
    def _rows_digest(self) -> str:
        return bytes_digest(self._first.key_array.tobytes())

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = epoch_order(self.num_rows, seed=self._seed, epoch=epoch) if self._shuffle else np.arange(self.num_rows)
        order = order[start * self._batch_size : len(self) * self._batch_size]
        if not len(order):
            return
        names = [*self._sets, "y"]
        for columns in self._from_resident(order) if self.residency.kind == "device" else self._from_host(order):
            # `unsafe_split` gives tensors that autograd takes for unrelated ones, as batches must be; it is only
            # unsafe for whoever goes on to use the uncut one.
            parts = [
                torch.unsafe_split(columns[name], self._batch_size) if name in columns else repeat(None)
                for name in names
            ]
            cut = zip(*parts, strict=False)
            for batch in follow_stream(cut, self._device) if self._device.type == "cuda" else cut:
                if epoch == self._epoch:  # else a newer `iter()` is what the state tells of
                    self._batch += 1
                yield batch if self._as_tuple else dict(zip(names, batch, strict=True))

    def _from_resident(self, order: np.ndarray) -> Iterator[dict[str, torch.Tensor]]:
        if self._resident is None:
            self._resident = {name: item.tensors(self._device)[0] for name, item in self._sets.items()}
            if self._labels is not None:
                self._resident["y"] = self._labels.to(self._device)
        names, tables = list(self._resident), list(self._resident.values())
        index, on_cuda = torch.from_numpy(order), self._device.type == "cuda"
        if on_cuda:
            used_by(torch.cuda.current_stream(self._device), tables)  # an earlier epoch's stream may have loaded them
            index = index.pin_memory()  # so that the copy does not wait for all that the consumer has queued
        parts = index.to(self._device, non_blocking=on_cuda).split(self._rows_per_gather)
        items = ((part, *tables) for part in parts)
        for part, *rows in follow_stream(items, self._device) if on_cuda else items:
            yield {name: table.index_select(0, part) for name, table in zip(names, rows, strict=True)}

    def _from_host(self, order: np.ndarray) -> Iterator[dict[str, torch.Tensor]]:
        if self.residency.kind == "host" and self._resident is None:
            self._resident = {name: item.tensors("cpu")[0] for name, item in self._sets.items()}
        tables = dict(self._resident or {})
        shapes = {name: (item.row_shape, item.dtype) for name, item in self._sets.items()}
        if self._labels is not None:
            tables["y"] = self._labels
            shapes["y"] = ((), torch.int64)

        def gather(name: str, positions: np.ndarray, out: torch.Tensor | None) -> torch.Tensor:
            if name in tables:
                return take_rows(tables[name], positions, out)
            return self._sets[name].rows.gather(positions, out)

        indexes = (order[at : at + self._rows_per_gather] for at in range(0, len(order), self._rows_per_gather))
        most_rows = min(self._rows_per_gather, len(order))
        yield from prefetch_to(self._device, shapes, most_rows, indexes, gather)


def dataloader_kwargs(tensor_device: str | torch.device, target_device: str | torch.device) -> dict[str, Any]:
    """Keyword arguments for `torch.utils.data.DataLoader` over tensors in memory.

    Tensors on an accelerator need `num_workers=0` and `pin_memory=False`; tensors in host memory are pinned
    only on their way to CUDA, and never need workers. Raises UsageError when rows would have to move between devices.
    """
    tensor, target = torch.device(tensor_device), torch.device(target_device)
    elsewhere = tensor.type != target.type or len({tensor.index, target.index} - {None}) > 1
    if tensor.type != "cpu" and elsewhere:
        raise UsageError(f"tensors on {tensor} cannot be loaded for {target}: move them there once, or to the CPU")
    return {"num_workers": 0, "pin_memory": tensor.type == "cpu" and target.type == "cuda"}
