"""Several feature sets of the same samples, served together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import SelectionError
from .feature_set import FeatureSet
from .loader import Loader

logger = logging.getLogger(__name__)


class JoinedSet:
    """Aligned feature sets: row i of each belongs to one sample. Get one from `Cache.join`."""

    def __init__(self, sets: Mapping[str, FeatureSet], num_dropped: int) -> None:
        self.sets = dict(sets)
        """The feature sets by name, aligned."""
        self.num_dropped = num_dropped
        """Samples of the first set that some other set lacks."""
        self._first = next(iter(sets.values()))

    def __len__(self) -> int:
        return len(self._first)

    @property
    def keys(self) -> list[str]:
        """The samples' keys."""
        return self._first.keys

    @property
    def labels(self) -> torch.Tensor | None:
        """The first set's labels, int64 [samples] or None."""
        return self._first.labels

    def tensors(self, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
        """`{name: [samples, …]}` on `device`, with `y` where there are labels."""
        tensors = {name: item.tensors(device)[0] for name, item in self.sets.items()}
        return tensors if self.labels is None else {**tensors, "y": self.labels.to(device)}

    def loader(self, batch_size: int, **options: Any) -> Loader:
        """Batches `{name: x, …, "y": labels or None}`; options as of `Loader`."""
        return Loader(self.sets, batch_size, **options)


def join_sets(sets: Mapping[str, FeatureSet], *, missing: str) -> JoinedSet:
    """Align `sets` by sample, in the first one's order. See `Cache.join`."""
    if not sets:
        raise SelectionError("no feature set was given to join")
    if "y" in sets:
        raise SelectionError("the name 'y' is for the labels; give the feature set another name")
    if missing not in ("error", "drop"):
        raise SelectionError(f"missing={missing!r}: expected 'error' or 'drop'")
    first = next(iter(sets.values()))
    of_rows = _of_rows(sets)
    names = next(iter(of_rows.values()))
    positions = {name: {own: at for at, own in enumerate(each)} for name, each in of_rows.items()}
    kept = [at for at, own in enumerate(names) if all(own in known for known in positions.values())]
    num_dropped = len(first) - len(kept)
    if num_dropped and missing == "error":
        lacking = {name: sum(own not in known for own in names) for name, known in positions.items()}
        said = ", ".join(f"{name} lacks {count}" for name, count in lacking.items() if count)
        raise SelectionError(f"of {len(first)} samples {said}; build them, or join with missing='drop'")
    if num_dropped:
        logger.warning("%d of %d samples are dropped: not every joined feature has them", num_dropped, len(first))
    aligned = {
        name: item.subset([positions[name][names[at]] for at in kept] if item is not first else kept)
        for name, item in sets.items()
    }
    return JoinedSet(aligned, num_dropped)


def _of_rows(sets: Mapping[str, FeatureSet]) -> dict[str, list[Any]]:
    """What each row is known by: within one dataset the sample's place in it, else its key.

    Raises SelectionError where a key does not tell which of several captions is meant.
    """
    if len({item.dataset for item in sets.values()}) == 1:
        return {name: item.positions.tolist() for name, item in sets.items()}
    for name, item in sets.items():
        if item.feature.is_integer and len(set(zip(item.keys, item.captions, strict=True))) > len(set(item.keys)):
            raise SelectionError(
                f"{name!r} has samples of equal content with other captions, which only their own dataset tells apart; "
                "build what is joined with it under the same dataset"
            )
    return {name: item.keys for name, item in sets.items()}
