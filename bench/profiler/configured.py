"""The model of a configuration of `fovbench train`, trained in a profile as it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fovcache.builder.request import Resolution, Resolved
from fovcache.errors import UsageError
from fovcache.models.tokens import of_bytes
from fovcache.probes.train.config import InputChoice, TrainConfig, read_cell, read_top
from fovcache.probes.train.feeds.opening import LABELS_NAME
from fovcache.probes.train.stepping.audit import choose_parts
from fovcache.probes.train.stepping.optimiser import make_optimiser
from fovcache.trainable import FEATURES, LABELS, TEXT, InputInfo, Need

from .trainee import Outputs, Trainee

TEXT_TOKENS = 24
"""Of made-up captions: profiled sources need none, and what a token costs does not depend on which it is."""
_NUM_CLASSES = 10
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SEED = 0
_BYTES = "bytes"


class ConfiguredTrainee(Trainee):
    """What the encoders give goes to the model's needs; text and labels are made up.

    Of `[train]` those settings are used that a step costs something by: `parts`, `precision`, `compile`, `clip_norm`
    and the optimiser's. A step is of the profile's own batch size, at the full learning rate, and is not logged.
    """

    def __init__(self, path: Path, resolutions: Sequence[Resolution], device: torch.device) -> None:
        """Raises UsageError for a configuration, and for encoders that do not give what its model needs."""
        self._config = config = read_cell(read_top(path), path.parent)
        self._trainable = config.trainable()
        self._device = device
        self._autocast = _DTYPES.get(config.train.precision)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
        needs = self._trainable.needs()
        self._alphabet: str = self._trainable.document().get("alphabet") or ""
        for need in needs.values():
            if _is_of_bytes(need) and not self._alphabet:
                raise UsageError(
                    f"{config.kind} needs {need.what} by the encoder {_BYTES!r}: a profile makes up such texts of the "
                    "setting `alphabet`, and there is none"
                )
        self._sources = _sources(config, needs, resolutions)

    def settings(self) -> dict[str, Any]:
        """The model's settings that are set, and of the recipe what is used."""
        document = {name: value for name, value in self._trainable.document().items() if value is not None}
        used = ("precision", "clip_norm", "compile", "parts")
        return {"trainable": document, **{name: getattr(self._config.train, name) for name in used}}

    def loss(self, outputs: Outputs) -> torch.Tensor:
        """See Trainee."""
        batch = {
            entry: outputs[resolved.extractor.name][layer]
            for name, (resolved, layers) in self._sources.items()
            for entry, layer in _entries(self._trainable.needs()[name], name, layers)
        }
        if self.module is None:
            self.module = self._built(batch)
            self.optimizer = make_optimiser(self.module, self._config.train)
        batch |= self._made_up(batch)
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            loss: torch.Tensor = self.module(batch)["loss"].float().mean()
        return self._scaler.scale(loss)

    def descend(self) -> None:
        """As the loop does: clip, wait for the gradients' norm, step."""
        assert self.module is not None
        assert self.optimizer is not None
        trained = [each for each in self.module.parameters() if each.grad is not None]
        self._scaler.unscale_(self.optimizer)
        most = self._config.train.clip_norm
        gradients = [each.grad for each in trained if each.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, most) if most else nn.utils.get_total_norm(gradients)
        norm.item()
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def _made_up(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        needs = self._trainable.needs()
        num_samples = len(next(iter(batch.values())))
        found = {
            name: self._text(need, batch).to(self._device).expand(num_samples, -1)
            for name, need in needs.items()
            if need.kind == TEXT
        }
        if any(need.kind == LABELS for need in needs.values()):
            found[LABELS_NAME] = torch.arange(num_samples, device=self._device) % _NUM_CLASSES
        return found

    def _text(self, need: Need, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Token ids, int64 [L]: by `bytes` a character of the alphabet for each frame."""
        if not _is_of_bytes(need):
            return torch.arange(TEXT_TOKENS)
        num_frames = next(iter(batch.values())).shape[1]
        text = "".join(self._alphabet[at % len(self._alphabet)] for at in range(num_frames))
        return torch.from_numpy(of_bytes(None).input.read(text.encode(), need.what)).long()

    def infos(self, batch: Mapping[str, torch.Tensor]) -> dict[str, InputInfo]:
        """What the model is built for, by the rows of a batch."""
        needs = self._trainable.needs()
        found: dict[str, InputInfo] = {}
        for name, (resolved, layers) in self._sources.items():
            for entry, _ in _entries(needs[name], name, layers):
                found[entry] = info = self._info(name, resolved, tuple(batch[entry].shape[1:]))
                found.setdefault(name, info)
        for name, need in needs.items():
            if need.kind == TEXT:
                found[name] = InputInfo(row_shape=tuple(self._text(need, batch).shape), dtype="int64")
            elif need.kind == LABELS:
                found[name] = InputInfo(row_shape=(), dtype="int64", num_classes=_NUM_CLASSES)
        return found

    def _built(self, batch: Mapping[str, torch.Tensor]) -> nn.Module:
        module = self._trainable.build(self.infos(batch), _SEED).to(self._device)
        choose_parts(module, self._trainable, self._config.train)
        if self._config.train.compile:
            module.compile()
        return module.train()

    def _info(self, name: str, resolved: Resolved, row_shape: tuple[int, ...]) -> InputInfo:
        weights = self._config.inputs.get(name, InputChoice()).weights
        if weights is not None and (self._config.folder / weights).exists():
            weights = str(self._config.folder / weights)
        weights = weights or resolved.request.weights
        document, dtype = resolved.recipe.document, resolved.features[0].dtype
        return InputInfo(row_shape=row_shape, dtype=dtype, recipe=document, weights=weights)


def _is_of_bytes(need: Need) -> bool:
    return need.kind == TEXT and need.encoder == _BYTES


def _sources(
    config: TrainConfig, needs: Mapping[str, Need], resolutions: Sequence[Resolution]
) -> dict[str, tuple[Resolved, tuple[str, ...]]]:
    """The encoder and its layers for each need that is of features. Raises UsageError."""
    given = {resolution.extractor.name: resolution.each[-1] for resolution in resolutions}
    choices = {name: config.inputs.get(name, InputChoice()) for name in needs}
    named = {name: choices[name].encoder or need.encoder for name, need in needs.items() if need.kind == FEATURES}
    left = [encoder for encoder in given if encoder not in named.values()]
    found = {}
    for name, wanted in named.items():
        encoder = wanted if wanted is not None or len(left) != 1 else left[0]
        if encoder not in given:
            which = f"of {wanted!r}, and there is {', '.join(given)}" if wanted else f"of one of {', '.join(given)}"
            raise UsageError(
                f"{config.kind} needs {needs[name].what} {which}: give that encoder, or say which one it is by "
                f"[inputs.{name}] encoder"
            )
        asked = needs[name].layers or tuple(filter(None, [choices[name].layer]))
        found[name] = (
            given[encoder],
            _checked(given[encoder], asked, choices[name].pool or needs[name].pool, needs[name]),
        )
    unread = [encoder for encoder in given if encoder not in [each.extractor.name for each, _ in found.values()]]
    if unread:
        raise UsageError(f"{config.kind} reads nothing of {', '.join(unread)} under these settings: leave it out")
    return found


def _checked(resolved: Resolved, asked: tuple[str, ...], pool: str | None, need: Need) -> tuple[str, ...]:
    """The layers that a need reads. Raises UsageError where those were not asked for."""
    name, option = resolved.extractor.name, resolved.request.encoder
    layers = [feature.layer for feature in resolved.features]
    found = resolved.features[0].pool
    if pool is not None and found != pool:
        raise UsageError(f"{need.what} are with pooling {pool!r}, and {name} has {found!r}: --pool {option}={pool}")
    if not set(asked) <= set(layers):
        said = f"{need.what} are {', '.join(asked)}, and {name} has {', '.join(layers)}"
        raise UsageError(f"{said}: --layers {option}={','.join(asked)}")
    if len(layers) > 1 and not asked:
        said = f"{need.what} are one layer, and {name} has {', '.join(layers)}"
        raise UsageError(f"{said}: --layers {option}={layers[-1]}")
    return asked or tuple(layers)


def _entries(need: Need, name: str, layers: Sequence[str]) -> list[tuple[str, str]]:
    """What each layer is called in a batch."""
    return [(f"{name}/{layer}" if need.layers else name, layer) for layer in layers]
