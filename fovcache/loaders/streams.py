"""CUDA tensors that are made under one stream and used under another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch

Tensors: TypeAlias = tuple[torch.Tensor, ...]


def follow_stream(items: Iterable[Tensors], device: torch.device) -> Iterator[Tensors]:
    """`items` that were made under the stream that is current at the first, each for the one current when it is taken.

    Only a loop that changes streams on its way has anything to wait for.
    """
    made = torch.cuda.current_stream(device)
    for item in items:
        current = torch.cuda.current_stream(device)
        if current != made:
            current.wait_stream(made)
            used_by(current, item)
        yield item


def used_by(stream: torch.cuda.Stream, tensors: Iterable[torch.Tensor]) -> None:
    """Keep the memory of `tensors` from being used anew before `stream` has done what is queued on it now."""
    for tensor in tensors:
        tensor.record_stream(stream)
