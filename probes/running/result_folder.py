"""The folder of an ablation: finished trials as lines, their predictions as files, one process at a time.

A trial's predictions are on disk before its line is, and its line is flushed before the next trial begins, so that a
killed run loses at most the trial that it was at.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fovcache.errors import DamageError, EnvironmentFailure, UsageError, environment_failure
from fovcache.store.safetensors_file import array_bytes, file_parts, parse_header
from fovcache.store.storage import LocalStorage
from fovcache.typed_json import revive

from ..result import RESULT_FILE, TRIALS_FILE, Ablation, Trial

PREDICTIONS = "predictions"
LOCK_FILE = ".lock"
BANKS_FILE = "banks.jsonl"
_DTYPES = {"I64": np.int64, "F32": np.float32}
_LINE_START = b'{"key":'


class ResultFolder:
    """What earlier runs finished, and where this one writes. Get one from `open_folder`."""

    def __init__(
        self, folder: Path, trials: Sequence[Trial], file: FileIO, banks: Sequence[tuple[str, ...]] = ()
    ) -> None:
        self.folder = folder
        self._banks = list(banks)
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
        """As the function `keep_predictions`."""
        keep_predictions(self._storage, key, positions, labels, predictions, probabilities)

    @property
    def banks(self) -> tuple[tuple[str, ...], ...]:
        """Keys of trials that were planned to be trained together, the last plan last."""
        return tuple(self._banks)

    def plan_banks(self, banks: Sequence[tuple[str, ...]]) -> None:
        """Write down which trials are trained together, before any of them is. Raises EnvironmentFailure."""
        lines = "".join(json.dumps({"keys": bank}, separators=(",", ":")) + "\n" for bank in banks)
        path = self.folder / BANKS_FILE
        try:
            with path.open("ab", buffering=0) as file:
                _write(file, lines.encode())
        except OSError as error:
            raise environment_failure(error, f"write {path}") from error
        self._banks += banks

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

    def write_result(self, ablation: Ablation, others: Mapping[str, bytes]) -> None:
        """Write other files by name, then RESULT_FILE, each whole or not at all. Raises EnvironmentFailure."""
        text = json.dumps(ablation.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_files(self.folder, {**others, RESULT_FILE: text.encode()})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name, in this order, each whole or not at all. Raises EnvironmentFailure."""
    storage = LocalStorage(folder)
    for name, data in files.items():
        storage.put(name, [data])
    with contextlib.suppress(OSError):
        (folder / LocalStorage.TEMPORARY).rmdir()


def keep_predictions(
    storage: LocalStorage,
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
    tensors = {name: ("I64", values.shape, array_bytes(values.astype(np.int64))) for name, values in columns.items()}
    if probabilities is not None:
        values = probabilities.astype(np.float32)
        tensors["probability"] = ("F32", values.shape, array_bytes(values))
    storage.put(_predictions_name(key), file_parts(tensors, {"trial": key}))


def has_predictions(folder: Path, key: str) -> bool:
    """Whether a trial's are there."""
    return (folder / _predictions_name(key)).is_file()


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
            lock_file(lock, folder)
            with (folder / TRIALS_FILE).open("a+b", buffering=0) as lines:
                trials = _read_trials(lines, folder / TRIALS_FILE)
                sweep(folder)
                yield ResultFolder(folder, trials, lines, _read_banks(folder / BANKS_FILE))
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


def lock_file(file: BinaryIO, folder: Path) -> None:
    """The lock of this process, which ends with it however it ends. Raises UsageError where another has it."""
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


def _read_banks(path: Path) -> list[tuple[str, ...]]:
    """Empty where no trained head ran. What a killed process left of a line is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    try:
        return [revive(tuple[str, ...], json.loads(line)["keys"]) for line in data[:whole].splitlines()]
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise DamageError(
            f"{path} is not what `fovbench ablate` writes ({error}): delete it, and what is missing is trained in "
            "other company, which can change its last bits"
        ) from None


def sweep(folder: Path) -> None:
    """Remove temporary files of killed runs: whoever holds the lock is the only one to write."""
    for path in (folder / LocalStorage.TEMPORARY).glob("*"):
        path.unlink()


def _write(file: FileIO, data: bytes) -> None:
    """All of it, to the disk."""
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())
