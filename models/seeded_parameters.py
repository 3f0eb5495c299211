"""First values of a model's parameters: each a function of the run's seed and its own name and shape.

So two models that differ in one part begin equal in all others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fovcache.extract.seeded_init import seeded_tensors


def fill(
    module: nn.Module, seed: int, *, deviations: Mapping[str, float] | None = None, without: str | None = None
) -> None:
    """Fill the parameters of `module` in place, but those whose names begin with `without`.

    N(0, deviation²) for those that `deviations` names; the others by the rule of `random:SEED`: matrices and kernels
    N(0, 1/fan_in), biases 0, norms' weights 1.
    """
    for name, parameter in module.named_parameters():
        if without is not None and name.startswith(without):
            continue
        own = _own_seed(seed, name)
        shape = tuple(parameter.shape)
        if deviations is not None and name in deviations:
            values = np.random.Generator(np.random.Philox(own)).standard_normal(shape, dtype=np.float32)
            values *= np.float32(deviations[name])
        else:
            values = seeded_tensors({name: shape}, own)[name]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))


def _own_seed(seed: int, name: str) -> int:
    state = np.random.SeedSequence(seed, spawn_key=tuple(name.encode())).generate_state(1, np.uint64)
    return int(state[0])
