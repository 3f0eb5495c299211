"""Batches of cached features, in an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import SelectionError, UsageError
from ..keys.digest import bytes_digest
from .feature_set import FeatureSet
from .order import epoch_order
from .row_server import RowServer

Batch: TypeAlias = Any
"""`(x, y)` for one feature set, `{name: x, …, "y": y}` for a joined one."""


class Loader:
    """Iterates over batches; each `iter()` is the next epoch.

    Batches are never written to again, but small ones share their memory with their neighbours (see RowServer): who
    keeps single ones for long should clone them.
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
        self._first = next(iter(sets.values()))
        self._batch_size, self._drop_last = batch_size, drop_last
        self._shuffle, self._seed = shuffle, seed
        self._as_tuple = as_tuple
        labels = self._first.labels
        tables = {} if labels is None else {"y": labels}
        self._server = RowServer(sets, tables, residency=residency, device=torch.device(device))
        self.residency = self._server.residency
        """Where the rows are kept, and why."""
        self._names = (*sets, "y")
        self._has_no_labels = labels is None
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
        for batch in self._server.batches([order], self._batch_size, len(order)):
            if epoch == self._epoch:  # else a newer `iter()` is what the state tells of
                self._batch += 1
            columns = (*batch, None) if self._has_no_labels else batch
            yield columns if self._as_tuple else dict(zip(self._names, columns, strict=True))


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
