"""The folder of an ablation: finished trials as lines, their predictions as files, one process at a time.

A trial's predictions are on disk before its line is, and its line is flushed before the next trial begins, so that a
killed run loses at most the trial that it was at.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fovcache.errors import DamageError, EnvironmentFailure, UsageError, environment_failure
from fovcache.store.safetensors_file import array_bytes, file_parts, parse_header
from fovcache.store.storage import LocalStorage
from fovcache.typed_json import revive

from .result import RESULT_FILE, TRIALS_FILE, Ablation, Trial

PREDICTIONS = "predictions"
LOCK_FILE = ".lock"
_DTYPES = {"I64": np.int64, "F32": np.float32}
_LINE_START = b'{"key":'


class ResultFolder:
    """What earlier runs finished, and where this one writes. Get one from `open_folder`."""

    def __init__(self, folder: Path, trials: Sequence[Trial], file: FileIO) -> None:
        self.folder = folder
        self._trials = {trial.key: trial for trial in trials}
        self._lines = set(trials)
        self._file = file
        self._storage = LocalStorage(folder)

    def finished(self, key: str) -> Trial | None:
        """A trial with this key, whatever its experiment was called; None unless its predictions are there too."""
        return self._trials.get(key) if self._storage.exists(_predictions_name(key)) else None

    def keep_predictions(
        self,
        key: str,
        positions: np.ndarray,
        labels: np.ndarray,
        predictions: np.ndarray,
        probabilities: np.ndarray | None = None,
    ) -> None:
        """Keep truth and prediction of a trial's test samples, at `positions` of the dataset; each int64 [m].

        Probabilities are float32 [m, classes], of a head that gives them.

        Several threads may do so at a time. Raises EnvironmentFailure.
        """
        columns = {"position": positions, "label": labels, "prediction": predictions}
        tensors = {
            name: ("I64", values.shape, array_bytes(values.astype(np.int64))) for name, values in columns.items()
        }
        if probabilities is not None:
            values = probabilities.astype(np.float32)
            tensors["probability"] = ("F32", values.shape, array_bytes(values))
        self._storage.put(_predictions_name(key), file_parts(tensors, {"trial": key}))

    def add(self, trial: Trial) -> None:
        """Write a trial's line, its predictions being there, unless there is one. Raises EnvironmentFailure.

        The same numbers can have several lines: those of one set of layers under two names, say.
        """
        if trial in self._lines:
            return
        line = json.dumps(asdict(trial), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            _write(self._file, line.encode())
        except OSError as error:
            raise environment_failure(error, f"write {self.folder / TRIALS_FILE}") from error
        self._lines.add(trial)
        self._trials[trial.key] = trial

    def write_result(self, ablation: Ablation, page: str, page_file: str) -> None:
        """Write RESULT_FILE and `page`, each whole or not at all. Raises EnvironmentFailure."""
        text = json.dumps(ablation.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self._storage.put(page_file, [page.encode()])
        self._storage.put(RESULT_FILE, [text.encode()])
        with contextlib.suppress(OSError):
            (self.folder / LocalStorage.TEMPORARY).rmdir()


def read_predictions(folder: Path, key: str) -> dict[str, np.ndarray]:
    """`position` in the dataset, `label` and `prediction` of the test samples of a trial, int64 [m].

    Of a head that gives them also `probability`, float32 [m, classes].

    Raises DamageError when they are gone or not what was written.
    """
    path = folder / _predictions_name(key)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DamageError(f"{path} is missing; `fovbench ablate` runs that trial again") from error
    infos, metadata = parse_header(data, len(data), str(path))
    if metadata.get("trial") != key or not {"position", "label", "prediction"} <= infos.keys():
        raise DamageError(f"{path} is damaged: it does not hold the predictions of that trial; delete it and run again")
    return {
        name: np.frombuffer(data, _DTYPES[info.dtype], math.prod(info.shape), info.offset).reshape(info.shape)
        for name, info in infos.items()
    }


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[ResultFolder]:
    """The folder, made where there is none, and locked: nobody else writes to it meanwhile.

    Raises UsageError when it holds something else or another process is at work in it, DamageError when a line of
    its trials is damaged, EnvironmentFailure when it cannot be written.
    """
    _check_is_ours(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK_FILE).open("ab") as lock:
            _lock(lock, folder)
            with (folder / TRIALS_FILE).open("a+b", buffering=0) as lines:
                trials = _read_trials(lines, folder / TRIALS_FILE)
                _sweep(folder)
                yield ResultFolder(folder, trials, lines)
    except EnvironmentFailure:
        raise
    except OSError as error:
        raise environment_failure(error, f"write {folder}") from error


def _predictions_name(key: str) -> str:
    return f"{PREDICTIONS}/{key}.safetensors"


def _check_is_ours(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file, expected a folder or a name that is free")
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise environment_failure(error, f"read {folder}") from error
    if names - {LOCK_FILE} and TRIALS_FILE not in names:
        raise UsageError(
            f"--out {folder} holds something else (files, but no {TRIALS_FILE}): choose an empty or new folder"
        )


def _lock(file: BinaryIO, folder: Path) -> None:
    """The lock of this process, which ends with it however it ends."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"another process is writing to --out {folder}: wait for it, or choose another folder"
        ) from None


def _read_trials(file: FileIO, path: Path) -> list[Trial]:
    """The trials in a file that is open for reading and appending. What a killed process left of a line is cut off."""
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    torn = data[whole:]
    if torn:
        if torn[: len(_LINE_START)] != _LINE_START[: len(torn)]:
            raise UsageError(f"{path} is not what `fovbench ablate` writes: choose an empty or new folder")
        file.truncate(whole)
    trials = []
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            trials.append(revive(Trial, json.loads(line)))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise DamageError(
                f"line {number} of {path} is not what `fovbench ablate` writes ({error}): delete that line and run "
                "again, or choose another folder"
            ) from None
    return trials


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed runs: whoever holds the lock is the only one to write."""
    for path in (folder / LocalStorage.TEMPORARY).glob("*"):
        path.unlink()


def _write(file: FileIO, data: bytes) -> None:
    """All of it, to the disk."""
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())
