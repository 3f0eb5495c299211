"""How a running build tells what it is doing; the command draws it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    stage: str
    """What is being done, in a word."""
    done: int
    """Items done."""
    total: int
    """Items in all; 0 while it is not known."""
    note: str = ""
    """How busy the stages are, or what is at work, now and then; empty in between."""
    left_s: float | None = None
    """Seconds that are left, where the run knows better than from what is done of how many items."""


OnProgress: TypeAlias = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Nobody watches."""
