"""Configurations of training, for tests: the standard recipe but for what they name, and the sizes of a test."""

from pathlib import Path
from typing import Any

from fovcache.probes.train.config import TrainConfig
from fovcache.probes.train.recipe import standard

_SETTINGS: dict[str, Any] = {
    "samples": 64,
    "batch_size": 6,
    "learning_rate": 1e-3,
    "warmup_samples": 0,
    "schedule": "constant",
    "evaluate_every": 10**6,
    "validation_samples": 5,
    "checkpoint_every": 10**6,
    "keep": 1,
    "out_of_memory": "stop",
}


def train_config(cache: Path, train: dict[str, Any] | None = None, **fields: Any) -> TrainConfig:
    """Of a model that is never asked for, unless `kind` names one."""
    return TrainConfig(
        cache=str(cache), **{"kind": "projection", "train": standard(**_SETTINGS | (train or {})), **fields}
    )
