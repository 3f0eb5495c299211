"""Finding results in a folder by what they hold: profiles, builds, feature quality, ablations, training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError, nearest
from fovcache.probes.quality.result import FORMAT as QUALITY_FORMAT
from fovcache.probes.quality.result import RESULT_FILE as QUALITY_FILE
from fovcache.probes.quality.result import Quality, read_quality
from fovcache.probes.result import (
    ARMS_FILE,
    ARMS_FORMAT,
    FORMAT,
    RESULT_FILE,
    Ablation,
    ArmComparison,
    read_ablation,
    read_arms,
)
from fovcache.probes.train.result import FORMAT as TRAIN_FORMAT
from fovcache.probes.train.result import RESULT_FILE as TRAIN_FILE
from fovcache.probes.train.result import TrainSuite, read_suite
from fovcache.store.layout import MARKER

from .profiler.result import Profile

_ABLATION = FORMAT.rpartition(" ")[0]
_ARMS = ARMS_FORMAT.rpartition(" ")[0]
_QUALITY = QUALITY_FORMAT.rpartition(" ")[0]
_TRAINING = f"{TRAIN_FORMAT.rpartition(' ')[0]} "
_IN_FOLDERS = (QUALITY_FILE, RESULT_FILE, ARMS_FILE, TRAIN_FILE)
_PROFILE = {"stages", "verdict", "warmup_dropped"}
_BUILD: dict[str, type] = {
    "dataset_name": str,
    "samples": int,
    "computed": int,
    "reused": int,
    "failed": int,
    "bytes_written": int,
    "seconds": float,
    "load_seconds": float,
}
_EXPECTED = (
    "expected what `fovbench profile … --json profile.json`, `fovcache build … --json build.json`, "
    "`fovbench quality CACHE --out DIR`, `fovbench ablate CONFIG.toml --out DIR` or "
    "`fovbench train CONFIG.toml --out DIR` writes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundResults:
    """What a folder holds. Names are of files in it, or, but for profiles and builds, in a folder of it."""

    profiles: dict[str, Profile] = field(default_factory=dict)
    """By name, sorted."""
    builds: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON of builds with the fields of a report, checked; those that computed something first."""
    ablations: dict[str, Ablation] = field(default_factory=dict)
    """By name, sorted."""
    arms: dict[str, tuple[ArmComparison, ...]] = field(default_factory=dict)
    """Of the ablations that have some, by the ablation's name."""
    qualities: dict[str, Quality] = field(default_factory=dict)
    """By name, sorted."""
    trainings: dict[str, TrainSuite] = field(default_factory=dict)
    """By name, sorted."""
    warnings: tuple[str, ...] = ()
    """What was left out, and why."""

    @property
    def cached(self) -> dict[str, Ablation | Quality | TrainSuite]:
        """Those that name the cache that they come from."""
        return {**self.ablations, **self.qualities, **self.trainings}


def find_results(folder: Path) -> FoundResults:
    """Every `*.json` of a folder, and `quality.json`, `ablation.json` and `train.json` of the folders in it.

    Raises UsageError where there is no result, OSError where the folder cannot be read.
    """
    found = FoundResults()
    warnings: list[str] = []
    for path in _files(folder):
        try:
            _add(found, str(path.relative_to(folder)), path)
        except UsageError as error:
            warnings.append(f"{path.relative_to(folder)} is left out: {error}")
    if not (found.profiles or found.builds or found.cached):
        said = f" ({'; '.join(warnings[:3])})" if warnings else ""
        raise UsageError(f"{folder} holds no results{said}: {_EXPECTED}")
    for name in [name for name in found.arms if name not in found.ablations]:
        del found.arms[name]
        warnings.append(f"{Path(name).with_name(ARMS_FILE)} is left out: {name} is not there")
    builds = dict(sorted(found.builds.items(), key=lambda item: (not item[1]["computed"], item[0])))
    return replace(found, builds=builds, warnings=tuple(warnings))


def find_caches(folder: Path, results: Mapping[str, Ablation | Quality | TrainSuite]) -> tuple[list[Path], list[str]]:
    """The caches that results name, as far as they are there; and what to tell of the others.

    A relative path is looked for from here, from `folder`, from where the result lies, and from beside `folder`.
    """
    there: dict[Path, Path] = {}
    missing: list[str] = []
    for file, result in results.items():
        starts = (Path(), folder, (folder / file).parent, folder.resolve().parent)
        path = next((start / result.cache for start in starts if _is_cache(start / result.cache)), None)
        if path is None:
            missing.append(f"the cache {result.cache} of {file} is not there: --cache says where it is")
        else:
            there.setdefault(path.resolve(), path)
    return list(there.values()), missing


def check_cells(cells: Iterable[str], ablations: Mapping[str, Ablation]) -> None:
    """Raises UsageError for a cell `REPRESENTATION:EXPERIMENT` whose confusion no ablation has."""
    metrics = (each for ablation in ablations.values() for each in ablation.metrics)
    known = {f"{each.representation}:{each.experiment}" for each in metrics if each.confusion}
    for cell in cells:
        if cell not in known:
            raise UsageError(
                f"--confusion {cell}: no ablation here has the confusion of that REPRESENTATION:EXPERIMENT"
                f"{nearest(cell, known)}"
            )


def _is_cache(path: Path) -> bool:
    try:
        return (path / MARKER).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _files(folder: Path) -> Iterator[Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    yield from (path for path in entries if path.suffix == ".json" and path.is_file())
    for path in entries:
        if path.is_dir():
            yield from (path / name for name in _IN_FOLDERS if (path / name).is_file())


def _add(found: FoundResults, name: str, path: Path) -> None:
    """Raises UsageError for what is no result."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"it cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(_EXPECTED)
    if str(document.get("format")).startswith(_ABLATION):
        found.ablations[name] = read_ablation(path)
    elif str(document.get("format")).startswith(_ARMS):
        found.arms[str(Path(name).with_name(RESULT_FILE))] = read_arms(path)
    elif str(document.get("format")).startswith(_QUALITY):
        found.qualities[name] = read_quality(path)
    elif str(document.get("format")).startswith(_TRAINING):
        found.trainings[name] = read_suite(path)
    elif document.keys() >= _PROFILE:
        found.profiles[name] = Profile.from_document(document)
    elif document.keys() >= _BUILD.keys():
        found.builds[name] = _checked(document)
    else:
        raise UsageError(_EXPECTED)


def _checked(document: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, kind in _BUILD.items():
        value = document[name]
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise UsageError(f"{name} of a build is {value!r}, expected a value of type {kind.__name__}")
    return document
