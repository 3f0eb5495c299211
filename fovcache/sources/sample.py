"""A sample as a source found it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a sample's bytes lie: a file, or a range of one (a member of a tar shard)."""

    path: str
    """The file."""
    offset: int = 0
    """The first byte."""
    size: int | None = None
    """How many bytes; None for the whole file."""

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return Path(self.path).name

    def read(self) -> bytes:
        """The bytes. Raises OSError."""
        with Path(self.path).open("rb", buffering=0) as file:
            if self.size is None:
                return file.read()
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One input item, known by its content."""

    key: str
    """BLAKE3 of its bytes, hexadecimal."""
    uri: str
    """Where it stands in its source, relative to the source's root; `SHARD.tar#MEMBER` for a tar's member."""
    source: int
    """Which of the build's sources, counted from 0."""
    label: int | str | None = None
    """A class: integers keep their values, strings are numbered later."""
    caption: str | None = None
    """A text that belongs to it."""
    group: str | None = None
    """Samples of one group must not be split apart."""
    split: str | None = None
    """`train`, `test`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Something in a source that could not become a sample: its content is unknown, so it has no key."""

    uri: str
    """Where it stands in its source."""
    source: int
    """Which source."""
    reason: str
    """Why, in words."""
    permanent: bool
    """False where trying again may help."""
