"""The samples of an ablation: those of a dataset that have every layer, with their labels, groups and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fovcache.errors import SelectionError, UsageError

if TYPE_CHECKING:
    from fovcache.loaders.feature_set import FeatureSet
    from fovcache.store.dataset import SampleTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSamples:
    """n samples in the dataset's order."""

    positions: np.ndarray
    """int64 [n]: in the dataset."""
    keys: np.ndarray
    """uint8 [n, 32]."""
    labels: np.ndarray
    """int64 [n]: positions in `classes`."""
    classes: tuple[str, ...]
    """Names, by the labels' own order."""
    groups: tuple[str | None, ...] | None
    """None where no sample names one."""
    splits: tuple[str | None, ...] | None
    """None where no sample names one."""
    uris: tuple[str, ...]
    """For errors."""
    num_missing: int
    """Samples of the dataset that lack a layer."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_groups(self) -> int:
        """Distinct groups; 0 where no sample names one."""
        return len({group for group in self.groups or () if group is not None})

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Samples of each class."""
        return tuple(np.bincount(self.labels, minlength=len(self.classes)).tolist())


def labelled_samples(
    table: SampleTable, sets: Sequence[FeatureSet], present: Sequence[np.ndarray], dataset: str
) -> tuple[LabelledSamples, list[FeatureSet]]:
    """The samples that all of `sets` have, and the sets cut down to them.

    `present` says for each set, bool [samples of the dataset], which samples it has. Raises UsageError when none has
    every layer, SelectionError when labels are missing or are of two kinds.
    """
    whole = np.logical_and.reduce(list(present))
    positions = np.flatnonzero(whole)
    if not len(positions):
        raise UsageError(
            f"no sample of dataset {dataset!r} has all {len(sets)} layers: take fewer of them, or build what is missing"
        )
    cut = [features.subset(np.flatnonzero(whole[has]).tolist()) for features, has in zip(sets, present, strict=True)]
    first = cut[0]
    try:
        labels = first.labels
    except SelectionError as error:
        raise SelectionError(f"dataset {dataset!r}: {error}") from None
    if labels is None:
        raise UsageError(
            f"the samples of dataset {dataset!r} have no labels, and there is nothing to decode: put them in a folder "
            "for each class, or give a manifest with a column `label`"
        )
    values, codes = np.unique(labels.numpy(), return_inverse=True)
    names = first.classes
    samples = LabelledSamples(
        positions=positions,
        keys=first.key_array,
        labels=codes.astype(np.int64),
        classes=tuple(names[value] if names else str(value) for value in values.tolist()),
        groups=_unless_empty(first.groups),
        splits=_unless_empty(first.splits),
        uris=tuple(first.uris),
        num_missing=len(table) - len(positions),
    )
    return samples, cut


def _unless_empty(values: Sequence[str | None]) -> tuple[str | None, ...] | None:
    return tuple(values) if any(value is not None for value in values) else None
