"""Feeds: where a training run's batches come from.

Axes: B samples of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fovcache.trainable import InputInfo

ORDER_VERSION = 1
"""Of how the order of samples follows from seed and samples seen; raised when that changes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeedBatch:
    """One process's share of one step, or a part of the validation set."""

    tensors: Mapping[str, torch.Tensor]
    """By the model's names, each [B, …], on the device; labels are `y`. Never written to again."""
    keys: np.ndarray
    """uint8 [B, 32]: which samples."""

    def __len__(self) -> int:
        return len(self.keys)


class Feed(Protocol):
    """Batches of one process of a run."""

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """What each of the model's needs turned out to be."""

    @property
    def num_train(self) -> int | None:
        """Samples of the train set; None where a stream does not know."""

    @property
    def num_validation(self) -> int:
        """Samples of the validation set, over all processes."""

    @property
    def validation_hash(self) -> str:
        """BLAKE3, hexadecimal, of the sorted keys of the validation set: equal where the set is."""

    def document(self) -> Mapping[str, Any]:
        """What decides the batches: kind, dataset's digest, features' digests, split, seed, ORDER_VERSION, batch size,
        processes. A run that is resumed must have the same."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know of the batches so far: what was left out, what was cut."""

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        """This process's shares of the steps that follow when the run has seen `samples_seen` samples; without end.

        Which samples a step has, and in which order, is a function of seed and samples seen alone; rank r of R has
        the r-th of R equal parts of it. An epoch ends where it ends, also within a step.
        Raises DamageError, EnvironmentFailure; a stream also UsageError where it has no samples left.
        """

    def validation_batches(self) -> Iterator[FeedBatch]:
        """This process's part of the validation set, in an order that never changes."""

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint should hold of it beside samples seen; JSON."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up such a state."""

    def close(self) -> None:
        """Let go of threads, files and processes."""
