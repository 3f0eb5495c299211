"""Deep attention: the query goes through every frozen layer of the encoder, against the hidden states of a frame.

Keys and values are the frozen layer's own, made again from the cached states before that layer. A query that equals
the class token's embedding comes out as the encoder's class token.

Axes: B samples, T frames, N tokens of a frame, D the encoder's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fovcache.errors import UsageError, nearest
from fovcache.trainable import InputInfo

from ..architecture import Config, NamedModel
from ..checkpoint import open_checkpoint
from ..dinov2 import DINOV2_MODELS
from .attention import Glimpse, attend, entropy
from .names import FRAMES

_MODELS = {model.name: model for model in DINOV2_MODELS}


def encoder_model(name: str) -> NamedModel:
    """The encoder whose layers a query can go through. Raises UsageError for one that is not known here."""
    if name not in _MODELS:
        raise UsageError(f'encoder = {name!r}: attention = "deep" knows DINOv2\'s layers alone{nearest(name, _MODELS)}')
    return _MODELS[name]


def layers_read(model: NamedModel) -> tuple[str, ...]:
    """The layers whose states are needed: what goes into each block."""
    return ("embed", *(f"blocks.{number}" for number in range(model.config["num_hidden_layers"] - 1)))


def load_deep_attention(model: NamedModel, info: InputInfo) -> DeepAttention:
    """The layers of the encoder that wrote the features. Raises UsageError where its weights are others."""
    checkpoint = open_checkpoint(
        info.weights, name=model.name, hub_id=model.hub_id, config=model.full_config(), with_processor=False
    )
    recorded = info.recipe.get("extractor", {})
    if recorded.get("name") != model.name:
        raise UsageError(
            f"{FRAMES} are features of {recorded.get('name')!r}, and encoder = {model.name!r}: deep attention goes "
            "through the layers of the encoder that made them"
        )
    if recorded.get("weights") != checkpoint.identity():
        raise UsageError(
            f"{checkpoint.label} are not those that {FRAMES} were made with: the cache's recipe has "
            f"{recorded.get('weights')!r}, these have {dict(checkpoint.identity())!r}; name the same with "
            f"[inputs.{FRAMES}] weights = …, or build the features with these"
        )
    config = model.config_of(checkpoint)
    blocks = [layer for layer in model.architecture.layers(config) if layer.startswith("blocks.")]
    return DeepAttention(model, config, model.architecture.load(checkpoint, config, [*blocks, "norm"]))


class DeepAttention(nn.Module):
    """The frozen layers, with one trained projection of the query before them.

    Frozen tensors are buffers that no state dict holds: they are the encoder's, and a checkpoint need not repeat them.
    """

    def __init__(self, model: NamedModel, config: Config, tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors` by their canonical names: all blocks' and the final norm's."""
        super().__init__()
        width = config["hidden_size"]
        self.num_heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]
        self.query = nn.Linear(width, width, bias=False)
        self.names = [f"{FRAMES}/{layer}" for layer in layers_read(model)]
        architecture = model.architecture
        block_prefix, norm_prefix = architecture.prefix + architecture.blocks, architecture.prefix + architecture.norm
        self.blocks = nn.ModuleList(
            _Frozen(_below(tensors, f"{block_prefix}{number}.")) for number in range(config["num_hidden_layers"])
        )
        self.norm = _Frozen(_below(tensors, f"{norm_prefix}."))

    def frames(self, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Each layer's states after its first norm: what keys and values are made from."""
        dtype = self.query.weight.dtype
        pairs = zip(self.names, self.blocks, strict=True)
        return [self._normed(block, "norm1", batch[name].to(dtype)) for name, block in pairs]

    def forward(self, frames: list[torch.Tensor], queries_BTD: torch.Tensor) -> Glimpse:
        """Queries, projected, go through the layers, each against its own frame's states."""
        return self.through(frames, self.query(queries_BTD))

    def through(self, frames: list[torch.Tensor], x_BTD: torch.Tensor) -> Glimpse:
        """The same for queries that are already where the encoder's embeddings are."""
        entropies = []
        weights = x_BTD
        for block, states in zip(self.blocks, frames, strict=True):
            x_BTD, weights = self._block(block, states, x_BTD)
            entropies.append(entropy(weights))
        weight, bias = self.norm("weight", "bias")
        found = functional.layer_norm(x_BTD, x_BTD.shape[-1:], weight, bias, self.epsilon)
        return Glimpse(found, torch.stack(entropies).mean(dim=0), weights.detach().mean(dim=2))

    def _block(self, block: Any, states: torch.Tensor, x_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attention = "attention.attention."
        queries = functional.linear(self._normed(block, "norm1", x_BTD), *block.linear(f"{attention}query"))
        key, _ = block.linear(f"{attention}key")  # the softmax cancels its bias
        value, value_bias = block.linear(f"{attention}value")
        values, weights = attend(queries, states, key, value, self.num_heads)
        if value_bias is not None:
            values = values + value_bias
        found = functional.linear(values, *block.linear("attention.output.dense"))
        x_BTD = x_BTD + block("layer_scale1.lambda1")[0] * found
        inner = functional.gelu(functional.linear(self._normed(block, "norm2", x_BTD), *block.linear("mlp.fc1")))
        x_BTD = x_BTD + block("layer_scale2.lambda1")[0] * functional.linear(inner, *block.linear("mlp.fc2"))
        return x_BTD, weights

    def _normed(self, block: Any, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = block.linear(name)
        return functional.layer_norm(x, x.shape[-1:], weight, bias, self.epsilon)


class _Frozen(nn.Module):
    """Tensors of one part of the encoder by their canonical names; dots would not be names of buffers."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(_flat(name), tensor, persistent=False)

    def forward(self, *names: str) -> list[torch.Tensor]:
        return [getattr(self, _flat(name)) for name in names]

    def linear(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight, and bias or None."""
        return getattr(self, _flat(f"{name}.weight")), getattr(self, _flat(f"{name}.bias"), None)


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
