"""What passes through a build's pipeline: units of samples, which make up slots, which make up blocks.

A row's bits depend on the size of the batch that it was computed in, so batches are cut at fixed slots inside a block,
and a sample that failed keeps its place, filled with a placeholder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import SampleError
from ..extract.extractor import Item
from ..sources.sample import Location
from .plan import Block
from .request import Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(slots=True, kw_only=True)
class Unit:
    """Consecutive samples of one slot that come from the same bytes: nearly always one; more for windows of a video."""

    work: Work
    slot: int
    keys: tuple[str, ...]
    locations: tuple[Location, ...]
    data: bytes | None = None
    """The bytes, between fetching and decoding; None for what is decoded from its file."""
    items: Sequence[Item | SampleError] = ()
    """After decoding, one for each key."""

    @property
    def location(self) -> Location:
        """Where the bytes lie."""
        return self.locations[0]

    @property
    def size_bytes(self) -> int:
        """What the unit holds in memory."""
        held = len(self.data) if self.data is not None else 0
        return held + sum(getattr(item, "nbytes", 0) for item in self.items)


@dataclass(slots=True, kw_only=True)
class Slot:
    """The samples of one batch, decoded."""

    work: Work
    keys: list[str] = field(default_factory=list)
    items: list[Item | SampleError] = field(default_factory=list)


def units_of(work: Work, locations: Mapping[str, Location]) -> Iterator[Unit]:
    """The units of a block, in order."""
    for slot in range(work.num_slots):
        keys = work.block.keys[slot * work.slot_size : (slot + 1) * work.slot_size]
        start = 0
        while start < len(keys):
            stop = start + 1
            while stop < len(keys) and locations[keys[stop]].content == locations[keys[start]].content:
                stop += 1
            held = keys[start:stop]
            yield Unit(work=work, slot=slot, keys=held, locations=tuple(locations[key] for key in held))
            start = stop
