"""What the core asks of a representation: a function from a layer's matrix to a few numbers.

Axes: B samples, T tokens (of all frames; places, for a map), C channels, F numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError, nearest
from ..keys.digest import Document

if TYPE_CHECKING:
    import torch

ENTRY_POINT_GROUP = "fovcache.representations"


class Representation(Protocol):
    """A frozen function of one matrix. Its name, version and parameters are in the key of what it gives."""

    @property
    def name(self) -> str:
        """The name users select it by."""

    @property
    def version(self) -> int:
        """Raised when a change of the implementation changes its numbers."""

    @property
    def parameters(self) -> Document:
        """Everything that can be chosen and decides its numbers."""

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        """F for matrices of this shape."""

    def compute(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """`[B, F]` of float32 `[B, T, C]`, on the device that it is on; float64 of float64.

        A sample's row does not depend on the others in its batch beyond the last bits. Finite for finite input.
        """


def known_representations() -> tuple[str, ...]:
    """The names of all that are installed, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)}))


def resolve_representation(name: str, parameters: Mapping[str, Any] | None = None) -> Representation:
    """The representation of a name, an entry point called with `parameters`.

    Raises UsageError with the nearest names when there is none, or for parameters that it does not have.
    """
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        raise UsageError(f"there is no representation named {name!r}{nearest(name, sorted(points))}")
    make = points[name].load()
    try:
        representation: Representation = make(**(parameters or {}))
    except TypeError as error:
        raise UsageError(f"representation {name!r} does not take these parameters: {error}") from None
    return representation
