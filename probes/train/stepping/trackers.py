"""TensorBoard and W&B beside the log, through accelerate's trackers; W&B writes to the run's folder alone."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovcache.errors import UsageError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

TENSORBOARD, WANDB = "tensorboard", "wandb"
TENSORBOARD_FOLDER = "tensorboard"
_PROJECT = "fovcache"


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError with the install line for the first that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"trackers = [{json.dumps(name)}] needs the package {name}: pip install 'fovcache[{name}]'"
            )


class Trackers:
    """What is told here is told to all."""

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any], *, samples_seen: int) -> None:
        """`config` holds no secrets. A run that goes on drops from TensorBoard what came after `samples_seen`."""
        self._trackers = [_started(name, folder, samples_seen) for name in names]
        flat = {
            name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in config.items()
        }
        for tracker in self._trackers:
            tracker.store_init_configuration(dict(flat))

    def add(self, prefix: str, samples_seen: int, values: Mapping[str, float | None]) -> None:
        """Numbers under `PREFIX/NAME`; what is absent or not finite is left out."""
        if self._trackers:
            finite = {
                f"{prefix}/{name}": each for name, each in values.items() if each is not None and math.isfinite(each)
            }
            for tracker in self._trackers:
                tracker.log(finite, step=samples_seen)

    def close(self) -> None:
        """Write everything out."""
        for tracker in self._trackers:
            tracker.finish()
        self._trackers.clear()


def _started(name: str, folder: Path, samples_seen: int) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    tracker: GeneralTracker
    if name == TENSORBOARD:
        tracker = TensorBoardTracker(TENSORBOARD_FOLDER, folder, purge_step=samples_seen + 1)
    else:
        tracker = WandBTracker(_PROJECT, dir=str(folder), mode="offline", settings=_quiet_wandb())
    if hasattr(tracker, "start"):  # older ones start when they are made
        tracker.start()
    return tracker


def _quiet_wandb() -> Any:
    """Nothing of the machine, the command line, the code or the repository is taken down."""
    import wandb

    wanted: dict[str, Any] = {"silent": True, "console": "off", "save_code": False}
    wanted |= {"disable_git": True, "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
    return wandb.Settings(**{name: each for name, each in wanted.items() if name in wandb.Settings.model_fields})
