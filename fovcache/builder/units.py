"""What passes through a build's pipeline: units of samples, which make up slots, which make up blocks.

A row's bits depend on the size of the batch that it was computed in, so batches are cut at fixed slots inside a block,
and a sample that failed keeps its place, filled with a placeholder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import SampleError
from ..extract.extractor import InputSpec, Item
from ..sources.sample import Located
from .plan import Block
from .request import Resolved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """A block to compute, and what to compute it with."""

    resolved: Resolved
    """The encoder with its recipe, features and input."""
    block: Block
    """The samples and their slots."""
    slot_size: int
    """Samples in a full slot: the batch size that the build began with."""
    dataset: str | None
    """The dataset that it is computed for; None while some of its samples are not known yet."""

    @property
    def num_slots(self) -> int:
        """Batches that the block is cut into."""
        return -(-len(self.block.keys) // self.slot_size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """A slot of a block, of one encoder; the same object for all samples in it."""

    work: Work
    """The block."""
    slot: int
    """The slot's number in it."""

    @property
    def num_samples(self) -> int:
        """Samples in the slot."""
        size = self.work.slot_size
        return min(size, len(self.work.block.keys) - self.slot * size)


@dataclass(slots=True, kw_only=True)
class Unit:
    """Consecutive samples that come from the same bytes: nearly always one; more for windows of a video. Or captions.

    They are decoded once, for every encoder that wants them.
    """

    keys: tuple[str, ...]
    """The samples."""
    locations: tuple[Located, ...]
    """Where each lies."""
    specs: tuple[InputSpec, ...]
    """What each encoder reads them as."""
    places: tuple[Place, ...] = ()
    """Where they belong, for each encoder."""
    data: bytes | None = None
    """The bytes, between fetching and decoding; None for what is decoded from its file."""
    items: Sequence[Sequence[Item | SampleError]] = ()
    """After decoding: for each encoder one for each key."""

    @property
    def location(self) -> Located:
        """Where the bytes lie."""
        return self.locations[0]

    @property
    def size_bytes(self) -> int:
        """What the unit holds in memory; encoders with the same geometry share their items."""
        held = len(self.data) if self.data is not None else 0
        arrays = {id(item): getattr(item, "nbytes", 0) for items in self.items for item in items}
        return held + sum(arrays.values())


@dataclass(slots=True, kw_only=True)
class Slot:
    """The samples of one batch of one encoder, decoded."""

    work: Work
    keys: list[str] = field(default_factory=list)
    items: list[Item | SampleError] = field(default_factory=list)


def units_of(chains: Sequence[Iterable[Work]], locations: Mapping[str, Located]) -> Iterator[Unit]:
    """The units of blocks. Each chain holds one encoder's, whose order is kept; what several encoders want next of the
    same sample is one unit. Encoders differ in how many samples make a block, and in what a killed build has left."""
    merged = _merged([_placed(works) for works in chains], locations)
    for (_, places), group in itertools.groupby(merged, key=lambda each: (locations[each[0]].content, each[1])):
        keys = tuple(key for key, _ in group)
        yield Unit(
            keys=keys,
            locations=tuple(locations[key] for key in keys),
            specs=tuple(place.work.resolved.spec for place in places),
            places=places,
        )


def _placed(works: Iterable[Work]) -> Iterator[tuple[str, Place]]:
    for work in works:
        for slot in range(work.num_slots):
            place = Place(work=work, slot=slot)
            for key in work.block.keys[slot * work.slot_size : (slot + 1) * work.slot_size]:
                yield key, place


def _merged(
    chains: Sequence[Iterator[tuple[str, Place]]], locations: Mapping[str, Located]
) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """Keys with their places in every chain whose turn it is; chains in the order of `locations` meet at each key."""
    if len(chains) == 1:
        yield from ((key, (place,)) for key, place in chains[0])
        return
    rank = {key: number for number, key in enumerate(locations)}
    heads = {number: head for number, chain in enumerate(chains) if (head := next(chain, None)) is not None}
    while heads:
        key = min((key for key, _ in heads.values()), key=rank.__getitem__)
        turns = [number for number, (head, _) in heads.items() if head == key]
        yield key, tuple(heads[number][1] for number in turns)
        for number in turns:
            following = next(chains[number], None)
            if following is None:
                del heads[number]
            else:
                heads[number] = following
