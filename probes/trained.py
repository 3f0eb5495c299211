"""Heads that are trained by gradient steps: linear ones and MLPs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fovcache.keys.digest import Document

from .head import LINEAR, MLP, Fitted
from .problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """Softmax regression by AdamW."""

    learning_rates: tuple[float, ...] = (1e-3,)
    """Each is tried with each weight decay."""
    weight_decays: tuple[float, ...] = (1e-4,)
    """As the optimiser takes it."""
    epochs: int = 200
    """At most."""
    patience: int = 15
    """Epochs without a better validation accuracy after which it stops."""
    batch_size: int = 256
    """Samples a step."""
    precision: str = "float32"
    """`float32`, `bfloat16` or `float16` autocast."""

    @property
    def name(self) -> str:
        """Of HEADS."""
        return LINEAR

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """Every learning rate with every weight decay."""
        pairs = itertools.product(self.learning_rates, self.weight_decays)
        return tuple({"learning_rate": rate, "weight_decay": decay} for rate, decay in pairs)

    @property
    def is_trained(self) -> bool:
        """True."""
        return True

    @property
    def runs_on_gpu(self) -> bool:
        """True."""
        return True

    def document(self) -> Document:
        """All of its settings."""
        return {"name": self.name, **{key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}}

    def fit(self, problems: Sequence[Problem]) -> Sequence[Fitted]:
        """All at once."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpHead(LinearHead):
    """Hidden layers, each Linear, BatchNorm, ReLU, Dropout; then Linear."""

    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths."""
    dropout: float = 0.5
    """Share that is dropped."""

    @property
    def name(self) -> str:
        """Of HEADS."""
        return MLP
