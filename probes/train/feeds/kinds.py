"""Opening the feed that a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fovcache.trainable import Need

from ..config import CACHED, ONLINE, TrainConfig

if TYPE_CHECKING:
    import torch

    from ..feed import Feed


def open_feed(
    config: TrainConfig,
    needs: Mapping[str, Need],
    *,
    seed: int,
    device: torch.device,
    rank: int = 0,
    num_ranks: int = 1,
    folder: Path | None = None,
) -> Feed:
    """The batches of one process of a run, on `device`; a stream keeps its window in the run's `folder`.

    Raises UsageError and its kin for what the cache or the sources do not hold, DamageError, EnvironmentFailure.
    """
    if config.data.kind == CACHED:
        from .cached import CachedFeed
        from .opening import open_inputs

        return CachedFeed(
            open_inputs(config, needs),
            batch_size=config.train.batch_size,
            seed=seed,
            device=device,
            rank=rank,
            num_ranks=num_ranks,
        )
    if config.data.kind == ONLINE:
        from .online import open_online

        return open_online(config, needs, seed=seed, device=device, rank=rank, num_ranks=num_ranks)
    from .stream import open_stream

    assert folder is not None, "a stream needs a folder"
    return open_stream(config, needs, seed=seed, device=device, folder=folder, rank=rank, num_ranks=num_ranks)
