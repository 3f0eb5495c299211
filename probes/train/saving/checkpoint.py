"""Checkpoints of a training run: folders of safetensors and JSON, whole or not there, without pickles.

`samples-000123456/` holds model.safetensors, optimizer.safetensors, state.json, and checksums.json with the BLAKE3 of
each. It is written under a temporary name and renamed when everything is on the disk.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import nn

from fovcache.errors import (
    DamageError,
    EnvironmentFailure,
    FovcacheError,
    UsageError,
    WeightsError,
    environment_failure,
)
from fovcache.keys.digest import file_digest
from fovcache.store.documents import sealed, unseal
from fovcache.store.storage import flush_folder, make_folder, write_new
from fovcache.typed_json import revive

from ..result import Evaluation
from .module_tensors import fill_model, fill_optimizer, model_tensors, optimizer_groups, optimizer_tensors
from .random_states import RandomStates
from .tensor_files import read_tensors, tensor_file

logger = logging.getLogger(__name__)

FORMAT = "fovbench checkpoint 1"
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
CHECKSUMS_FILE = "checksums.json"
_TEMPORARY = ".tmp"
_REPLACED = ".replaced"
_NAME = re.compile(rf"samples-(\d{{9,}})({re.escape(_REPLACED)})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Where a run is, beside its model and optimiser."""

    samples_seen: int
    """Training samples."""
    steps: int
    """Optimiser steps."""
    num_resumed: int = 0
    """How many times the run was taken up again."""
    evaluations: tuple[Evaluation, ...] = ()
    """Until now."""
    events: tuple[str, ...] = ()
    """Until now, as in `Run`."""
    feed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """`Feed.state()`."""
    loss_scale: Mapping[str, Any] | None = field(default=None, hash=False)
    """The state dict of float16's GradScaler; None without one."""
    random: tuple[RandomStates, ...] = ()
    """Of each rank."""
    loop: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else the loop goes on from, such as the size of its micro-batches after it was halved; JSON."""
    identity: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What decides the run, by dotted names, for `check_same`; JSON."""


def save_checkpoint(
    folder: Path, *, module: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState, keep: int
) -> Path:
    """Write `samples-…` in `folder`, which one process does; then remove all but the last `keep`. Its path.

    The names of tensors are those of the bare module. Raises EnvironmentFailure that names the last good checkpoint,
    which is as it was.
    """
    path = folder / f"samples-{state.samples_seen:09d}"
    temporary = path.with_name(path.name + _TEMPORARY)
    groups = json.dumps(optimizer_groups(module, optimizer))
    text = json.dumps(asdict(state), ensure_ascii=False) + "\n"
    files: dict[str, list[bytes | memoryview]] = {
        MODEL_FILE: tensor_file(model_tensors(module)),
        OPTIMIZER_FILE: tensor_file(optimizer_tensors(module, optimizer), {"groups": groups}),
        STATE_FILE: [text.encode()],
    }
    digests = {name: _digest(parts) for name, parts in files.items()}
    files[CHECKSUMS_FILE] = [sealed({"format": FORMAT, "files": digests})]
    try:
        make_folder(folder)
        _remove_unfinished(folder)
        try:
            temporary.mkdir()
            for name, parts in files.items():
                write_new(temporary / name, parts)
            flush_folder(temporary)
            _publish(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _not_written(error, path) from error
    rotate(folder, state.samples_seen, keep)
    return path


def rotate(folder: Path, samples_seen: int, keep: int) -> None:
    """Leave the last `keep` checkpoints up to here, as `save_checkpoint` does unless it is killed at it.

    Later ones were damaged, and passed over when the run went on from before. Raises EnvironmentFailure.
    """
    try:
        _remove_unfinished(folder)
        newest: dict[int, Path] = {}
        for samples, _, path in _finished(folder):
            if samples <= samples_seen:
                newest.setdefault(samples, path)
        kept = list(newest.values())[:keep]
        for _, _, path in _finished(folder):
            if path not in kept:
                _remove(path)
    except OSError as error:
        raise environment_failure(error, f"remove old checkpoints in {folder}") from error


def last_checkpoint(folder: Path) -> Path | None:
    """The last sound checkpoint in `folder`, or None where none was written; what is passed over is warned of.

    Raises DamageError when there are some and all are damaged.
    """
    for unfinished in sorted(folder.glob(f"samples-*{_TEMPORARY}")):
        logger.warning("%s is an unfinished checkpoint and is passed over", unfinished)
    damaged = []
    for _, _, path in _finished(folder):
        try:
            _verify(path)
        except DamageError as error:
            logger.warning("%s; the checkpoint before it is used, if there is one", error)
            damaged.append(path.name)
        else:
            return path
    if damaged:
        raise DamageError(
            f"every checkpoint in {folder} is damaged ({', '.join(damaged)}): remove the run's folder to begin again"
        )
    return None


def load_checkpoint(path: Path, *, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> TrainState:
    """Fill `module` and `optimizer` in place from a checkpoint; what else it holds.

    Without an optimiser, as for an evaluation, its state is left alone.
    Raises DamageError; WeightsError that names each tensor that is missing, unexpected or of another shape.
    """
    _verify(path)
    tensors, _ = read_tensors(path / MODEL_FILE)
    try:
        fill_model(module, tensors)
        if optimizer is not None:
            tensors, metadata = read_tensors(path / OPTIMIZER_FILE)
            fill_optimizer(module, optimizer, tensors, json.loads(metadata["groups"]))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; use the configuration that it was written with") from error
    return read_state(path)


def read_state(path: Path) -> TrainState:
    """What a checkpoint says of its run, without its tensors. Raises DamageError."""
    try:
        state: TrainState = revive(TrainState, json.loads((path / STATE_FILE).read_bytes()))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise DamageError(f"{path / STATE_FILE} is damaged: {error}") from error
    return state


def _digest(parts: list[bytes | memoryview]) -> str:
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def _verify(path: Path) -> None:
    """Raise DamageError unless every byte of a checkpoint is what was written, UsageError for another format's."""
    try:
        checksums = unseal((path / CHECKSUMS_FILE).read_bytes(), str(path / CHECKSUMS_FILE))
        if checksums.get("format") != FORMAT:
            raise UsageError(
                f"the checkpoint {path} is of format {checksums.get('format')!r}, expected {FORMAT!r}: go on with the "
                "fovcache that wrote it, or begin a new run"
            )
        for name, digest in checksums["files"].items():
            if file_digest(path / name) != digest:
                raise DamageError(f"{path / name} is damaged: its bytes are not those that were written")
    except FileNotFoundError as error:
        raise DamageError(f"{path} is damaged: {Path(error.filename).name} is missing") from error
    except OSError as error:
        raise environment_failure(error, f"read {path}") from error


def _finished(folder: Path) -> list[tuple[int, bool, Path]]:
    """`(samples, whether it was not replaced, path)` of finished checkpoints, the last first."""
    found = [(match, path) for path in folder.glob("samples-*") if (match := _NAME.fullmatch(path.name))]
    return sorted(((int(match[1]), match[2] is None, path) for match, path in found), reverse=True)


def _publish(temporary: Path, path: Path) -> None:
    """Rename. One of the same samples, which a damaged one can be, keeps its content under another name until then."""
    replaced = path.with_name(path.name + _REPLACED)
    if path.exists():
        if replaced.exists():
            _remove(replaced)
        path.rename(replaced)
    temporary.rename(path)
    flush_folder(path.parent)


def _remove(path: Path) -> None:
    """By way of a temporary name, so that a kill leaves nothing that looks like a damaged checkpoint."""
    temporary = path.with_name(path.name + _TEMPORARY)
    path.rename(temporary)
    shutil.rmtree(temporary)


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f"samples-*{_TEMPORARY}"):
        shutil.rmtree(path)


def _not_written(error: OSError, path: Path) -> EnvironmentFailure:
    try:
        last = last_checkpoint(path.parent)
    except (FovcacheError, OSError):
        last = None
    said = f"the last good one is {last}" if last is not None else "there is no good one before it"
    return environment_failure(error, f"write the checkpoint {path}, {said}")
