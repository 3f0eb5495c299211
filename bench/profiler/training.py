"""One training step on frozen encoders, part by part: copy, VAE encode, frozen encode, forward, backward, optimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from fovcache.builder.encoding import BatchEncoder
from fovcache.builder.request import Resolution, Resolved
from fovcache.errors import UsageError
from fovcache.extract.pooling import STORE_DTYPE, pool
from fovcache.pipeline.stage import Stage

from .cached import CachedRows
from .samples import Item
from .trainee import Batch, Trainee

Inputs: TypeAlias = list[tuple[Resolved, torch.Tensor, tuple[int, ...]]]
"""Of one encoder: copied batches, one for each shape of sample, with the first axes of its rows: `(samples,)`, of clips
`(samples, frames)`."""


class TrainingStep:
    """The stages of a step on one device. The encoders, and the model, are loaded with the first batch."""

    def __init__(
        self,
        resolutions: Sequence[Resolution],
        *,
        vaes: frozenset[str],
        trainee: Trainee,
        device: torch.device,
        batch_size: int,
        cached: CachedRows | None = None,
    ) -> None:
        """`vaes` are those of the encoders that are VAEs, by name; `cached` has the rows of further encoders, which do
        not run."""
        self._names = [resolution.extractor.name for resolution in resolutions]
        self._resolutions = tuple(resolutions)
        self._vaes = [number for number, name in enumerate(self._names) if name in vaes]
        self._frozen = [number for number, name in enumerate(self._names) if name not in vaes]
        self._device = device
        self._batch_size = batch_size
        self._cached = cached
        self._encoders: dict[str, BatchEncoder] = {}
        self._trainee = trainee
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
                    (by_recipe[recipe], self._encoder(by_recipe[recipe]).copy(group), _axes(by_recipe[recipe], group))
                    for (recipe, _), group in groups.items()
                ]
            )
        return Batch(keys=[item.key for item in items], inputs=inputs)

    def _load(self, batch: Batch | list[str]) -> Batch:
        assert self._cached is not None
        if not isinstance(batch, Batch):
            batch = Batch(keys=batch)
        batch.outputs |= self._cached.load(batch.keys)
        return batch

    def _encode(self, batch: Batch, which: Sequence[int]) -> Batch:
        for number in which:
            inputs: Inputs = batch.inputs[number]
            rows = [self._rows(resolved, tensor, axes) for resolved, tensor, axes in inputs]
            try:
                batch.outputs[self._names[number]] = {
                    layer: torch.cat([each[layer] for each in rows]) for layer in rows[0]
                }
            except RuntimeError as error:
                shapes = sorted({tuple(each.shape[1:]) for layers in rows for each in layers.values()})
                raise UsageError(
                    f"{self._names[number]} gives rows of unequal shapes {shapes} for these samples; a model trains "
                    "on equal ones: give --size or --pool mean, of LoRAs only those of one rank"
                ) from error
        return batch

    def _rows(self, resolved: Resolved, tensor: torch.Tensor, axes: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """By layer, rounded as they are stored."""
        outputs = self._encoder(resolved).encode(tensor)
        tokens = resolved.extractor.tokens
        rows = {}
        for feature in resolved.features:
            pooled = pool(outputs[feature.layer], feature.pool, tokens, feature.layer)
            rows[feature.layer] = pooled.to(STORE_DTYPE[feature.dtype]).reshape(*axes, *pooled.shape[1:])
        if resolved.extractor.name not in self.row_bytes:
            self.row_bytes[resolved.extractor.name] = sum(each.nbytes for each in rows.values()) // axes[0]
        return rows

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


def _axes(resolved: Resolved, group: Sequence[Any]) -> tuple[int, ...]:
    num_rows = resolved.spec.rows_of(group[0])
    return (len(group),) if num_rows is None else (len(group), num_rows)
