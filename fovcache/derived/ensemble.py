"""`ensemble`: spectral, matrix_norms, distribution, frequency and info_theoretic side by side, 67 numbers.

What they share (singular values, sorted values, moments) is computed once; `spectral` is the exact one.
"""

from __future__ import annotations

import torch

from . import distribution, frequency, info_theoretic, matrix_norms, spectral
from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction

_PARTS = (
    spectral.make(method="exact"),
    matrix_norms.make(),
    distribution.make(),
    frequency.make(),
    info_theoretic.make(),
)


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 67]`."""
    return torch.cat([part.numbers(batch) for part in _PARTS], dim=1)


def make() -> MatrixFunction:
    """The entry point. Its version is raised with that of any part."""
    version, width = sum(part.version for part in _PARTS), sum(part.width for part in _PARTS)
    return MatrixFunction(name="ensemble", width=width, numbers=numbers, version=version)
