"""Loss scaling for float16, as torch.amp.GradScaler does it, for each head by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_START = 2.0**16
_UP, _DOWN = 2.0, 0.5
_INTERVAL = 2000
"""Steps in a row without an overflow after which a scale grows."""


class LossScale:
    """A scale for each of H heads; nothing here waits for the device."""

    def __init__(self, num_heads: int, device: torch.device) -> None:
        self.scale_H = torch.full((num_heads,), _START, device=device)
        self._num_good_H = torch.zeros(num_heads, device=device)

    def overflows(self, gradients: Sequence[torch.Tensor], firsts: Sequence[int]) -> torch.Tensor:
        """float32 [H]: 1 for heads some of whose gradients are not finite. `firsts`: each tensor's first head."""
        found_H = torch.zeros_like(self.scale_H)
        for first, values in zip(firsts, gradients, strict=True):
            own = found_H[first : first + len(values)]
            own.clamp_(min=(~values.flatten(1).isfinite().all(1)).float())
        return found_H

    def update(self, overflows_H: torch.Tensor) -> None:
        """After a step: halve the scale of heads that overflowed, double that of those long without."""
        self._num_good_H.add_(1).mul_(1 - overflows_H)
        grows_H = self._num_good_H >= _INTERVAL
        self.scale_H *= torch.where(overflows_H > 0, _DOWN, torch.where(grows_H, _UP, 1.0))
        self._num_good_H *= ~grows_H

    def keep(self, heads: Sequence[int]) -> None:
        """Go on with these heads alone."""
        self.scale_H, self._num_good_H = self.scale_H[list(heads)], self._num_good_H[list(heads)]
