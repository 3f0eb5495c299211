"""Captions as an extractor's input: a sample's caption, and not its bytes, read as token ids.

Axes: n captions, L ids of a row, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..decode.stills import STILL_SUFFIXES
from ..decode.video_file import VIDEO_SUFFIXES
from ..errors import SampleError
from ..keys.digest import Document
from ..keys.recipe import CAPTION

if TYPE_CHECKING:
    import torch

PADDING = -1
"""After a row's ids. No id is negative."""
TEMPLATE = "{caption}{end}"
_STEP = 16
_PARTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionInput:
    """A caption's token ids and the end token, int32 [L]; captions of about equal length share a batch."""

    tokenize: Callable[[str], Sequence[int]] = field(compare=False)
    """A text's ids, without special tokens. Raises SampleError."""
    end_id: int
    """The end token's id."""
    software_name: str
    """What tokenizes."""
    software_version: str
    """Its version."""

    @property
    def kind(self) -> str:
        """`caption`."""
        return CAPTION

    @property
    def typical_rows(self) -> int:
        """One."""
        return 1

    def document(self) -> Document:
        """What is around a caption, and how rows are filled up. The tokenizer is the extractor's."""
        return {
            "kind": self.kind,
            "template": TEMPLATE,
            "padding": {"id": PADDING, "multiple_of": _STEP, "parts_of_power_of_two": _PARTS},
        }

    def software(self) -> Document:
        """The tokenizer's name and version."""
        return {"name": self.software_name, "version": self.software_version}

    def suffixes(self) -> frozenset[str]:
        """Images and videos: captions are theirs."""
        return STILL_SUFFIXES | VIDEO_SUFFIXES

    def read(self, data: bytes, name: str) -> np.ndarray:
        """int32 [L] of a caption's UTF-8. Raises SampleError."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SampleError("decode", f"{name} is not UTF-8", permanent=True) from None
        ids = [*self.tokenize(text), self.end_id]
        row = np.full(row_length(len(ids)), PADDING, np.int32)
        row[: len(ids)] = ids
        return row

    def rows_of(self, item: np.ndarray) -> int | None:
        """None: a caption is one row."""
        return None

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        """[L]."""
        return tuple(item.shape)

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        """No ids."""
        return np.full(shape, PADDING, np.int32)

    def collate(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        """int32 [n, L]."""
        import torch

        return torch.from_numpy(np.stack(items))

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """As it is."""
        return batch


def row_length(num_ids: int) -> int:
    """How long the row of so many ids is: to a multiple of 16, and of long ones of an eighth of the next power of 2.

    So rows have few lengths, each of which is a file of its own in a block, and at most a fifth of a long row is
    padding.
    """
    step = max(_STEP, (1 << (num_ids - 1).bit_length()) // _PARTS)
    return -(-num_ids // step) * step
