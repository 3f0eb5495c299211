"""The cached feed: rows out of the cache, gathered ahead of the steps that use them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, tee

import numpy as np
import torch

from fovcache.loaders.row_server import RowServer

from ..config import CACHED
from ..feed import FeedBatch
from .opening import OpenedInputs
from .ordered import OrderedFeed

_ROWS_PER_BLOCK = 4096
"""Steps of few samples are handed to the server together, about so many rows."""


class CachedFeed(OrderedFeed):
    """Serves the rows of opened inputs; threads end with the iterators that they gather for."""

    kind = CACHED

    def __init__(
        self,
        opened: OpenedInputs,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        num_ranks: int = 1,
        residency: str = "auto",
    ) -> None:
        """`residency` as of `Loader`. Loads the rows. Raises UsageError where a step is not cut into equal parts."""
        super().__init__(opened, batch_size=batch_size, seed=seed, rank=rank, num_ranks=num_ranks)
        self._server = RowServer(
            opened.features, opened.tables, residency=residency, device=device, num_alike=num_ranks
        )
        self._server.load()  # so that the first step does not wait for it

    def _batches(self, steps: Iterator[np.ndarray]) -> Iterator[FeedBatch]:
        steps, ahead = tee(steps)
        num_steps = max(1, _ROWS_PER_BLOCK // self._share)
        blocks = (np.concatenate(block) for block in iter(lambda: list(islice(ahead, num_steps)), []))
        served = self._server.batches(blocks, self._share, num_steps * self._share)
        for positions, columns in zip(steps, served, strict=True):
            tensors = dict(zip(self._server.names, columns, strict=True))
            yield FeedBatch(tensors=tensors, keys=self._keys[positions])
