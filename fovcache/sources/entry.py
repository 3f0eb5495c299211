"""What a source lists before its bytes are known: a row of a manifest, a line of a URL list."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Entry:
    """Something listed, or why it cannot become a sample. Not frozen, as a million of them are made at once."""

    uri: str
    """As the dataset records it: relative to the source's root for files below it, without secrets for URLs."""
    source: int
    """Which of the build's sources, counted from 0."""
    place: str = ""
    """Where the bytes are: an absolute path, or the whole URL, which may hold secrets; empty for a fault."""
    label: int | str | None = None
    """A class: integers keep their values, strings are numbered later."""
    caption: str | None = None
    """A text that belongs to it."""
    group: str | None = None
    """Samples of one group must not be split apart."""
    split: str | None = None
    """`train`, `test`, …"""
    start_s: float | None = None
    """Where its window starts, in seconds, at least 0; None for all of it."""
    end_s: float | None = None
    """Where its window ends, in seconds, after the start; None for the end."""
    fault: str = ""
    """Why it cannot become a sample, for good; empty when it may."""

    @property
    def is_remote(self) -> bool:
        """Whether its bytes must be fetched."""
        return self.place[:4].lower() == "http"
