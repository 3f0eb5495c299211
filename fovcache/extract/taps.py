"""Reading layers out of a module's forward pass, and leaving it at the deepest one asked for."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import EncoderError, LayerError


class _AllLayersRead(Exception):
    """Leaves a forward pass once every tapped layer has run."""


class LayerTaps:
    """Runs a module and returns the outputs of named submodules; the rest of the pass is skipped.

    A module that is called more than once in a pass has no single output, so its first pass is run to
    the end to count the calls; later passes leave at the last tapped layer.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        self._module = module
        self._layers = tuple(layers)
        self._outputs: dict[str, Any] = {}
        self._calls: Counter[str] = Counter()
        self._checked = False
        self._is_running = False  # another session's pass through the same module is not ours
        self._handles = [module.get_submodule(layer).register_forward_hook(self._hook(layer)) for layer in self._layers]

    def close(self) -> None:
        """Remove the hooks; the module is as it was."""
        for handle in self._handles:
            handle.remove()

    def __call__(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [batch, …]}`. Raises LayerError when a layer does not give one tensor with a row an item."""
        self._outputs.clear()
        self._calls.clear()
        self._is_running = True
        try:
            with contextlib.suppress(_AllLayersRead):
                self._module(batch)
        finally:
            self._is_running = False
        if not self._checked:
            self._check_calls()
            self._checked = True
        outputs, self._outputs = self._outputs, {}
        if skipped := [layer for layer in self._layers if layer not in outputs]:
            raise LayerError(f"layer {skipped[0]!r} ran for the first batch and not for a later one; name another")
        return {layer: _one_tensor(layer, outputs[layer], len(batch)) for layer in self._layers}

    def _hook(self, layer: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not self._is_running:
                return
            # Kept as it is now: a following layer may change it in place (ReLU(inplace=True) after BatchNorm).
            self._outputs[layer] = output.clone() if isinstance(output, torch.Tensor) else output
            self._calls[layer] += 1
            if self._checked and len(self._outputs) == len(self._layers):
                raise _AllLayersRead

        return hook

    def _check_calls(self) -> None:
        for layer in self._layers:
            calls = self._calls[layer]
            if calls != 1:
                what = "is not run by the forward pass" if calls == 0 else f"is run {calls} times in a forward pass"
                advice = "name a layer that runs once" if calls else "name a layer that runs"
                raise LayerError(f"layer {layer!r} {what}, so it has no single output; {advice}")


def _one_tensor(layer: str, output: Any, num_rows: int) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise LayerError(
            f"layer {layer!r} returns {_describe(output)}, expected one tensor [batch, …]; name a submodule "
            "that returns the tensor you want"
        )
    if output.layout != torch.strided or output.is_meta:
        raise LayerError(f"layer {layer!r} returns a {output.layout} tensor on {output.device}, expected a dense one")
    if output.ndim < 2 or output.shape[0] != num_rows:
        raise LayerError(
            f"layer {layer!r} returns shape {tuple(output.shape)} for a batch of {num_rows}, "
            f"expected [{num_rows}, …] with at least two dimensions"
        )
    if output.numel() == 0:
        raise LayerError(f"layer {layer!r} returns shape {tuple(output.shape)}, which holds no number")
    if not output.is_floating_point():
        raise LayerError(f"layer {layer!r} returns {output.dtype}, expected a floating-point tensor")
    return output


def _describe(output: Any) -> str:
    if isinstance(output, tuple | list):
        inner = ", ".join(_describe(item) for item in output[:4]) + (", …" if len(output) > 4 else "")
        return f"a {type(output).__name__} ({inner})"
    if isinstance(output, torch.Tensor):
        return f"tensor {tuple(output.shape)}"
    return f"a {type(output).__name__}"


def is_out_of_memory(error: Exception) -> bool:
    """torch has a class for it, but raises a plain RuntimeError on the CPU and where CUDA's libraries run out."""
    said = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    is_said = isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    return is_said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def describe_forward_error(error: Exception, batch: torch.Tensor) -> EncoderError:
    """An EncoderError for an exception inside the user's forward pass."""
    said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return EncoderError(f"the encoder's forward pass raised on a batch of shape {tuple(batch.shape)}: {said}")
