"""`spectral`: the ten largest singular values and their shape, 32 numbers.

The 10 values, descending, zero-padded · each one's share in their sum · 9 relative gaps (σᵢ − σᵢ₊₁) / σᵢ · entropy of
the shares in nats · σ₁ / σ₁₀ · their sum. Shares and sum are of these ten, as `lowrank` knows no others; the sum of all
is the nuclear norm of `matrix_norms`. Values of at most σ₁·max(T, C)·eps count as zero, as numpy's matrix_rank has
it: they are rounding, and their gaps would be noise. A quotient by zero is 0, so that σ₁ / σ₁₀ of a matrix of rank
below ten is 0.
"""

from __future__ import annotations

from functools import partial

import torch

from ..errors import UsageError
from ..keys.digest import Document
from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quotient import quotient
from .singular_values import largest_singular_values

MOST = 10
METHODS = ("auto", "exact", "lowrank")
LOWRANK = {"oversampling": 6, "iterations": 4, "seed": 0}
EXACT_UP_TO = 128
"""`auto` is exact for matrices whose shorter side is at most this: bench/results has the times. Decided by shape
alone, so that the numbers under a key do not depend on the machine; a change raises VERSION."""
VERSION = 1


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 32]`, of exact singular values."""
    return _numbers(batch, batch.singular_values_BK[:, :MOST])


def _lowrank(batch: MatrixBatch, options: Document) -> torch.Tensor:
    return _numbers(batch, largest_singular_values(batch.x_BTC, MOST, **options))


def _auto(batch: MatrixBatch, options: Document) -> torch.Tensor:
    return numbers(batch) if min(batch.x_BTC.shape[1:]) <= EXACT_UP_TO else _lowrank(batch, options)


def _numbers(batch: MatrixBatch, top_BK: torch.Tensor) -> torch.Tensor:
    noise_B1 = top_BK[:, :1] * (max(batch.x_BTC.shape[1:]) * torch.finfo(top_BK.dtype).eps)
    top_BK = top_BK.masked_fill(top_BK <= noise_B1, 0)
    top_BK = torch.nn.functional.pad(top_BK, (0, MOST - top_BK.shape[1]))
    sum_B1 = top_BK.sum(dim=1, keepdim=True)
    share_BK = quotient(top_BK, sum_B1)
    gap_BK = quotient(top_BK[:, :-1] - top_BK[:, 1:], top_BK[:, :-1])
    entropy_B1 = torch.special.entr(share_BK).sum(dim=1, keepdim=True)
    condition_B1 = quotient(top_BK[:, :1], top_BK[:, -1:])
    in_unit = batch.restored(top_BK), batch.restored(sum_B1)
    return torch.cat([in_unit[0], share_BK, gap_BK, entropy_B1, condition_B1, in_unit[1]], dim=1)


def make(
    method: str = "auto", oversampling: int | None = None, iterations: int | None = None, seed: int | None = None
) -> MatrixFunction:
    """The entry point.

    `lowrank` projects on a block Krylov space of `iterations` products with X·Xᵀ of a random matrix of
    10 + `oversampling` columns, seeded; on a k^-0.25 spectrum each value is within 0.1 %. `exact` takes none of the
    three. Raises UsageError.
    """
    if method not in METHODS:
        raise UsageError(f"spectral: method {method!r} is not one of {', '.join(METHODS)}")
    given = {"oversampling": oversampling, "iterations": iterations, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if method == "exact":
            raise UsageError(f"spectral: {name} = {value!r} is of no use to method 'exact': leave it out")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"spectral: {name} {value!r} is not a whole number of at least 0")
    options = LOWRANK | given
    parameters: Document = {"method": method, **({} if method == "exact" else options)}
    chosen = numbers if method == "exact" else partial(_auto if method == "auto" else _lowrank, options=options)
    return MatrixFunction(name="spectral", width=32, numbers=chosen, version=VERSION, parameters=parameters)
