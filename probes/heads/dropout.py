"""Dropout's masks, from a generator of a head's own and few random bits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

_WORD = 8
"""Bytes that the generator gives at a time."""
_LEVELS = 2**16
"""Shares are rounded to one in so many."""


class Dropout:
    """Masks for problems whose batches have the same size; each problem's are the same whatever the others are.

    Made on the CPU, so that a head sees the same masks on every device. Axes: P problems, O units, B samples.
    """

    def __init__(self, share: float, widths: Sequence[int], seeds: Sequence[int], device: torch.device) -> None:
        """`share` of the units of each layer is dropped. `seeds` are the problems' `initialisation_seed`."""
        self._share, self._widths, self._device = share, tuple(widths), device
        self._generators = [torch.Generator().manual_seed(_stream(seed)) for seed in seeds]

    def masks(self, num_samples: int) -> list[torch.Tensor]:
        """float32 [P, O, B] for each layer: 0 for what is dropped, else 1 / (1 - share). None where share is 0."""
        if not self._share:
            return []
        num_units = sum(self._widths) * num_samples
        halves = self._share == 0.5
        num_bytes = -(-num_units // 8) if halves else 2 * num_units
        words = [
            torch.empty(-(-num_bytes // _WORD), dtype=torch.int64).random_(-(2**63), None, generator=generator)
            for generator in self._generators
        ]
        drawn = torch.stack(words)
        if self._device.type == "cuda":
            drawn = drawn.pin_memory()
        drawn = drawn.to(self._device, non_blocking=True)
        flat = _by_bit(drawn) if halves else _by_level(drawn, self._share)
        flat = flat[:, :num_units]
        parts = flat.split([width * num_samples for width in self._widths], dim=1)
        return [part.reshape(len(part), -1, num_samples) for part in parts]

    def keep(self, problems: Sequence[int]) -> None:
        """Go on with these alone."""
        self._generators = [self._generators[each] for each in problems]


def _by_bit(words: torch.Tensor) -> torch.Tensor:
    """float32 [P, bits]: 0 or 2."""
    octets = words.view(torch.uint8)
    return _bits(words.device).index_select(0, octets.flatten().int()).view(len(words), -1)


def _by_level(words: torch.Tensor, share: float) -> torch.Tensor:
    kept = words.view(torch.int16) >= round(share * _LEVELS) - _LEVELS // 2
    return kept.to(torch.float32).mul_(1 / (1 - share))


@cache
def _bits(device: torch.device) -> torch.Tensor:
    """float32 [256, 8]: a byte's bits, doubled."""
    octets = torch.arange(256)[:, None] >> torch.arange(8)
    return ((octets & 1) * 2).to(device, torch.float32)


def _stream(seed: int) -> int:
    """Another than that of the weights, which `seed` itself begins."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0] >> 1)
