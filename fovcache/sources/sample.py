"""A sample as a source found it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from ..decode.sampling import WHOLE, Window
from ..keys.digest import bytes_digest, file_digest
from .place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a sample's bytes lie: a file, or a range of one (a member of a tar shard), and a window of its time."""

    place: Place
    """The file, which for a URL is only here while it is needed."""
    content: str
    """BLAKE3 of the bytes, hexadecimal."""
    suffix: str
    """The ending that says what they are, lower case and with the dot."""
    offset: int = 0
    """The first byte."""
    size: int | None = None
    """How many bytes; None for the whole file."""
    window: Window = WHOLE
    """The part of a video that the sample is."""

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return self.place.name

    def read(self) -> bytes:
        """The bytes. Raises OSError."""
        with Path(self.place.path).open("rb", buffering=0) as file:
            if self.size is None:
                return file.read()
            file.seek(self.offset)
            return file.read(self.size)

    def digest(self) -> str:
        """BLAKE3 of the bytes as they are now, which may be more than fit in memory. Raises OSError."""
        return file_digest(self.place.path) if self.size is None else bytes_digest(self.read())


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What encoders of captions read instead of a sample's bytes. It stands in memory: nothing is fetched for it."""

    text: str | None
    """None for samples without one."""
    place: ClassVar[Place] = Place(where="")
    """No file's."""
    suffix: ClassVar[str] = ""
    content: ClassVar[str] = ""
    """The same for all: one unit of work can hold many."""


Located: TypeAlias = Location | Caption
"""Where what an encoder reads of a sample is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One input item, known by its content."""

    key: str
    """BLAKE3 of its bytes, hexadecimal; for a window of a video, of that and of its times."""
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
