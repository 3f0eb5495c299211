"""Feeds over samples that are all known: the order of steps and the validation set, however the tensors are had."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from fovcache.errors import UsageError
from fovcache.trainable import InputInfo

from ..feed import ORDER_VERSION, FeedBatch
from .opening import OpenedInputs
from .steps import share_of, shares

logger = logging.getLogger(__name__)


class OrderedFeed(ABC):
    """A Feed of opened inputs; see there."""

    kind: ClassVar[str]

    def __init__(self, opened: OpenedInputs, *, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1) -> None:
        """Raises UsageError where a step is not cut into equal parts."""
        self._opened, self._seed, self._batch_size = opened, seed, batch_size
        self._rank, self._num_ranks = rank, num_ranks
        self._share = share_of(batch_size, num_ranks)
        self._keys = opened.keys
        if 0 < self.num_train < batch_size:
            logger.warning(
                "batch_size is %d and the train set has %d samples: a step has some of them more than once",
                batch_size,
                self.num_train,
            )

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """See Feed."""
        return self._opened.infos

    @property
    def num_train(self) -> int:
        """See Feed."""
        return len(self._opened.sets.train)

    @property
    def num_validation(self) -> int:
        """See Feed."""
        return len(self._opened.sets.validation)

    @property
    def validation_hash(self) -> str:
        """See Feed."""
        return self._opened.sets.validation_hash

    def uris(self, keys: np.ndarray) -> list[str]:
        """Where samples of these keys, uint8 [n, 32], stand in their sources."""
        of_key = {key.tobytes(): at for at, key in enumerate(self._keys)}
        positions = self._opened.sets.used[[of_key[key.tobytes()] for key in keys]]
        return [str(uri) for uri in self._opened.table.texts("uri", positions)]

    @property
    def notes(self) -> tuple[str, ...]:
        """See Feed: nothing."""
        return ()

    def document(self) -> Mapping[str, Any]:
        """See Feed."""
        return {
            "kind": self.kind,
            "dataset": self._opened.ref.dataset,
            "features": dict(self._opened.digests),
            "num_train": self.num_train,
            "validation_hash": self.validation_hash,
            "seed": self._seed,
            "order_version": ORDER_VERSION,
            "batch_size": self._batch_size,
            "processes": self._num_ranks,
        }

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        """See Feed."""
        steps = shares(
            self.num_train,
            seed=self._seed,
            batch_size=self._batch_size,
            samples_seen=samples_seen,
            rank=self._rank,
            num_ranks=self._num_ranks,
        )
        return self._batches(steps)

    def validation_batches(self) -> Iterator[FeedBatch]:
        """See Feed."""
        own = self.num_train + np.arange(self._rank, self.num_validation, self._num_ranks)
        return self._batches(own[at : at + self._share] for at in range(0, len(own), self._share))

    @abstractmethod
    def _batches(self, steps: Iterator[np.ndarray]) -> Iterator[FeedBatch]:
        """Batches of the opened samples at positions, int64 [share]; the last of them may have fewer."""

    def state(self) -> Mapping[str, Any]:
        """Nothing: batches follow from samples seen."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See Feed. Raises UsageError for the state of another kind of feed."""
        if state:
            raise UsageError(f"the state of a {self.kind} feed is empty, and this has {', '.join(sorted(state))}")

    def close(self) -> None:  # noqa: B027 - there may be nothing to let go of
        """See Feed."""
