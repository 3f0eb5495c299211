"""What is chosen of an ablation's parts: representations, encoders, splits, the head, controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fovcache.derived.representation import resolve_representation
from fovcache.errors import UsageError

from .heads.head import RIDGE, make_head
from .splits import GIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationChoice:
    """A representation and what was chosen of it."""

    name: str
    """As `fovcache.derived.representation` knows it."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What is not at its default."""

    def __post_init__(self) -> None:
        resolve_representation(self.name, self.parameters)

    @property
    def label(self) -> str:
        """What results call it: `spectral`, or `spectral(method=exact)`."""
        shown = ", ".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}({shown})" if shown else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """Which features an alias stands for; what is None is not asked about."""

    encoder: str | None = None
    """Its name, or `PATH.py:FACTORY`."""
    weights: str | None = None
    """As builds were given them."""
    pool: str | None = None
    """`cls`, `mean` or `tokens`."""
    store_dtype: str | None = None
    """`bf16`, `fp16` or `fp32`."""
    recipe: str | None = None
    """The beginning of a recipe's digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """What is said about splits; None is settled by the dataset."""

    kind: str | None = None
    """`resplit`, `independent`, or `given` for the dataset's own test split; None for the last where there is one, else
    for the first."""
    test: float | None = None
    """Share of the samples."""
    validation: float | None = None
    """Share of the samples."""
    group: bool | None = None
    """Whether a group is on one side; None for True where samples name groups."""
    shots: int | None = None
    """Samples of each class that are kept of train; None for all."""

    def __post_init__(self) -> None:
        if self.kind == GIVEN and self.test is not None:
            raise UsageError('test is a share of a resplit, and with kind = "given" nothing reads it: leave it out')
        if (self.test or 0) + (self.validation or 0) >= 1:
            raise UsageError(f"test = {self.test} and validation = {self.validation} leave nothing to train on")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChoice:
    """What reads the labels out of the numbers."""

    kind: str = RIDGE
    """One of HEADS."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What is not at the head's own."""

    def __post_init__(self) -> None:
        make_head(self.kind, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChoice:
    """What is run beside each experiment."""

    shuffled_labels: bool = True
    """The same with labels that say nothing: it must come out at chance."""
    random_layers: bool = True
    """As many layers, drawn at random, for each experiment that does not take all of them."""
