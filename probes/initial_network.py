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
    device: torch.device | str = "cpu",
) -> Network:
    """Heads for problems of `dims` columns, as many `copies` of each problem's, with hidden layers of `widths`.

    The weights are those of `torch.manual_seed(seed)` and then nn.Linear after nn.Linear, drawn on the CPU: the same
    on every device.
    """
    drawn = [_drawn([dim, *widths, num_classes], seed) for dim, seed in zip(dims, seeds, strict=True)]
    repeats = torch.tensor(list(copies))
    layers = []
    for number in range(len(widths) + 1):
        weights = [one[number][0] for one in drawn]
        biases = torch.stack([one[number][1] for one in drawn]).repeat_interleave(repeats, 0)
        if number == 0:
            stacked = [each.expand(num, -1, -1).clone() for each, num in zip(weights, copies, strict=True)]
        else:
            stacked = [torch.stack(weights).repeat_interleave(repeats, 0)]
        layers.append(
            Layer(
                weights=[each.to(device) for each in stacked],
                bias_HO=biases.to(device),
                norm=_norm(biases, device) if number < len(widths) else None,
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


def _norm(like: torch.Tensor, device: torch.device | str) -> Norm:
    ones, zeros = torch.ones_like(like, device=device), torch.zeros_like(like, device=device)
    return Norm(weight_HO=ones, bias_HO=zeros, mean_HO=zeros.clone(), variance_HO=ones.clone())
