"""Adam and AdamW for the heads of a network, each with moments, steps, learning rate and weight decay of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .network import Network

ADAM, ADAMW = "adam", "adamw"
OPTIMISERS = (ADAM, ADAMW)
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
"""torch's own."""


class Adam:
    """torch's fused kernel, the one that its optimisers call, on parameters that are stacked by head."""

    def __init__(self, network: Network, decays: Sequence[float], name: str) -> None:
        """`decays` are each head's. `name` is one of OPTIMISERS: `adam` adds the decay to the gradient."""
        self._network, self._decays, self._adds_decay = network, list(decays), name == ADAM
        self._move = {ADAM: torch._fused_adam_, ADAMW: torch._fused_adamw_}[name]
        self._means, self._squares = network.zeros(), network.zeros()
        self._directions: list[torch.Tensor] = []
        self._num_steps_H = torch.zeros(len(decays), device=network.device)
        self._rates: list[float] = []

    def step(
        self,
        gradients: list[torch.Tensor],
        rates: Sequence[float],
        scale_H: torch.Tensor | None = None,
        overflows_H: torch.Tensor | None = None,
    ) -> None:
        """Move each head by its learning rate. Gradients are as the network gives them, and are written over.

        With `scale_H` they are that many times too large, and heads whose `overflows_H` (float32) is 1 stay where they
        are.
        """
        self._num_steps_H += 1
        if scale_H is not None and overflows_H is not None:
            self._step_apart(gradients, rates, scale_H, overflows_H)
        elif len(set(rates)) == len(set(self._decays)) == 1:
            self._call(self._network.parameters, gradients, rate=rates[0], decay=self._decays[0])
        else:
            self._step_unlike(gradients, rates)

    def keep(self, network: Network, blocks: Sequence[Sequence[int]]) -> None:
        """Go on with these heads alone, which `network` now has in these blocks."""
        index = [head for heads in blocks for head in heads]
        self._network, self._decays = network, [self._decays[head] for head in index]
        self._means, self._squares = self._means.kept(blocks), self._squares.kept(blocks)
        self._num_steps_H = self._num_steps_H[index]
        self._directions, self._rates = [], []

    def _step_apart(
        self,
        gradients: Sequence[torch.Tensor],
        rates: Sequence[float],
        scale_H: torch.Tensor,
        overflows_H: torch.Tensor,
    ) -> None:
        """Head by head: those that overflowed have made fewer steps."""
        stacked = (self._network.parameters, gradients, self._means.parameters, self._squares.parameters)
        for head, (rate, decay) in enumerate(zip(rates, self._decays, strict=True)):
            own = [
                [
                    values[head - first : head - first + 1]
                    for first, values in zip(self._network.firsts, tensors, strict=True)
                    if first <= head < first + len(values)
                ]
                for tensors in stacked
            ]
            self._call(*own, head=head, rate=rate, decay=decay, scale=scale_H[head], overflow=overflows_H[head])
        self._num_steps_H -= overflows_H

    def _step_unlike(self, gradients: list[torch.Tensor], rates: Sequence[float]) -> None:
        """Where rates or decays differ: one call gives directions, as moves of zeros by a rate of 1."""
        if self._rates != list(rates):
            self._rates = list(rates)
            self._per_head = self._rates_and_decays()
            self._directions = self._network.zeros().parameters
        parameters, directions = self._network.parameters, self._directions
        if self._adds_decay:
            for gradient, values, (_, decay) in zip(gradients, parameters, self._per_head, strict=True):
                gradient.addcmul_(values, decay)
        for direction in directions:
            direction.zero_()
        self._call(directions, gradients, rate=1.0, decay=0.0)
        for values, direction, (rate, decay) in zip(parameters, directions, self._per_head, strict=True):
            if not self._adds_decay:
                values.mul_(1 - rate * decay)
            values.addcmul_(direction, rate)

    def _rates_and_decays(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each tensor's heads, as they are multiplied with it."""
        found = []
        for first, values in zip(self._network.firsts, self._network.parameters, strict=True):
            heads, shape = slice(first, first + len(values)), (-1, *[1] * (values.dim() - 1))
            rates, decays = (
                torch.tensor(each[heads], device=values.device).view(shape) for each in (self._rates, self._decays)
            )
            found.append((rates, decays))
        return found

    def _call(
        self,
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor],
        means: list[torch.Tensor] | None = None,
        squares: list[torch.Tensor] | None = None,
        *,
        rate: float,
        decay: float,
        head: int = 0,
        scale: torch.Tensor | None = None,
        overflow: torch.Tensor | None = None,
    ) -> None:
        """torch's kernel, on moments of all heads unless some are given; `head` has made as many steps as they."""
        self._move(
            parameters,
            gradients,
            self._means.parameters if means is None else means,
            self._squares.parameters if squares is None else squares,
            [],
            [self._num_steps_H[head]] * len(parameters),
            lr=rate,
            beta1=_BETA1,
            beta2=_BETA2,
            weight_decay=decay,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=scale,
            found_inf=overflow,
        )
