"""Train, validation and test by what samples are: by content, grouped, stratified; never by position.

A unit is what is moved as one: a sample (all of equal content), or a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from fovcache.errors import SplitError, UsageError, nearest

from .units import Units, find_units

RESPLIT, GIVEN, INDEPENDENT = "resplit", "given", "independent"
KINDS = (RESPLIT, GIVEN, INDEPENDENT)
TRAIN, VALIDATION, TEST = "train", "validation", "test"
VALIDATION_NAMES = ("val", "validation")
"""What a dataset's own validation split may be called."""
_RULE_VERSION = b"fovcache split 1"
_NOWHERE = ""
"""The side of samples that a seed leaves out."""
_OF_PARTS = -1
"""In place of a seed where parts are drawn, which are the same for every seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """How samples are divided. Raises UsageError for a kind or shares that cannot be."""

    kind: str
    """`resplit`: train, validation and test are drawn anew for each seed. `given`: test is the dataset's split named
    `test`; validation is the one named `val` or `validation`, or else drawn from `train` for each seed.
    `independent`: each seed has a part of the samples to itself, and divides that."""
    test: float = 0.25
    """Share of all samples, or of a part, within (0, 1); not used by `given`."""
    validation: float = 0.15
    """Share of all samples, of a part, or of the split `train` where `given`; not used if the dataset has its own."""
    group: bool = False
    """Keep the samples of a group on one side, and in one part."""
    shots: int | None = None
    """Samples of each class that are kept of train, the others being left out; None for all."""
    num_parts: int = 1
    """Into how many parts `independent` divides the samples, by what they are alone: one for each seed."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a split's kind is {self.kind!r}{nearest(self.kind, KINDS)}")
        for name, share in self._shares.items():
            if not 0 < share < 1:
                raise UsageError(f"the share of {name} is {share:g}; it must lie between 0 and 1, such as 0.2")
        if sum(self._shares.values()) >= 1:
            shown = " and ".join(f"{name} = {share:g}" for name, share in self._shares.items())
            raise UsageError(f"{shown} leave nothing for train: together they must be less than 1")
        if self.shots is not None and self.shots < 1:
            raise UsageError(f"shots is {self.shots}, expected how many samples of each class train has, at least 1")
        assert self.num_parts == 1 or (self.kind == INDEPENDENT and self.num_parts > 1)

    @property
    def _shares(self) -> dict[str, float]:
        drawn = {} if self.kind == GIVEN else {TEST: self.test}
        return {**drawn, VALIDATION: self.validation}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Positions of samples, rising, none of them on two sides; some on none, where a rule leaves samples out."""

    train: np.ndarray
    """int64."""
    validation: np.ndarray
    """int64."""
    test: np.ndarray
    """int64."""


def partition(
    keys: np.ndarray,
    labels: np.ndarray | None,
    groups: Sequence[str | None] | None,
    splits: Sequence[str | None] | None,
    rule: SplitRule,
    seed: int,
    *,
    part: int = 0,
    classes: Sequence[str] | None = None,
    uris: Sequence[str] | None = None,
) -> Partition:
    """Divide n samples: keys uint8 [n, 32], labels int64 [n], group and split of each or None.

    Samples of equal keys are on one side, and with `rule.group` those of one group too. A unit goes where the BLAKE3
    of the seed and its identity sends it, within the quota of its class (a group's is that of most of its samples),
    so the order of the samples does not matter. `part` is the one of `rule.num_parts` that is divided. `classes`
    (names of the labels) and `uris` are for errors only.

    Raises SplitError: no labels; one class; a class missing from a side; too few samples or groups of a class, also
    for the parts or the shots; a sample or group in two given splits; no split `test` or `train` where they should be
    given.
    """
    if labels is None:
        raise SplitError(
            "a head needs labels, and these samples have none: put them in a folder for each class, "
            "or name a label in their manifest"
        )
    names = {int(label): str(label) if classes is None else repr(classes[label]) for label in np.unique(labels)}
    if len(names) < 2:
        shown = ", ".join(names.values())
        raise SplitError(
            f"all {len(labels)} samples are of one class, {shown}: a head needs two or more to tell apart; "
            "add samples of other classes"
        )
    units = find_units(keys, labels, groups if rule.group else None)
    if rule.group and not any(groups or ()):
        raise SplitError("samples are to be split by group, and none names a group; set group = false")
    shares = {TEST: rule.test, VALIDATION: rule.validation}
    if rule.kind == RESPLIT:
        sides = _draw(units, np.ones(len(units.sizes), bool), labels, shares, seed, names)
    elif rule.kind == INDEPENDENT:
        is_mine = _of_part(units, labels, rule.num_parts, part, names)
        with _told(f"part {part + 1} of {rule.num_parts}, one for each seed"):
            sides = _draw(units, is_mine, labels, shares, seed, names)
        sides = np.where(is_mine[units.of_sample], sides, _NOWHERE)
    else:
        sides = _given_sides(units, splits, uris)
        if not (sides == VALIDATION).any():
            test, is_train = sides == TEST, np.zeros(len(units.sizes), bool)
            is_train[units.of_sample[sides == TRAIN]] = True
            sides = np.where(test, TEST, _draw(units, is_train, labels, {VALIDATION: rule.validation}, seed, names))
    _check_classes(sides, labels, names, rule)
    if rule.shots is not None:
        sides = np.where(_is_surplus(sides == TRAIN, units, keys, labels, rule.shots, seed, names), _NOWHERE, sides)
    return Partition(**{side: np.flatnonzero(sides == side) for side in (TRAIN, VALIDATION, TEST)})


def varies_with_seed(splits: Sequence[str | None] | None, rule: SplitRule) -> str:
    """What a seed decides under this rule, in a few words."""
    some = "" if rule.shots is None else f"; which {rule.shots} of each class train keeps"
    if rule.kind == INDEPENDENT:
        return f"which samples it has to itself, 1/{rule.num_parts} of all, and how they are divided{some}"
    if rule.kind == RESPLIT:
        return f"which samples are in train, validation and test{some}"
    if any(name in VALIDATION_NAMES for name in splits or ()):
        return some.removeprefix("; ") or "nothing: train, validation and test are given"
    return f"which samples of the given train split are for validation{some}"


def _draw(
    units: Units,
    among: np.ndarray,
    labels: np.ndarray,
    shares: Mapping[str, float],
    seed: int,
    names: Mapping[int, str],
    rest: str = TRAIN,
) -> np.ndarray:
    """The side of every sample: for each class, the first units in the order of their hashes, up to its quota.

    What no side gets is for `rest`. What rounding takes from one class it gives to the next, so that the shares of all
    samples are right too.
    """
    places = {int(unit): _place(seed, units.identities[unit]) for unit in np.flatnonzero(among)}
    sides = np.full(len(units.sizes), rest, dtype="U10")
    holders = {label: _holders(units, among, labels, label) for label in names}
    if short := [label for label in names if len(holders[label]) <= len(shares)]:
        raise SplitError(_too_few(units, holders, short, names, shares))
    owed = dict.fromkeys(shares, 0.0)
    for label in sorted(names, key=lambda each: _place(seed, b"class %d" % each)):
        members = np.flatnonzero(among & (units.labels == label))
        if len(members) <= len(shares):  # it is in groups of other classes too, and goes where these go
            continue
        members = np.array(sorted(members, key=lambda unit: places[int(unit)]))
        filled = np.concatenate(([0], np.cumsum(units.sizes[members])))
        begin, half = 0, units.sizes[members].max() / 2
        for number, (side, share) in enumerate(shares.items()):
            quota = share * filled[-1] + float(np.clip(owed[side], -half, half))
            last = len(members) - len(shares) + number  # one unit at least for every side that follows
            end = int(np.abs(filled - filled[begin] - quota).argmin().clip(begin + 1, last))
            owed[side] = quota - (filled[end] - filled[begin])
            sides[members[begin:end]] = side
            begin = end
    of_sample: np.ndarray = sides[units.of_sample]
    return of_sample


def _of_part(units: Units, labels: np.ndarray, num_parts: int, part: int, names: Mapping[int, str]) -> np.ndarray:
    """Which units are of a part, bool [units]. Parts have equal shares of every class, and no unit is in two."""
    every = np.ones(len(units.sizes), bool)
    holders = {label: _holders(units, every, labels, label) for label in names}
    needed = 3 * num_parts
    if short := [label for label in names if len(holders[label]) < needed]:
        others = f" ({len(short)} classes have too few)" if len(short) > 1 else ""
        raise SplitError(
            f"class {names[short[0]]} has {_num(holders[short[0]], units.noun)}, and {num_parts} seeds with samples of "
            f"their own need {needed} at least, one each for train, validation and test{others}: take fewer seeds, add "
            f'samples, or set kind = "{RESPLIT}", whose seeds share all'
        )
    shares = {str(number): 1 / num_parts for number in range(num_parts - 1)}
    found = _draw(units, every, labels, shares, _OF_PARTS, names, rest=str(num_parts - 1))
    is_mine = np.zeros(len(units.sizes), bool)
    is_mine[units.of_sample[found == str(part)]] = True
    return is_mine


def _is_surplus(
    is_train: np.ndarray,
    units: Units,
    keys: np.ndarray,
    labels: np.ndarray,
    shots: int,
    seed: int,
    names: Mapping[int, str],
) -> np.ndarray:
    """Which samples of train are more than `shots` of their class, bool [n].

    Those kept are different samples, of as many units as there are. More shots keep them and add others.
    """
    is_surplus = is_train.copy()
    for label, name in names.items():
        places: dict[bytes, int] = {}
        for position in np.flatnonzero(is_train & (labels == label)).tolist():
            places.setdefault(keys[position].tobytes(), position)
        if len(places) < shots:
            raise SplitError(
                f"class {name} has {len(places)} different sample{'' if len(places) == 1 else 's'} in train, and "
                f"shots = {shots} takes that many of every class: take fewer shots, add samples, or leave the class out"
            )
        ranked: list[tuple[int, bytes, int]] = []
        of_unit = Counter[int]()
        for key in sorted(places, key=lambda key: _place(seed, b"shot %b" % key)):
            unit = int(units.of_sample[places[key]])
            ranked.append((of_unit[unit], _place(seed, b"shots of %b" % units.identities[unit]), places[key]))
            of_unit[unit] += 1
        is_surplus[[position for _, _, position in sorted(ranked)[:shots]]] = False
    return is_surplus


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Names the part that cannot be divided."""
    try:
        yield
    except SplitError as error:
        raise SplitError(f"{where}: {error}; or take fewer seeds") from None


def _place(seed: int, identity: bytes) -> bytes:
    return blake3(b"%b %d %b" % (_RULE_VERSION, seed, identity)).digest(16)


def _given_sides(units: Units, splits: Sequence[str | None] | None, uris: Sequence[str] | None) -> np.ndarray:
    """The side of every sample as the dataset says. Raises SplitError for splits missing, unknown or leaking."""
    found = np.array(["" if name is None else name for name in splits or [None] * len(units.of_sample)])
    present = sorted({str(name) for name in found})
    shown = ", ".join(repr(name) if name else "none" for name in present)
    own = [name for name in VALIDATION_NAMES if name in present]
    if len(own) > 1:
        raise SplitError(f"the dataset has two splits for validation, {own[0]!r} and {own[1]!r}: name them alike")
    if unknown := [name for name in present if name not in (TRAIN, TEST, *own)]:
        what = f"are in split {unknown[0]!r}" if unknown[0] else "name no split"
        raise SplitError(
            f"samples {what} ({int((found == unknown[0]).sum())} of {len(found)}), and only train, val and test are "
            f'known (there are: {shown}): build without them, or set kind = "resplit"'
        )
    if missing := [name for name in (TRAIN, TEST) if name not in present]:
        raise SplitError(
            f"the dataset has no split {missing[0]!r} (splits there are: {shown}): "
            'build it from train=SOURCE test=SOURCE, or set kind = "resplit"'
        )
    sides = np.where(np.isin(found, own), VALIDATION, found)
    _check_leaks(units, sides, uris)
    return sides


def _check_leaks(units: Units, sides: np.ndarray, uris: Sequence[str] | None) -> None:
    for one, other in ((TRAIN, TEST), (VALIDATION, TEST), (TRAIN, VALIDATION)):
        both = np.intersect1d(units.of_sample[sides == one], units.of_sample[sides == other])
        if not len(both):
            continue
        if name := units.group_name(int(both[0])):
            raise SplitError(
                f"{one} and {other} share {_num(both, 'group')}, such as {name!r}: take what they share out of one, "
                'or set kind = "resplit", which keeps a group on one side; group = false if this is meant'
            )
        first = np.flatnonzero((units.of_sample == both[0]) & (sides == other))[0]
        shown = f"number {first}" if uris is None else uris[first]
        raise SplitError(
            f"{one} and {other} share {_num(both, 'sample')} of equal bytes, such as {shown}: take what they share out "
            'of one, or set kind = "resplit", which keeps equal samples on one side'
        )


def _holders(units: Units, among: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    """The units with a sample of a class."""
    held: np.ndarray = np.unique(units.of_sample[labels == label])
    return np.asarray(held[among[held]])


def _too_few(
    units: Units,
    holders: Mapping[int, np.ndarray],
    short: Sequence[int],
    names: Mapping[int, str],
    shares: Mapping[str, float],
) -> str:
    sides = f"{TRAIN}, {VALIDATION} and {TEST}" if TEST in shares else f"{TRAIN} and {VALIDATION}"
    others = f" ({len(short)} classes have too few)" if len(short) > 1 else ""
    mend = "group = false keeps only equal samples together" if units.are_groups else "or leave the class out"
    return (
        f"class {names[short[0]]} has {_num(holders[short[0]], units.noun)} to divide, and {sides} need "
        f"one each{others}: add samples; {mend}"
    )


def _num(things: np.ndarray, noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _check_classes(sides: np.ndarray, labels: np.ndarray, names: Mapping[int, str], rule: SplitRule) -> None:
    """Raises SplitError unless every class is on every side."""
    for side in (TRAIN, VALIDATION, TEST):
        present = {int(label) for label in np.unique(labels[sides == side])}
        if missing := [label for label in names if label not in present]:
            counts = ", ".join(
                f"{int(((labels == missing[0]) & (sides == each)).sum())} in {each}"
                for each in (TRAIN, VALIDATION, TEST)
            )
            others = f" ({len(missing)} classes are missing)" if len(missing) > 1 else ""
            mend = 'set kind = "resplit"' if rule.kind == GIVEN else "group = false keeps only equal samples together"
            raise SplitError(
                f"class {names[missing[0]]} is missing from {side}{others}: it has {counts}; add samples of it, "
                f"leave the class out, or {mend}"
            )
