"""The train set and the validation set: by the dataset's own splits, or by what samples are.

Which samples are for validation depends on their keys alone: not on their order, a seed or an arm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from fovcache.errors import SplitError, nearest
from fovcache.keys.digest import bytes_digest

from ..config import SplitChoice

logger = logging.getLogger(__name__)

TRAIN = "train"
VALIDATION_NAMES = ("validation", "val")
_DIGEST_KEY = blake3(b"fovcache train validation 1").digest()
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainSets:
    """Positions of samples in their dataset."""

    train: np.ndarray
    """int64, rising."""
    validation: np.ndarray
    """int64, by the keyed digests of the samples' keys."""
    validation_hash: str
    """BLAKE3, hexadecimal, of the sorted keys of the validation set."""

    @property
    def used(self) -> np.ndarray:
        """Train, then validation, int64."""
        return np.concatenate([self.train, self.validation])


def divide(
    keys: np.ndarray,
    splits: Sequence[str | None],
    choice: SplitChoice,
    num_validation: int,
    *,
    uris: Sequence[str | None],
    groups: Sequence[str | None] = (),
    only_validation: bool = False,
) -> TrainSets:
    """Divide n samples: keys uint8 [n, 32], and the split that each names.

    Of a given validation split, or else of the train set, those with the smallest keyed digests are for validation:
    `num_validation` samples, or some more where samples of equal content would be parted. With
    `only_validation` nothing is trained on. `uris` and `groups` are for messages only.

    Raises SplitError: a split that is not there; a sample in both given splits; nothing left to train on.
    """
    own = np.array([split or "" for split in splits], dtype=object)
    known = sorted({split for split in splits if split})
    train_name = _split(choice.train, (TRAIN,), known)
    validation_name = _split(choice.validation, VALIDATION_NAMES, known)
    if train_name is not None and train_name == validation_name:
        raise SplitError(f"split {train_name!r} cannot be for training and for validation; name two in [split]")
    if train_name is not None:
        is_train = own == train_name
    else:
        is_train = np.ones(len(own), bool) if validation_name is None else own != validation_name
    distinct, of_sample = np.unique(np.ascontiguousarray(keys).view("V32").ravel(), return_inverse=True)
    among = np.flatnonzero(is_train if validation_name is None else own == validation_name)
    chosen = _smallest(distinct, of_sample[among], num_validation)
    is_chosen = np.isin(of_sample, chosen)
    if validation_name is None:
        is_train &= ~is_chosen
    else:
        _check_apart(is_train, own == validation_name, of_sample, uris)
        if len(among) < num_validation:
            logger.warning(
                "split %r has %d samples, and validation_samples is %d: all of them are the validation set",
                validation_name,
                len(among),
                num_validation,
            )
    train = np.flatnonzero(is_train & (not only_validation))
    if not len(train) and not only_validation:
        raise SplitError(
            f"no sample is left to train on: {len(among)} of {len(own)} samples could be trained on or validated with, "
            f"and validation_samples is {num_validation}; set it lower, or add samples"
            if validation_name is None
            else f"no sample is left to train on: all {len(own)} are in split {validation_name!r}"
        )
    rank = np.empty(len(distinct), np.int64)
    rank[chosen] = np.arange(len(chosen))
    validation = among[is_chosen[among]]
    validation = validation[np.argsort(rank[of_sample[validation]], kind="stable")]
    _warn_of_groups(train, validation, groups)
    held = np.sort(np.ascontiguousarray(keys[validation]).view("V32").ravel())
    return TrainSets(train=train, validation=validation, validation_hash=bytes_digest(held.tobytes()))


def _split(named: str | None, usual: Sequence[str], known: Sequence[str]) -> str | None:
    if named is not None and named not in known:
        raise SplitError(f"the dataset has no split {named!r}{nearest(named, known)}")
    return named if named is not None else next((name for name in usual if name in known), None)


def _smallest(distinct: np.ndarray, of_sample: np.ndarray, num_samples: int) -> np.ndarray:
    """The distinct keys, by their digests, that make `num_samples` of the samples, or all."""
    candidates, counts = np.unique(of_sample, return_counts=True)
    digests = [blake3(distinct[each].tobytes(), key=_DIGEST_KEY).digest() for each in candidates]
    order = np.array(sorted(range(len(candidates)), key=digests.__getitem__), np.int64)
    num_keys = int(np.searchsorted(np.cumsum(counts[order]), num_samples)) + 1
    taken: np.ndarray = candidates[order[:num_keys]]
    return taken


def _check_apart(
    is_train: np.ndarray, is_validation: np.ndarray, of_sample: np.ndarray, uris: Sequence[str | None]
) -> None:
    both = np.flatnonzero(is_validation & np.isin(of_sample, of_sample[is_train]))
    if len(both):
        raise SplitError(
            f"{len(both)} samples of the validation split have the same content as samples to train on "
            f"({named(both, uris)}): remove them from one of the two"
        )


def _warn_of_groups(train: np.ndarray, validation: np.ndarray, groups: Sequence[str | None]) -> None:
    if not any(groups):
        return
    shared = {groups[at] for at in train.tolist()} & {groups[at] for at in validation.tolist()} - {None}
    if shared:
        logger.warning(
            "%d groups have samples to train on and samples to validate with (such as %r): "
            "give the dataset splits of its own to keep groups whole",
            len(shared),
            min(str(group) for group in shared),
        )


def named(positions: np.ndarray, uris: Sequence[str | None]) -> str:
    """Some of the samples at `positions`, for errors."""
    shown = ", ".join(str(uris[at]) for at in positions[:_MAX_SHOWN].tolist())
    return shown + (", …" if len(positions) > _MAX_SHOWN else "")
