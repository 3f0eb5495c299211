"""Vectors that are looked at in blocks, in float64 and centred, so that few of them are held at that size.

Axes: N vectors, B of them in a block, D dimensions, E dimensions in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fovcache.errors import UsageError

MIN_VECTORS = 3
_BLOCK_NUMBERS = 1 << 22
"""Numbers of a block of vectors: 32 MiB at float64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """Vectors with their mean. Make some with `vectors`."""

    x_ND: torch.Tensor
    """float32 or float64, as they are."""
    mean_D: torch.Tensor
    """float64, on `device`."""
    device: torch.device
    """Where sums are made."""

    def __len__(self) -> int:
        return len(self.x_ND)

    @property
    def num_dimensions(self) -> int:
        """D."""
        return self.x_ND.shape[1]

    def raw_blocks(self) -> Iterator[torch.Tensor]:
        """float64 [B, D], as they are."""
        size = max(1, _BLOCK_NUMBERS // self.num_dimensions)
        for begin in range(0, len(self), size):
            yield self.x_ND[begin : begin + size].to(self.device, torch.float64)

    def blocks(self) -> Iterator[torch.Tensor]:
        """float64 [B, D], centred."""
        yield from (block_BD - self.mean_D for block_BD in self.raw_blocks())

    def column_blocks(self) -> Iterator[torch.Tensor]:
        """float64 [N, E], centred."""
        size = max(1, _BLOCK_NUMBERS // len(self))
        for begin in range(0, self.num_dimensions, size):
            some = slice(begin, begin + size)
            yield self.x_ND[:, some].to(self.device, torch.float64) - self.mean_D[some]

    def rows(self, begin: int, end: int) -> torch.Tensor:
        """float64 [end - begin, D], centred."""
        return self.x_ND[begin:end].to(self.device, torch.float64) - self.mean_D


def vectors(x_ND: torch.Tensor, name: str, device: torch.device | str = "cpu") -> Vectors:
    """The rows of `x_ND`, which `name` names. Raises UsageError for fewer than 3, and where some are not finite."""
    num_vectors = len(x_ND)
    if num_vectors < MIN_VECTORS:
        raise UsageError(
            f"{name}: {num_vectors} vectors say nothing of how features are spread; at least {MIN_VECTORS} are needed, "
            "and more than there are dimensions to see a collapse: take more samples, or another --split"
        )
    found = torch.device(device)
    first_D = x_ND[0].to(found, torch.float64)
    moved, mean_D = Vectors(x_ND=x_ND, mean_D=first_D, device=found), torch.zeros_like(first_D)
    for block_BD in moved.blocks():  # so that the mean of equal numbers is that number
        mean_D += block_BD.sum(0)
    mean_D = first_D + mean_D / num_vectors
    if not torch.isfinite(mean_D).all():
        num_bad = int((~torch.isfinite(x_ND).all(1)).sum())
        raise UsageError(
            f"{name}: {num_bad} of {num_vectors} vectors hold NaN or infinity; leave that layer out (--layers), or "
            "build it anew with --compute-dtype fp32 and --store-dtype fp32"
        )
    return Vectors(x_ND=x_ND, mean_D=mean_D, device=found)
