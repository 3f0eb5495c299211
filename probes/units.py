"""Units: the samples that no split may part, because their bytes are equal or they are of one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_GROUP, _KEY = b"group ", b"key "


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Samples as units."""

    of_sample: np.ndarray
    """int64 [n]: the unit of each sample."""
    identities: tuple[bytes, ...]
    """What each unit is, whatever the order of the samples: its key, or the first of its groups' names."""
    sizes: np.ndarray
    """int64 [units]: samples of each."""
    labels: np.ndarray
    """int64 [units]: the label of most of its samples; of equals the smallest."""
    are_groups: bool
    """Whether groups were asked for."""

    @property
    def noun(self) -> str:
        """What a unit is, for errors."""
        return "group" if self.are_groups else "different sample"

    def group_name(self, unit: int) -> str | None:
        """Its group, or None for one without."""
        identity = self.identities[unit]
        return identity.removeprefix(_GROUP).decode() if identity.startswith(_GROUP) else None


def find_units(keys: np.ndarray, labels: np.ndarray, groups: Sequence[str | None] | None) -> Units:
    """The units of n samples: keys uint8 [n, 32], labels int64 [n], groups or None for keys alone.

    Groups that share a sample of equal bytes are one unit.
    """
    distinct, of_sample = np.unique(np.ascontiguousarray(keys).view("V32").ravel(), return_inverse=True)
    identities = [_KEY + key.tobytes() for key in distinct]
    if groups is not None:
        of_sample, identities = _joined(of_sample, identities, groups)
    return Units(
        of_sample=of_sample,
        identities=tuple(identities),
        sizes=np.bincount(of_sample),
        labels=_majority(of_sample, labels),
        are_groups=groups is not None,
    )


def _joined(
    of_sample: np.ndarray, identities: list[bytes], groups: Sequence[str | None]
) -> tuple[np.ndarray, list[bytes]]:
    """The unit of each sample, and identities, when groups join samples and samples join groups."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = sorted({name for name in groups if name is not None})
    number = {name: len(identities) + each for each, name in enumerate(names)}
    nodes = [*identities, *(_GROUP + name.encode() for name in names)]
    named = np.array([name is not None for name in groups], bool)
    ends = np.array([number[name] for name in groups if name is not None], np.int64)
    edges = (np.ones(len(ends), bool), (of_sample[named], ends))
    count, component = connected_components(coo_array(edges, shape=(len(nodes), len(nodes))), directed=False)
    first: list[bytes] = [b""] * count
    for node in sorted(range(len(nodes)), key=nodes.__getitem__, reverse=True):
        first[component[node]] = nodes[node]  # groups come before keys, and so win
    return component[of_sample].astype(np.int64), first


def _majority(of_sample: np.ndarray, labels: np.ndarray) -> np.ndarray:
    pairs, counts = np.unique(np.stack([of_sample, labels], 1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    units, first = np.unique(pairs[order, 0], return_index=True)
    assert len(units) == of_sample.max() + 1, "every unit has a sample"
    return np.asarray(pairs[order[first], 1])
