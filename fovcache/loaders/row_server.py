"""Batches of rows by position, from wherever the rows are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch

from .feature_set import FeatureSet
from .prefetch import Columns, prefetch_to
from .residency import choose_residency
from .rows import take_rows
from .streams import Tensors, follow_stream, used_by

logger = logging.getLogger(__name__)

_GATHER_BYTES = 4 << 20
"""Small batches are gathered several at a time, up to about this size together, and then cut apart."""
_CACHED_BYTES = 1 << 20
"""The same where the CPU gathers for itself: no more than its cache holds."""


class RowServer:
    """Gathers rows of several columns of equal length.

    Rows that are on the device already are gathered by index there; rows in host memory or in shards are
    gathered by a background thread into reused pinned buffers and copied on a stream of their own. Batches are
    never written to again, but small ones share their memory with their neighbours: who keeps single ones for
    long should clone them.
    """

    def __init__(
        self,
        sets: Mapping[str, FeatureSet],
        tables: Mapping[str, torch.Tensor],
        *,
        residency: str,
        device: torch.device,
        num_alike: int = 1,
    ) -> None:
        """`sets` are columns in the cache, `tables` small ones in host memory, [rows, …]; a batch has them in this
        order. `num_alike` processes of this machine keep the same rows.

        Raises UsageError for an unknown residency, SelectionError for rows of several shapes.
        """
        self.names = (*sets, *tables)
        """The columns of a batch."""
        self._sets, self._tables = dict(sets), dict(tables)
        self._device = torch.empty(0, device=device).device  # with its index: another may be the current one later
        for feature_set in sets.values():
            _ = feature_set.row_shape  # rows of several shapes make no batches: say so now
        size_bytes = sum(item.nbytes for item in sets.values())
        in_host = num_alike if self._device.type != "cuda" else 1
        self.residency = choose_residency(residency, in_host * size_bytes, self._device)
        """Where the rows are kept, and why."""
        logger.info("rows are kept on %s: %s", self.residency.kind, self.residency.reason)
        self._resident: Columns | None = None
        self._row_bytes = max(1, sum(item.rows.row_bytes for item in sets.values()))

    def batches(self, blocks: Iterable[np.ndarray], batch_size: int, most_rows: int) -> Iterator[Tensors]:
        """For positions, int64 [m], block after block: batches of `batch_size`, but for the last of each block.

        No block is longer than `most_rows`. Blocks are asked for in the caller's thread, some batches ahead.
        """
        on_cuda = self._device.type == "cuda"
        in_cache = self.residency.kind == "device" and self._device.type == "cpu"
        gather_bytes = _CACHED_BYTES if in_cache else _GATHER_BYTES
        num_rows = batch_size * max(1, gather_bytes // (batch_size * self._row_bytes))
        gathered = (
            (columns for block in blocks for columns in self._from_resident(block, num_rows))
            if self.residency.kind == "device"
            else self._from_host(blocks, num_rows, min(num_rows, most_rows))
        )
        for columns in gathered:
            # `unsafe_split` gives tensors that autograd takes for unrelated ones, as batches must be; it is only
            # unsafe for whoever goes on to use the uncut one.
            cut = zip(*(torch.unsafe_split(columns[name], batch_size) for name in self.names), strict=True)
            yield from follow_stream(cut, self._device) if on_cuda else cut

    def load(self) -> Columns:
        """Bring the rows to where they are kept, which the first batch else does: the columns that are in memory."""
        if self._resident is None and self.residency.kind == "device":
            self._resident = {name: item.tensors(self._device)[0] for name, item in self._sets.items()}
            self._resident |= {name: table.to(self._device) for name, table in self._tables.items()}
        elif self._resident is None:
            in_host = self._sets if self.residency.kind == "host" else {}
            self._resident = {name: item.tensors("cpu")[0] for name, item in in_host.items()} | self._tables
        return self._resident

    def _from_resident(self, order: np.ndarray, num_rows: int) -> Iterator[Columns]:
        names, tables = zip(*self.load().items(), strict=True)
        index, on_cuda = torch.from_numpy(order), self._device.type == "cuda"
        if on_cuda:
            used_by(torch.cuda.current_stream(self._device), tables)  # an earlier epoch's stream may have loaded them
            index = index.pin_memory()  # so that the copy does not wait for all that the consumer has queued
        parts = index.to(self._device, non_blocking=on_cuda).split(num_rows)
        items = ((part, *tables) for part in parts)
        for part, *rows in follow_stream(items, self._device) if on_cuda else items:
            yield {name: table.index_select(0, part) for name, table in zip(names, rows, strict=True)}

    def _from_host(self, blocks: Iterable[np.ndarray], num_rows: int, most_rows: int) -> Iterator[Columns]:
        tables = self.load()
        shapes = {name: (item.row_shape, item.dtype) for name, item in self._sets.items()}
        shapes |= {name: (tuple(table.shape[1:]), table.dtype) for name, table in self._tables.items()}

        def gather(name: str, positions: np.ndarray, out: torch.Tensor | None) -> torch.Tensor:
            if name in tables:
                return take_rows(tables[name], positions, out)
            return self._sets[name].rows.gather(positions, out)

        indexes = (order[at : at + num_rows] for order in blocks for at in range(0, len(order), num_rows))
        yield from prefetch_to(self._device, shapes, most_rows, indexes, gather)
