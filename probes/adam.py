"""Adam and AdamW for the heads of a network, each with moments, steps, learning rate and weight decay of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .network import Network

ADAM, ADAMW = "adam", "adamw"
OPTIMISERS = (ADAM, ADAMW)
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
"""torch's own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Alike:
    """Heads with one learning rate and weight decay, which one call moves."""

    head: int
    """One of them: all have made as many steps."""
    rate: float
    """Learning rate."""
    decay: float
    """Weight decay."""
    spans: list[tuple[int, slice]]
    """Which of the network's tensors, and where in it."""
    state: list[list[torch.Tensor]]
    """Parameters, means and squares there."""


class Adam:
    """torch's fused kernel, the one that its optimisers call, on parameters that are stacked by head."""

    def __init__(self, network: Network, decays: Sequence[float], name: str) -> None:
        """`decays` are each head's. `name` is one of OPTIMISERS: `adam` adds the decay to the gradient."""
        self._move = {ADAM: torch._fused_adam_, ADAMW: torch._fused_adamw_}[name]
        self._network, self._decays = network, list(decays)
        self._means, self._squares = network.zeros(), network.zeros()
        self._num_steps_H = torch.zeros(len(decays), device=network.device)
        self._calls: list[_Alike] = []
        self._rates: list[float] = []

    def step(
        self,
        gradients: Sequence[torch.Tensor],
        rates: Sequence[float],
        scale_H: torch.Tensor | None = None,
        overflows_H: torch.Tensor | None = None,
    ) -> None:
        """Move each head by its learning rate. Gradients are as the network gives them.

        With `scale_H` they are that many times too large, and heads whose `overflows_H` (float32) is 1 stay where they
        are.
        """
        if self._rates != list(rates):
            self._rates = list(rates)
            self._calls = self._by_setting(apart=scale_H is not None)
        self._num_steps_H += 1
        for call in self._calls:
            parameters, means, squares = call.state
            self._move(
                parameters,
                [gradients[tensor][span] for tensor, span in call.spans],
                means,
                squares,
                [],
                [self._num_steps_H[call.head]] * len(parameters),
                lr=call.rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=call.decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=None if scale_H is None else scale_H[call.head],
                found_inf=None if overflows_H is None else overflows_H[call.head],
            )
        if overflows_H is not None:
            self._num_steps_H -= overflows_H

    def keep(self, network: Network, blocks: Sequence[Sequence[int]]) -> None:
        """Go on with these heads alone, which `network` now has in these blocks."""
        index = [head for heads in blocks for head in heads]
        self._network, self._decays = network, [self._decays[head] for head in index]
        self._means, self._squares = self._means.kept(blocks), self._squares.kept(blocks)
        self._num_steps_H = self._num_steps_H[index]
        self._rates = []

    def _by_setting(self, *, apart: bool) -> list[_Alike]:
        """Calls for heads with the same rate and decay, or for each head `apart`."""
        found: dict[tuple[float, float, int], list[tuple[int, slice]]] = {}
        heads: dict[tuple[float, float, int], int] = {}
        for tensor, (first, values) in enumerate(zip(self._network.firsts, self._network.parameters, strict=True)):
            keys = [
                (self._rates[head], self._decays[head], head if apart else 0)
                for head in range(first, first + len(values))
            ]
            start = 0
            for end in range(1, len(keys) + 1):
                if end == len(keys) or keys[end] != keys[start]:
                    heads.setdefault(keys[start], first + start)
                    found.setdefault(keys[start], []).append((tensor, slice(start, end)))
                    start = end
        networks = (self._network, self._means, self._squares)
        return [
            _Alike(
                head=heads[key],
                rate=key[0],
                decay=key[1],
                spans=spans,
                state=[[network.parameters[tensor][span] for tensor, span in spans] for network in networks],
            )
            for key, spans in found.items()
        ]
