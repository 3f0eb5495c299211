"""The head `labels`: a class for each frame, from the language model's state after it.

Axes: B samples, T frames, W the language model's width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from fovcache.errors import UsageError
from fovcache.trainable import InputInfo

from .look import Look
from .names import FRAME_LABELS
from .settings import LABELS, NO_LABEL

_NONE, _UNKNOWN = -1, -2


class LabelsHead(nn.Module):
    """A Linear, and cross-entropy, mean over a sample's labelled frames."""

    classes: torch.Tensor

    def __init__(self, width: int, num_frames: int, alphabet: str, info: InputInfo) -> None:
        """Raises UsageError where texts are shorter than clips."""
        super().__init__()
        if info.row_shape[0] < num_frames:
            raise UsageError(
                f"{FRAME_LABELS}: the longest text has {info.row_shape[0]} characters and clips have {num_frames} "
                "frames; expected a character a frame"
            )
        self.alphabet = alphabet
        self.linear = nn.Linear(width, len(alphabet))
        classes = torch.full((256,), _UNKNOWN)
        classes[[ord(letter) for letter in alphabet]] = torch.arange(len(alphabet))
        classes[ord(NO_LABEL)] = _NONE
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, look: Look, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`labels` and `accuracy`, [B] each. Raises UsageError for texts that are no labels."""
        labels_BT = self._labels(batch[FRAME_LABELS], look.states_BTW.shape[1])
        logits = self.linear(look.states_BTW).float()
        each = functional.cross_entropy(logits.transpose(1, 2), labels_BT, ignore_index=_NONE, reduction="none")
        is_labelled = labels_BT != _NONE
        num_labelled = is_labelled.sum(dim=1)
        right = (logits.detach().argmax(dim=-1) == labels_BT) & is_labelled
        return {LABELS: each.sum(dim=1) / num_labelled, "accuracy": right.sum(dim=1) / num_labelled}

    def _labels(self, bytes_BL: torch.Tensor, num_frames: int) -> torch.Tensor:
        is_character = (bytes_BL >= 0) & (bytes_BL < len(self.classes))
        labels_BT = self.classes[bytes_BL[:, :num_frames].clamp(0, len(self.classes) - 1)]
        fits = (is_character.sum(dim=1) == num_frames) & is_character[:, :num_frames].all(dim=1)
        fits &= (labels_BT != _UNKNOWN).all(dim=1) & (labels_BT != _NONE).any(dim=1)
        if not bool(fits.all()):
            row = bytes_BL[int((~fits).int().argmax())].tolist()
            text = bytes(number for number in row if 0 <= number < 256).decode(errors="replace")
            raise UsageError(
                f"{FRAME_LABELS}: {text!r} is no text of {num_frames} labels: a character of {self.alphabet!r} a "
                f"frame, {NO_LABEL!r} for a frame without one, and at least one label"
            )
        return labels_BT
