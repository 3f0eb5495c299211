"""One training step on frozen encoders, part by part: copy, VAE encode, frozen encode, forward, backward, optimise."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fovcache.builder.encoding import BatchEncoder
from fovcache.builder.request import Resolution, Resolved
from fovcache.errors import UsageError
from fovcache.extract.pooling import STORE_DTYPE, pool
from fovcache.pipeline.stage import Stage

from .cached import CachedRows
from .samples import Item

LINEAR = "linear"
"""The model that is trained where none is named: a linear classifier on the encoders' pooled output."""
_NUM_CLASSES = 10
_LEARNING_RATE = 1e-3


@dataclass(slots=True, kw_only=True)
class Batch:
    """What passes through a step."""

    keys: list[str]
    """Its samples."""
    inputs: list[list[tuple[Resolved, torch.Tensor, int]]]
    """For each encoder its copied batches, one for each shape of sample, with how many samples each holds."""
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """By encoder: rows [samples, …] of all its features, flattened and concatenated, float32."""
    loss: torch.Tensor | None = None
    """After the forward pass."""


class TrainingStep:
    """The stages of a step on one device. The encoders, and the model, are loaded with the first batch."""

    def __init__(
        self,
        resolutions: Sequence[Resolution],
        *,
        vaes: frozenset[str],
        model: str,
        device: torch.device,
        batch_size: int,
        cached: CachedRows | None = None,
    ) -> None:
        """`vaes` are those of the encoders that are VAEs, by name; `model` is LINEAR or `PATH.py:FACTORY`.

        `cached` has the rows of further encoders, which do not run.
        """
        self._names = [resolution.extractor.name for resolution in resolutions]
        self._resolutions = tuple(resolutions)
        self._vaes = [number for number, name in enumerate(self._names) if name in vaes]
        self._frozen = [number for number, name in enumerate(self._names) if name not in vaes]
        self._device = device
        self._batch_size = batch_size
        self._cached = cached
        self._encoders: dict[str, BatchEncoder] = {}
        self._trainee = Trainee(model, device)
        self.row_bytes: dict[str, int] = {}
        """By encoder, the bytes that a sample's rows take when they are stored; after the first batch."""

    def stages(self) -> tuple[Stage, ...]:
        """In order; the first takes a list of decoded samples, or of keys where every encoder is cached."""
        parts: list[tuple[str, str, Callable[[Any], Any]]] = []
        if self._resolutions:
            parts.append(("copy", "host-device copy", self._copy))
        if self._cached is not None:
            parts.append(("load", "load cached rows", self._load))
        if self._vaes:
            parts.append(("vae_encode", "VAE encode", lambda batch: self._encode(batch, self._vaes)))
        if self._frozen:
            parts.append(("encode", "frozen encode", lambda batch: self._encode(batch, self._frozen)))
        parts += self._trainee.parts()
        resource = "cpu" if self._device.type == "cpu" else "gpu"
        return tuple(Stage(id=id_, name=name, resource=resource, run=run) for id_, name, run in parts)

    def close(self) -> None:
        """Let the encoders go."""
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()

    def _copy(self, items: Sequence[Item]) -> Batch:
        inputs = []
        for number, resolution in enumerate(self._resolutions):
            groups: dict[tuple[str, tuple[int, ...]], list[Any]] = {}
            by_recipe = {resolved.recipe.digest: resolved for resolved in resolution.each}
            for item in items:
                assert item.unit is not None
                resolved = resolution.of(item.unit.location.suffix)
                ((decoded,), spec) = item.unit.items[number], resolved.spec
                groups.setdefault((resolved.recipe.digest, spec.shape(decoded)), []).append(decoded)
            inputs.append(
                [
                    (by_recipe[recipe], self._encoder(by_recipe[recipe]).copy(group), len(group))
                    for (recipe, _), group in groups.items()
                ]
            )
        return Batch(keys=[item.key for item in items], inputs=inputs)

    def _load(self, batch: Batch | list[str]) -> Batch:
        assert self._cached is not None
        if not isinstance(batch, Batch):
            batch = Batch(keys=batch, inputs=[])
        batch.outputs |= self._cached.load(batch.keys)
        return batch

    def _encode(self, batch: Batch, which: Sequence[int]) -> Batch:
        for number in which:
            rows = [self._rows(resolved, tensor, num_samples) for resolved, tensor, num_samples in batch.inputs[number]]
            try:
                batch.outputs[self._names[number]] = torch.cat(rows)
            except RuntimeError as error:
                shapes = sorted({tuple(each.shape[1:]) for each in rows})
                raise UsageError(
                    f"{self._names[number]} gives rows of unequal shapes {shapes} for these samples; a model trains "
                    "on equal ones: give --size or --pool mean, of LoRAs only those of one rank"
                ) from error
        return batch

    def _rows(self, resolved: Resolved, tensor: torch.Tensor, num_samples: int) -> torch.Tensor:
        outputs = self._encoder(resolved).encode(tensor)
        tokens = resolved.extractor.tokens
        pooled = [pool(outputs[each.layer], each.pool, tokens, each.layer) for each in resolved.features]
        if resolved.extractor.name not in self.row_bytes:
            sizes = [
                STORE_DTYPE[f.dtype].itemsize * rows.numel() for f, rows in zip(resolved.features, pooled, strict=True)
            ]
            self.row_bytes[resolved.extractor.name] = sum(sizes) // num_samples
        return torch.cat([rows.float().reshape(num_samples, -1) for rows in pooled], dim=1)

    def _encoder(self, resolved: Resolved) -> BatchEncoder:
        recipe = resolved.recipe.digest
        if recipe not in self._encoders:
            self._encoders[recipe] = BatchEncoder(
                resolved.extractor,
                resolved.spec,
                resolved.features,
                device=self._device,
                compute_dtype=resolved.request.compute_dtype,
                batch_size=self._batch_size,
            )
        return self._encoders[recipe]


class Trainee:
    """The model that trains on what the encoders give."""

    def __init__(self, model: str, device: torch.device) -> None:
        """Raises UsageError for a model that cannot be made."""
        self._device = device
        self._module = None if model == LINEAR else _made(model).to(device)
        self._optimizer: torch.optim.Optimizer | None = None

    def parts(self) -> list[tuple[str, str, Callable[[Any], Any]]]:
        """Forward, backward, optimise: the id, the name and the function of each."""
        return [
            ("forward", "forward", self._forward),
            ("backward", "backward", self._backward),
            ("optimise", "optimiser", self._optimise),
        ]

    def _forward(self, batch: Batch) -> Batch:
        if self._module is None:
            self._module = LinearHead(sum(rows.shape[1] for rows in batch.outputs.values())).to(self._device)
        loss = self._module(batch.outputs)
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
            raise UsageError(f"the model returned {type(loss).__name__}, expected a loss that has a gradient")
        batch.loss = loss.float().mean()
        if self._optimizer is None:  # after the first pass, which makes lazy parameters
            self._optimizer = torch.optim.AdamW(self._module.parameters(), lr=_LEARNING_RATE)
        return batch

    def _backward(self, batch: Batch) -> Batch:
        assert batch.loss is not None
        torch.autograd.backward(batch.loss)
        return batch

    def _optimise(self, batch: Batch) -> Batch:
        assert self._optimizer is not None
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return batch


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
        raise UsageError(f"model {model!r}: expected {LINEAR}, or PATH.py:FACTORY")
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
