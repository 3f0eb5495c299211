"""The files of a run's folder, beside its log and its checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fovcache.errors import DamageError, EnvironmentFailure, environment_failure

from ..result import LOG_FILE, RUN_FILE, Run

CHECKPOINTS_FOLDER = "checkpoints"
BEFORE_FAILURE_FOLDER = "before_failure"
"""A checkpoint of the state before a step that was not made; not one to go on from."""
PLAN_FOLDER = ".plan"
"""In which checkpoints and logs are written to be measured, before the run."""
IDENTITY_FILE = "identity.json"
"""What decides the run, for `check_same`."""


def has_run(folder: Path) -> bool:
    """Whether a run began here."""
    names = (IDENTITY_FILE, RUN_FILE, LOG_FILE, CHECKPOINTS_FOLDER)
    return any((folder / name).exists() for name in names)


def read_identity(folder: Path) -> Mapping[str, Any] | None:
    """What the run here is decided by; None where none began. Raises DamageError, EnvironmentFailure."""
    path = folder / IDENTITY_FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise environment_failure(error, f"read {path}") from error
    except ValueError as error:
        raise DamageError(f"{path} is damaged: {error}; remove the run's folder to begin again") from error
    if not isinstance(found, dict):
        raise DamageError(f"{path} is damaged: it holds no table; remove the run's folder to begin again")
    return found


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Begin a run, or go on with one under what `check_same` allows to differ. Raises EnvironmentFailure."""
    _write(folder / IDENTITY_FILE, dict(identity))


def write_run(folder: Path, run: Run) -> None:
    """Raises EnvironmentFailure."""
    _write(folder / RUN_FILE, run.document())


def make_run_folder(folder: Path) -> None:
    """Raises EnvironmentFailure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise environment_failure(error, f"make the folder {folder}") from error


@contextlib.contextmanager
def plan_folder(folder: Path, rank: int) -> Iterator[Path]:
    """A process's own folder for what is measured, on the disk that the run in `folder` will be on.

    What the first process made for it is gone afterwards. Raises EnvironmentFailure.
    """
    made = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    path = folder / PLAN_FOLDER / str(rank)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise environment_failure(error, f"write in {folder}") from error
    try:
        yield path
    finally:
        if rank == 0:
            remove_plan(folder)
            with contextlib.suppress(OSError):  # somebody else has put something there
                for each in made:
                    each.rmdir()


def remove_plan(folder: Path) -> None:
    """What a warm-up left that was killed."""
    shutil.rmtree(folder / PLAN_FOLDER, ignore_errors=True)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Whole, or as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        failure: EnvironmentFailure = environment_failure(error, f"write {path}")
        raise failure from error
