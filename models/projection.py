"""`projection`: simple heads on cached features, a linear one or an MLP, for labels or for other features.

Axes: B samples, D numbers of an input, O of an output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from fovcache.errors import UsageError, nearest
from fovcache.keys.digest import Document
from fovcache.trainable import FEATURES as FEATURES_KIND
from fovcache.trainable import LABELS, InputInfo, Need

if TYPE_CHECKING:
    from torch import nn


FEATURES, TARGET, Y = "features", "target", "y"
TARGETS = ("labels", "features")
LOSSES = ("mse", "cosine")
MEAN, FLATTEN = "mean", "flatten"
TOKENS = (MEAN, FLATTEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSettings:
    """All settings, checked. Raises UsageError naming the setting."""

    target: str = "labels"
    """Of TARGETS: the dataset's labels, or another feature of the cache, the need `target`."""
    layers: int = 1
    """Linear layers; 1 for a linear head. Between two of them is a GELU."""
    hidden: int | None = None
    """Numbers between two layers; None for as many as the input has."""
    tokens: str = MEAN
    """Of TOKENS, for rows of several tokens or frames: their mean, the last axis being channels, or all their
    numbers."""
    loss: str | None = None
    """Of LOSSES, where the target is features; None for `mse`."""

    def __post_init__(self) -> None:
        for key, allowed in (("target", TARGETS), ("tokens", TOKENS), ("loss", (None, *LOSSES))):
            value = getattr(self, key)
            if value not in allowed:
                raise UsageError(f"{key} = {value!r}{nearest(str(value), filter(None, allowed))}")
        for key in ("layers", "hidden"):
            value = getattr(self, key)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not is_count and not (key == "hidden" and value is None):
                raise UsageError(f"{key} = {value!r}, expected a whole number, at least 1")
        if self.hidden is not None and self.layers == 1:
            raise UsageError(f"hidden = {self.hidden} is for layers = 2 or more; leave it out")
        if self.loss is not None and self.target != "features":
            raise UsageError(f'loss = {self.loss!r} is for target = "features"; labels have cross-entropy')


def make(settings: Mapping[str, Any]) -> Projection:
    """The head with `settings`, those of `ProjectionSettings`. Raises UsageError."""
    known = [each.name for each in fields(ProjectionSettings)]
    for key in settings:
        if key not in known:
            raise UsageError(f"the projection has no setting {key!r}{nearest(key, known)}")
    return Projection(settings=ProjectionSettings(**settings))


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A head that is not built."""

    settings: ProjectionSettings
    """All of them."""

    @property
    def name(self) -> str:
        """The entry point's."""
        return "projection"

    def document(self) -> Document:
        """All settings with defaults."""
        return {"name": self.name, **asdict(self.settings)}

    def needs(self) -> dict[str, Need]:
        """`features`, and `y` or `target`."""
        found = {FEATURES: Need(kind=FEATURES_KIND, what="the features that are projected")}
        if self.settings.target == "labels":
            return found | {Y: Need(kind=LABELS, what="the samples' labels")}
        return found | {TARGET: Need(kind=FEATURES_KIND, what="the features that they are projected to")}

    def frozen(self) -> dict[str, str]:
        """The encoder, and the target's."""
        return {"encoder": FEATURES, **({"target_encoder": TARGET} if self.settings.target == "features" else {})}

    def build(self, inputs: Mapping[str, InputInfo], seed: int) -> nn.Module:
        """The module, float32 on the CPU. torch's generators are as before. Raises UsageError for inputs without
        numbers, or a single class."""
        import torch

        from .projection_module import ProjectionModule
        from .seeded_parameters import fill

        settings = self.settings
        shape = inputs[FEATURES].row_shape
        num_in = shape[-1] if settings.tokens == MEAN else math.prod(shape)
        if settings.target == "labels":
            num_out = inputs[Y].num_classes or 0
            if num_out < 2:
                raise UsageError(f"the dataset's labels are of {num_out} class, expected at least two")
        else:
            num_out = math.prod(inputs[TARGET].row_shape)
        with torch.random.fork_rng(devices=[]):  # modules draw first values, which are written over
            module = ProjectionModule(settings, num_in, num_out)
        fill(module, seed)
        return module
