"""The model that trains on what the encoders give: its forward pass, its backward pass, its optimiser."""

from __future__ import annotations

import runpy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from fovcache.errors import UsageError

LINEAR = "linear"
"""The model that is trained where none is named: a linear classifier on the encoders' pooled output."""
_NUM_CLASSES = 10
_LEARNING_RATE = 1e-3

Outputs: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]
"""By encoder and layer: rows [samples, …], of clips [samples, frames, …], as they are stored."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What passes through a step."""

    keys: list[str]
    """Its samples."""
    inputs: list[Any] = field(default_factory=list)
    """For each encoder that runs, what it reads of them on the device."""
    outputs: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    """See Outputs."""
    loss: torch.Tensor | None = None
    """After the forward pass."""


class Trainee(ABC):
    """A model and its optimiser. Both may be made with the first batch, whose shapes they depend on."""

    module: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None

    def parts(self) -> list[tuple[str, str, Callable[[Batch], Batch]]]:
        """Forward, backward, optimise: the id, the name and the function of each."""
        return [
            ("forward", "forward", self._forward),
            ("backward", "backward", self._backward),
            ("optimise", "optimiser", self._optimise),
        ]

    def settings(self) -> dict[str, Any]:
        """What a profile says of it beside the model's name."""
        return {}

    @abstractmethod
    def loss(self, outputs: Outputs) -> torch.Tensor:
        """Of a batch, with a gradient."""

    def descend(self) -> None:
        """Change the parameters by their gradients."""
        assert self.optimizer is not None
        self.optimizer.step()

    def _forward(self, batch: Batch) -> Batch:
        batch.loss = self.loss(batch.outputs)
        return batch

    def _backward(self, batch: Batch) -> Batch:
        assert batch.loss is not None
        torch.autograd.backward(batch.loss)
        return batch

    def _optimise(self, batch: Batch) -> Batch:
        assert self.optimizer is not None
        self.descend()
        self.optimizer.zero_grad(set_to_none=True)
        return batch


class OwnTrainee(Trainee):
    """A linear head, or a module of the user's own, which takes `{encoder: [samples, features]}` in float32."""

    def __init__(self, model: str, device: torch.device) -> None:
        """`model` is LINEAR or `PATH.py:FACTORY`. Raises UsageError for one that cannot be made."""
        self._device = device
        self.module = None if model == LINEAR else _made(model).to(device)

    def loss(self, outputs: Outputs) -> torch.Tensor:
        """See Trainee. The features of an encoder's layers are flattened and concatenated."""
        rows = {
            encoder: torch.cat([each.flatten(1).float() for each in layers.values()], dim=1)
            for encoder, layers in outputs.items()
        }
        if self.module is None:
            self.module = LinearHead(sum(each.shape[1] for each in rows.values())).to(self._device)
        loss = self.module(rows)
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
            raise UsageError(f"the model returned {type(loss).__name__}, expected a loss that has a gradient")
        if self.optimizer is None:  # after the first pass, which makes lazy parameters
            self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=_LEARNING_RATE)
        return loss.float().mean()


class LinearHead(nn.Module):
    """A linear classifier with made-up labels: what it costs does not depend on them."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, _NUM_CLASSES)

    def forward(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The cross-entropy of a batch, `{encoder: [samples, features]}`."""
        rows = torch.cat(list(outputs.values()), dim=1)
        labels = torch.arange(len(rows), device=rows.device) % _NUM_CLASSES
        return nn.functional.cross_entropy(self.linear(rows), labels)


def _made(model: str) -> nn.Module:
    path, colon, factory = model.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError(f"model {model!r}: expected {LINEAR}, CONFIG.toml, or PATH.py:FACTORY")
    if not Path(path).is_file():
        raise UsageError(f"model file {path} does not exist")
    try:
        make = runpy.run_path(path).get(factory)
        module = make() if callable(make) else None
    except Exception as error:  # a user's code may raise anything
        raise UsageError(f"{model} raised while it was made: {type(error).__name__}: {error}") from error
    if not callable(make):
        raise UsageError(f"{path} has no function {factory!r}")
    if not isinstance(module, nn.Module):
        raise UsageError(f"{model} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module
