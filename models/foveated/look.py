"""One pass of the language model over the frames, and what came of it.

Axes: B samples, T frames, N tokens of a frame, L tokens of a caption, W the language model's width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Look(NamedTuple):
    """What one pass gave."""

    states_BTW: torch.Tensor
    """The language model's states after each frame."""
    tail_BLW: torch.Tensor
    """Its states after each token that follows the frames: a caption's, or none."""
    entropy_BT: torch.Tensor
    """Of attention, divided by ln N."""
    weights_BTN: torch.Tensor
    """Attention, mean over heads."""
