"""What a step comes to, and what is copied so that it can be undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..saving.random_states import RandomStates


class NonFiniteError(Exception):
    """A number that must be finite is not; nothing was changed by the step that found it."""


class DoesNotFitError(Exception):
    """The step needs more memory than there is, and may not be made smaller; nothing was changed by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimiser step."""

    step: int
    """Its number, from 1."""
    samples_seen: int
    """With its own."""
    values: Mapping[str, float] = field(hash=False)
    """Means over the samples of the whole step, before it; NaN for a value that no sample has."""
    learning_rate: float
    """Of this step."""
    gradient_norm: float
    """L2 norm of all gradients together, before clipping."""
    was_left_out: bool
    """Whether float16 gradients overflowed, so that the parameters stayed as they were."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """All that steps change, copied."""

    tensors: Mapping[str, torch.Tensor]
    """Parameters, and the buffers that a state dict holds."""
    optimizer: Mapping[str, Any]
    """Its state dict."""
    scaler: Mapping[str, Any]
    """The loss scale's."""
    random: RandomStates
    """Of all generators."""
    steps: int
    """Done."""
    samples_seen: int
    """By them."""
    micro_batch_size: int | None
    """At that time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Before:
    """What a step changes even when it is not finished."""

    random: torch.Tensor
    """torch's generator of the CPU."""
    accelerator: torch.Tensor | None
    """Of a CUDA device."""
    buffers: list[torch.Tensor]
    """Copies."""
