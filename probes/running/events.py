"""What running cells tells while it goes on, and how it is written on a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from fovcache.typed_json import revive

from ..result import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """What is being done."""

    stage: str
    """In a few words."""
    cell: int
    """A cell that it is done for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A cell has a trial, whose predictions are on disk."""

    cell: int
    """Its place in the grid."""
    trial: Trial
    """Named as the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A cell has none."""

    cell: int
    """Its place in the grid."""
    reason: str
    """What was raised, or what became of the process."""


Event: TypeAlias = AtWork | Done | Failed
_KINDS: Mapping[str, type[Event]] = {"at_work": AtWork, "done": Done, "failed": Failed}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_message(event: Event) -> dict[str, Any]:
    """As JSON."""
    return {_NAMES[type(event)]: asdict(event)}


def event_of(message: Mapping[str, Any]) -> Event | None:
    """What `event_message` made, or None for another message. Raises what `revive` does."""
    for name, kind in _KINDS.items():
        if name in message:
            event: Event = revive(kind, message[name])
            return event
    return None
