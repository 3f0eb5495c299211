"""What the training loop asks of a model that learns from cached features.

A `Trainable` is a model that is not built yet: its settings are read and checked, it says what it needs of the cache,
and it builds a module. The loop, the feeds and the results know nothing else of it, so a new model is a new
`Trainable` and nothing more. They are found by entry points.

Axes: B samples of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from .errors import UsageError, nearest
from .keys.digest import Document

if TYPE_CHECKING:
    import torch
    from torch import nn

ENTRY_POINT_GROUP = "fovcache.trainables"
FEATURES, TEXT, LABELS = "features", "text", "labels"
LOSS, COARSE, FINE = "loss", "coarse", "fine"
RATIO = "ratio"
"""What the loop adds where a module gives the losses COARSE and FINE of two modes of itself: mean by mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One input of a model, under the model's own name for it."""

    kind: str
    """`features`: floating rows `[B, …]` as they are stored. `text`: token ids int64 `[B, tokens]`, -1 after the end
    token. `labels`: int64 `[B]`, of the dataset itself."""
    what: str
    """In words, for errors: `the encoder's final tokens`."""
    layers: tuple[str, ...] = ()
    """Canonical layers, each of them the entry `NAME/LAYER` of a batch. Empty for the one layer that the configuration
    names, or that there is: the entry NAME."""
    encoder: str | None = None
    """The extractor where the configuration names none."""
    pool: str | None = None
    """The pooling where the configuration names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputInfo:
    """What a need turned out to be."""

    row_shape: tuple[int, ...]
    """Of one sample; of text `(longest,)`, of labels `()`."""
    dtype: str
    """As stored: `bf16`, `fp32`, …; of text and labels `int64`."""
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The recipe's document: clip, preprocessing, extractor with its weights' digest. Empty for labels."""
    weights: str | None = None
    """The extractor's weights as the configuration gives them (a folder, a hub id, `random:SEED`), for a model that
    goes on with frozen layers of it; it must check them against the digest in the recipe."""
    num_classes: int | None = None
    """Of labels: one more than the largest."""


Batch = Mapping[str, "torch.Tensor"]
"""Inputs by name, each [B, …], on the model's device; labels are `y`."""

Values = dict[str, "torch.Tensor"]
"""What a module says of a batch: float32 [B] each, one number a sample. `loss` is descended, by its mean over samples;
the others are logged as means. A value that a sample has not is NaN there, and left out of the mean. Of `coarse` and
`fine` the ratio of the means is logged too."""


class Trainable(Protocol):
    """A model with its settings, before it is built."""

    @property
    def name(self) -> str:
        """The name users select it by: the entry point's."""

    def document(self) -> Document:
        """All settings with defaults filled in: what arms are compared by, and results hold."""

    def needs(self) -> Mapping[str, Need]:
        """What it reads of the cache under these settings, by its names; no more than it uses."""

    def frozen(self) -> Mapping[str, str]:
        """Parts that are not there to be trained, since the cache stands for them: part → the need that holds what it
        gave, such as `{"encoder": "frames", "vae": "latents", "tokenizer": "captions"}`."""

    def build(self, inputs: Mapping[str, InputInfo], seed: int) -> nn.Module:
        """The module on the CPU in float32, every parameter a function of settings, inputs and seed alone.

        `module(batch) -> Values`; `loss` carries gradients, the rest are detached. In `eval()` it may add values that
        cost more (a second mode of itself, say). What it draws at random it draws from torch's default generators.
        Raises UsageError for inputs that do not fit: their shape, an encoder's weights, a tokenizer.
        """

    # The module may also have `attention_maps(batch) -> {name: float32 [B, frames, rows, columns]}`, pictures for the
    # report, and `parts: Mapping[str, Sequence[str]]`, its parameters' name prefixes by part, for `train.parts`.


def known_trainables() -> list[str]:
    """The names of all that are installed, sorted."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def resolve_trainable(kind: str, settings: Mapping[str, Any]) -> Trainable:
    """The model named `kind` with `settings`: an installed entry point's.

    Raises UsageError for an unknown name, and what the model itself raises for settings that it does not know.
    """
    known = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if kind not in known:
        raise UsageError(f"there is no model named {kind!r} to train{nearest(kind, sorted(known))}")
    model: Trainable = known[kind].load()(settings)
    return model
