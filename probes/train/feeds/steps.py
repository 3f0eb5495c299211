"""Which samples each step has: a function of seed and samples seen, whatever the feed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np

from fovcache.errors import UsageError
from fovcache.loaders.order import epoch_order


def share_of(batch_size: int, num_ranks: int) -> int:
    """Samples of a step that each process has. Raises UsageError where they are not equally many."""
    share, rest = divmod(batch_size, num_ranks)
    if rest or not share:
        raise UsageError(f"batch_size = {batch_size} is not a multiple of the {num_ranks} processes; change either")
    return share


def shares(
    num_samples: int, *, seed: int, batch_size: int, samples_seen: int, rank: int, num_ranks: int
) -> Iterator[np.ndarray]:
    """One process's part of each step from `samples_seen` on, without end: positions among the samples, int64 [share].

    Epochs follow each other within a step: its samples are a stretch of all epochs' orders, one after the other.
    """
    share = share_of(batch_size, num_ranks)
    order = lru_cache(2)(lambda epoch: epoch_order(num_samples, seed=seed, epoch=epoch))
    for begin in count(samples_seen + rank * share, batch_size):
        parts = []
        at, end = begin, begin + share
        while at < end:
            epoch, first = divmod(at, num_samples)
            parts.append(order(epoch)[first : first + end - at])
            at += len(parts[-1])
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
