"""Where a trained model looks: pictures of its attention over the frames of validation samples, for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from fovcache.trainable import Batch

from ..feed import Feed, FeedBatch
from ..result import AttentionMap
from ..saving.random_states import own_random

_NUM_SAMPLES = 2
_SEED = 0

Maps = Callable[[Batch], Mapping[str, torch.Tensor]]


def attention_maps(module: nn.Module, feed: Feed, device: torch.device) -> tuple[AttentionMap, ...]:
    """Of the first validation samples; none where the module gives none. Nothing is drawn from the run's generators."""
    maps: Maps | None = getattr(module, "attention_maps", None)
    batch = next(iter(feed.validation_batches()), None)
    if maps is None or batch is None:
        return ()
    was_training = module.training
    module.eval()
    try:
        with own_random(_SEED, device=device), torch.no_grad():
            found = maps({name: each[:_NUM_SAMPLES] for name, each in batch.tensors.items()})
    finally:
        module.train(was_training)
    return tuple(
        AttentionMap(name=name, sample=sample, frames=_nested(each[number]))
        for name, each in found.items()
        for number, sample in enumerate(_names(feed, batch)[: len(each)])
    )


def _names(feed: Feed, batch: FeedBatch) -> list[str]:
    """The samples' uris where the feed tells them, else the beginning of their keys."""
    keys = batch.keys[:_NUM_SAMPLES]
    uris = getattr(feed, "uris", None)
    return [bytes(key).hex()[:16] for key in keys] if uris is None else list(uris(keys))


def _nested(frames: torch.Tensor) -> tuple[tuple[tuple[float, ...], ...], ...]:
    rows = frames.float().cpu().tolist()
    return tuple(tuple(tuple(row) for row in frame) for frame in rows)
