"""Weight matrices as an extractor's input: a sample is a LoRA's safetensors file, in any of the usual key styles.

Axes: n samples, F numbers of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..keys.digest import Document
from .lora_file import READING, read_lora
from .lora_template import LoraTemplate

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixInput:
    """The factors of a LoRA's modules, one float32 vector a sample; files of equal rank share a batch."""

    template: LoraTemplate
    """The modules that each file has to have."""
    encoder: str
    """The encoder's name, for errors."""

    @property
    def kind(self) -> str:
        """`matrices`."""
        return "matrices"

    @property
    def typical_rows(self) -> int:
        """One."""
        return 1

    def document(self) -> Document:
        """Which matrices, and as what they are read. The style of a file's names is no part of it."""
        return {
            "kind": self.kind,
            "adapter": "lora",
            "modules": self.template.digest,
            "dtype": "float32",
            "reading": READING,
        }

    def software(self) -> Document:
        """The reader is ours: its version."""
        return {"name": "fovcache safetensors", "version": str(READING)}

    def suffixes(self) -> frozenset[str]:
        """Safetensors files."""
        return frozenset({".safetensors"})

    def read(self, data: bytes, name: str) -> np.ndarray:
        """float32 [F], as `read_lora` orders it. Raises SampleError."""
        return read_lora(data, self.template, self.encoder)

    def rows_of(self, item: np.ndarray) -> int | None:
        """None: a sample is one row."""
        return None

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        """[F], which tells the rank."""
        return tuple(item.shape)

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        """Zeros."""
        return np.zeros(shape, np.float32)

    def collate(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        """float32 [n, F]."""
        import torch

        return torch.from_numpy(np.stack(items))

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """As it is."""
        return batch
