"""The encoders behind opened inputs, as they were when those were built, to encode samples anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fovcache.builder.encoding import BatchEncoder
from fovcache.builder.request import EncoderRequest, Resolved, recorded_limits, resolve
from fovcache.errors import UsageError
from fovcache.extract.extractor import InputSpec, Item
from fovcache.keys.recipe import Feature

from .build_commands import recorded_provenance
from .opening import OpenedInputs


class FeatureEncoders:
    """One encoder for each recipe, loaded on a device."""

    def __init__(self, opened: OpenedInputs, *, device: torch.device, batch_size: int) -> None:
        """Raises UsageError where there are no features, or an encoder is not what it was; EncoderError and its kin."""
        self._device = device
        self._features: list[dict[str, Feature]] = []
        self._encoders: list[BatchEncoder] = []
        specs: list[InputSpec] = []
        for features in _by_recipe(opened):
            resolved = _resolved(opened, features)
            specs.append(resolved.spec)
            self._features.append(features)
            self._encoders.append(
                BatchEncoder(
                    resolved.extractor,
                    resolved.spec,
                    list(dict.fromkeys(features.values())),
                    device=device,
                    compute_dtype=resolved.request.compute_dtype,
                    batch_size=batch_size,
                )
            )
        self.specs = tuple(specs)
        """What each encoder reads of a sample."""
        self.suffixes = frozenset().union(*(spec.suffixes() for spec in specs))
        """Endings of the files that they read, with the dot."""

    def rows(self, items: Sequence[Sequence[Item]]) -> dict[str, torch.Tensor]:
        """For each encoder the items of the same samples: rows by their name in a batch, [samples, …], on the device,
        rounded as they are stored."""
        found: dict[str, torch.Tensor] = {}
        for encoder, spec, features, own in zip(self._encoders, self.specs, self._features, items, strict=True):
            rows = self._encoded(encoder, spec, own)
            found |= {name: rows[feature.digest] for name, feature in features.items()}
        return found

    def _encoded(self, encoder: BatchEncoder, spec: InputSpec, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Items of unequal shapes are encoded apart, as in a build."""
        shapes = [spec.shape(item) for item in items]
        parts = []
        order: list[int] = []
        for shape in dict.fromkeys(shapes):
            members = [at for at, own in enumerate(shapes) if own == shape]
            parts.append(encoder.rows([items[at] for at in members], to=str(self._device)))
            order += members
        if len(parts) == 1:
            return parts[0]
        back = torch.from_numpy(np.argsort(order)).to(self._device)
        return {name: torch.cat([part[name] for part in parts]).index_select(0, back) for name in parts[0]}

    def close(self) -> None:
        """Let the encoders go."""
        for encoder in self._encoders:
            encoder.close()


def _by_recipe(opened: OpenedInputs) -> list[dict[str, Feature]]:
    """The features of each recipe, by their names in a batch."""
    found: dict[str, dict[str, Feature]] = {}
    for name, each in opened.features.items():
        found.setdefault(each.feature.recipe, {})[name] = each.feature
    if not found:
        raise UsageError('the model reads no features, so there is nothing to encode: use kind = "cached"')
    return list(found.values())


def _resolved(opened: OpenedInputs, features: dict[str, Feature]) -> Resolved:
    """Their encoder, as a build was asked for it."""
    first = next(iter(features.values()))
    provenance = recorded_provenance(opened.catalog, first)
    if "request" not in provenance:
        raise UsageError(f"the cache does not say how {', '.join(features)} were asked for; build them again")
    request = EncoderRequest.from_document(provenance["request"])
    resolved = resolve(request, recorded_limits(provenance)).by_recipe(first.recipe)
    if resolved is None:
        raise UsageError(
            f"{request.encoder} is not what it was when {', '.join(features)} were computed: build them again, or "
            "cached and online features would differ"
        )
    return resolved
