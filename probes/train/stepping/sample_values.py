"""What a module says of each sample: checked, fetched from the device, and averaged over samples and processes.

Axes: B samples, V values by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fovcache.errors import UsageError
from fovcache.trainable import COARSE, FINE, LOSS, RATIO

from .processes import Processes


def stacked(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """float32 [V, B], without gradients."""
    return torch.stack([each.detach() for each in values.values()]).float()


def check_values(values: Mapping[str, torch.Tensor], num_samples: int) -> None:
    """Raise UsageError unless there is a loss, and each value is one number a sample."""
    if LOSS not in values:
        raise UsageError(f"the module gives {', '.join(values) or 'nothing'}; expected `loss` among its values")
    for name, each in values.items():
        if tuple(each.shape) != (num_samples,):
            raise UsageError(
                f"the module's value {name!r} has shape {tuple(each.shape)}, expected ({num_samples},): one number a "
                "sample, not their mean"
            )


def means(names: Sequence[str], parts_VB: Sequence[np.ndarray], processes: Processes) -> dict[str, float]:
    """Means over the samples of all parts and processes, each over the samples that have the value; else NaN.

    A loss that is NaN makes the mean NaN: every sample has one. Summed exactly, so that the parts do not matter. With
    RATIO, where it can be had.
    """
    values_VB = parts_VB[0] if len(parts_VB) == 1 else np.concatenate(parts_VB, axis=1)
    is_absent = np.isnan(values_VB)
    if LOSS in names:
        is_absent[list(names).index(LOSS)] = False
    if not is_absent.any():
        totals, counts = [_sum(row) for row in values_VB], [values_VB.shape[1]] * len(names)
    else:
        totals = [_sum(row[~absent]) for row, absent in zip(values_VB, is_absent, strict=True)]
        counts = (~is_absent).sum(axis=1).tolist()
    sums = processes.sums([*totals, *counts])
    found = {
        name: total / count if count else math.nan
        for name, total, count in zip(names, sums[: len(names)], sums[len(names) :], strict=True)
    }
    if found.get(FINE, 0.0) > 0 and COARSE in found:
        found[RATIO] = found[COARSE] / found[FINE]
    return found


def _sum(row: np.ndarray) -> float:
    try:
        return math.fsum(row.tolist())
    except (OverflowError, ValueError):  # an infinity beside its opposite
        return math.nan
