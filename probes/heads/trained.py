"""Heads that are trained by gradient steps: linear ones and MLPs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fovcache.errors import UsageError, nearest
from fovcache.keys.digest import Document

from .adam import ADAM, ADAMW, OPTIMISERS
from .bank import train_bank
from .fitted_networks import FittedNetworks
from .head import LINEAR, MLP
from .problem import Problem
from .training import PRECISIONS, Plan, Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """Softmax regression, trained by steps; each candidate keeps the weights of its best epoch on validation."""

    learning_rates: tuple[float, ...] = (1e-2, 1e-3)
    """Each is tried with each weight decay. Falling: of equally good ones the smallest is taken."""
    weight_decays: tuple[float, ...] = (1e-2, 1.0)
    """As the optimiser takes it, biases too. Rising: of equally good ones the largest is taken."""
    optimiser: str = ADAMW
    """`adamw`; or `adam`, which adds the decay to the gradient. Both are torch's."""
    plateau_factor: float = 1.0
    """By which the learning rate is multiplied where validation accuracy stands still, as torch's ReduceLROnPlateau
    does; 1 for a constant rate."""
    plateau_patience: int = 10
    """Epochs without a better validation accuracy that are let pass before that."""
    epochs: int = 200
    """At most."""
    patience: int = 15
    """Epochs without a better validation accuracy after which it stops."""
    batch_size: int = 256
    """Samples a step."""
    precision: str = "float32"
    """Of the factors of matrix products in training, as autocast has it: `float32`, `bfloat16`, or `float16` with a
    loss scale for each head. The rest, and scoring, is float32."""

    def __post_init__(self) -> None:
        rates = _numbers("learning_rates", self.learning_rates, above=True)
        decays = _numbers("weight_decays", self.weight_decays, above=False)
        object.__setattr__(self, "learning_rates", tuple(sorted(rates, reverse=True)))
        object.__setattr__(self, "weight_decays", tuple(sorted(decays)))
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("precision", self.precision, PRECISIONS)
        if not _is_number(self.plateau_factor) or not 0 < self.plateau_factor <= 1:
            raise UsageError(f"plateau_factor = {self.plateau_factor!r}, expected a number above 0 and at most 1")
        for key, least in {"plateau_patience": 0, "epochs": 1, "patience": 1, "batch_size": 1}.items():
            _whole(key, getattr(self, key), least)

    @property
    def name(self) -> str:
        """Of HEADS."""
        return LINEAR

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """Every learning rate with every weight decay."""
        return tuple({"learning_rate": rate, "weight_decay": decay} for rate, decay in self._pairs())

    @property
    def is_trained(self) -> bool:
        """True."""
        return True

    def document(self) -> Document:
        """All of its settings."""
        return {"name": self.name, **{key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}}

    def fit(self, problems: Sequence[Problem]) -> list[FittedNetworks]:
        """All at once, each where its rows are: many cores or a GPU have more to do the more problems there are."""
        pairs = self._pairs()
        every = train_bank(problems, pairs, self._plan())
        return [_fitted(pairs, trained) for trained in every]

    def _pairs(self) -> list[tuple[float, float]]:
        return list(itertools.product(self.learning_rates, self.weight_decays))

    def _plan(self, widths: tuple[int, ...] = (), dropout: float = 0.0) -> Plan:
        return Plan(
            widths=widths,
            dropout=dropout,
            optimiser=self.optimiser,
            plateau_factor=self.plateau_factor,
            plateau_patience=self.plateau_patience,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            precision=self.precision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpHead(LinearHead):
    """Hidden layers, each Linear, BatchNorm, ReLU, Dropout; then Linear.

    A last batch of one sample is left out of its epoch: batch normalisation can make nothing of it, and the next epoch
    has another order.
    """

    learning_rates: tuple[float, ...] = (1e-3,)
    """As of a linear head."""
    weight_decays: tuple[float, ...] = (1e-4,)
    """As of a linear head."""
    optimiser: str = ADAM
    """As of a linear head."""
    plateau_factor: float = 0.1
    """As of a linear head; this is torch's default."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths."""
    dropout: float = 0.5
    """Share of hidden units that is dropped."""

    def __post_init__(self) -> None:
        LinearHead.__post_init__(self)
        if not isinstance(self.hidden, tuple) or not self.hidden:
            raise UsageError(
                f"hidden = {_shown(self.hidden)}, expected widths such as [512, 512]; for none, say linear"
            )
        for width in self.hidden:
            _whole("hidden", width, 1)
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise UsageError(f"dropout = {self.dropout!r}, expected a number from 0 to below 1")
        _whole("batch_size", self.batch_size, 2)

    @property
    def name(self) -> str:
        """Of HEADS."""
        return MLP

    def _plan(self, widths: tuple[int, ...] = (), dropout: float = 0.0) -> Plan:
        return LinearHead._plan(self, self.hidden, self.dropout)


def _fitted(pairs: Sequence[tuple[float, float]], trained: Sequence[Trained]) -> FittedNetworks:
    return FittedNetworks(
        networks=tuple(each.network for each in trained),
        best_epochs=tuple(each.best_epoch for each in trained),
        samples_seen=sum(each.samples_seen for each in trained),
        notes_of=tuple(_note(pair, each) for pair, each in zip(pairs, trained, strict=True)),
    )


def _note(pair: tuple[float, float], trained: Trained) -> str:
    at = f"at learning rate {pair[0]:g} and weight decay {pair[1]:g}"
    if trained.has_diverged:
        left = f"epoch {trained.best_epoch}" if trained.best_epoch else "the beginning"
        return f"diverged in epoch {trained.num_epochs} {at}: its weights are those of {left}"
    if trained.has_stopped:
        return ""
    return f"stopped at its last epoch, {trained.num_epochs}, {at}: not converged"


def _numbers(key: str, values: Any, *, above: bool) -> tuple[float, ...]:
    expected = "different numbers above 0" if above else "different numbers from 0 on"
    if (
        not isinstance(values, tuple)
        or not values
        or not all(_is_number(each) and (each > 0 if above else each >= 0) for each in values)
        or len(set(values)) != len(values)
    ):
        raise UsageError(f"{key} = {_shown(values)}, expected {expected}, such as [0.001, 0.01]")
    return tuple(float(each) for each in values)


def _whole(key: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key} = {value!r}, expected a whole number, at least {least}")


def _one_of(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{key} = {value!r}{nearest(str(value), known)}")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else repr(value)
