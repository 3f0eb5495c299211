"""First weights: those that torch gives its own layers under the same seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from .network import Layer, Network, Norm


def initial_network(
    dims: Sequence[int],
    widths: Sequence[int],
    num_classes: int,
    seeds: Sequence[int],
    copies: Sequence[int],
    blocks: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> Network:
    """Heads for problems of `dims` columns, as many `copies` of each problem's, with hidden layers of `widths`.

    `blocks` are the problems' numbers, rising, divided as the network is to have them. The weights are those of
    `torch.manual_seed(seed)` and then nn.Linear after nn.Linear, drawn on the CPU: the same on every device.
    """
    drawn = [_drawn([dim, *widths, num_classes], seed) for dim, seed in zip(dims, seeds, strict=True)]

    def stacked(layer: int, part: int, problems: Sequence[int]) -> torch.Tensor:
        values = torch.stack([drawn[problem][layer][part] for problem in problems])
        return values.repeat_interleave(torch.tensor([copies[problem] for problem in problems]), 0).to(device)

    layers, every = [], range(len(dims))
    for number in range(len(widths) + 1):
        bias_HO = stacked(number, 1, every)
        layers.append(
            Layer(
                weights=[stacked(number, 0, problems) for problems in (blocks if number == 0 else [every])],
                bias_HO=bias_HO,
                norm=_norm(bias_HO) if number < len(widths) else None,
            )
        )
    return Network(layers)


def _drawn(sizes: Sequence[int], seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for below, units in itertools.pairwise(sizes):
        weight_OI = nn.init.kaiming_uniform_(torch.empty(units, below), a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(below)
        found.append((weight_OI, torch.empty(units).uniform_(-bound, bound, generator=generator)))
    return found


def _norm(like: torch.Tensor) -> Norm:
    ones, zeros = torch.ones_like(like), torch.zeros_like(like)
    return Norm(weight_HO=ones, bias_HO=zeros, mean_HO=zeros.clone(), variance_HO=ones.clone())
