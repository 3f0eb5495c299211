"""A cached row as the matrix that representations are computed of: tokens × channels.

Axes: n samples, T tokens (of all frames; places, for a map), C channels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..keys.digest import Document

if TYPE_CHECKING:
    import torch


def has_frames(recipe: Document) -> bool:
    """Whether the rows of a recipe's document begin with an axis of frames: a clip's do, also of one frame.

    Of a clip's document `rotation` is a part, of a still's it is not; a weight matrix is one without frames, and a
    derived feature's row is one vector.
    Raises UsageError for a kind of input that is not known.
    """
    kind = recipe["input"].get("kind")
    if kind == "frames":
        return "rotation" in recipe["input"]["clip"]
    if kind in ("matrices", "feature"):
        return False
    raise UsageError(
        f"rows of the input kind {kind!r} have no known axes: representations are computed of frames, of weight "
        "matrices and of features"
    )


def matrices(rows: torch.Tensor, *, has_frames: bool) -> torch.Tensor:
    """`[n, T, C]` of the stored rows `[n, …]` of one feature, in their dtype; a view where it can be.

    A vector `[C]` is one token, `[tokens, C]` is as it is, and of a map `[C, *space]` each place is a token. With
    frames, the tokens of one frame follow those of the frame before. Raises UsageError for a row without channels.
    """
    num_leading = 2 if has_frames else 1
    if rows.dim() <= num_leading or 0 in rows.shape[1:]:
        raise UsageError(f"rows of shape {tuple(rows.shape[1:])} have no channels: there is no matrix to represent")
    if rows.dim() > num_leading + 2:
        rows = rows.movedim(num_leading, -1)
    return rows.reshape(len(rows), math.prod(rows.shape[1:-1]), rows.shape[-1])
