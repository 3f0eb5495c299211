"""Which samples are looked at: those that have every layer, and of more than are wanted some, drawn by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fovcache.errors import SelectionError, UsageError, nearest
from fovcache.keys.digest import bytes_digest
from fovcache.store.dataset import SampleTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenSamples:
    """Some samples of a dataset."""

    positions: np.ndarray
    """int64 [n]: in the dataset, rising."""
    num_available: int
    """That have every layer."""
    num_missing: int
    """Of the split, that lack one."""
    num_distinct: int
    """Of the chosen, how many differ in content."""

    def __len__(self) -> int:
        return len(self.positions)


def of_split(table: SampleTable, split: str | None, dataset: str) -> np.ndarray:
    """Positions of a split's samples, int64 [n]; all for None. Raises SelectionError."""
    if split is None:
        return np.arange(len(table))
    codes, names = table.categories("split")
    if split not in names:
        raise SelectionError(f"dataset {dataset!r} has no split {split!r}{nearest(split, names)}")
    return np.flatnonzero(codes == list(names).index(split))


def choose_samples(
    table: SampleTable, positions: np.ndarray, present: Mapping[str, np.ndarray], *, most: int, seed: int
) -> ChosenSamples:
    """At most `most` of the samples at `positions` that have all layers; `present` says by layer which these are.

    A sample is drawn by the digest of the seed and its key, so that neither order nor other samples decide on it.
    Raises UsageError where no sample has all layers.
    """
    whole = np.logical_and.reduce(list(present.values()))
    available = positions[whole]
    if not len(available):
        counts = ", ".join(f"{layer} {int(has.sum())}" for layer, has in present.items())
        raise UsageError(
            f"none of {len(positions)} samples has all of these layers (samples that have each: {counts}): choose "
            "fewer of them, or build what is missing"
        )
    keys = table.keys[available]
    chosen = available if len(available) <= most else available[_drawn(keys, most, seed)]
    return ChosenSamples(
        positions=chosen,
        num_available=len(available),
        num_missing=len(positions) - len(available),
        num_distinct=len(np.unique(table.keys[chosen], axis=0)),
    )


def _drawn(keys: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rising places of `most` of uint8 keys [n, 32]."""
    salt = f"fovbench quality {seed}\n".encode()
    digests: Sequence[str] = [bytes_digest(salt + key.tobytes()) for key in keys]
    return np.sort(np.argsort(digests, kind="stable")[:most])
