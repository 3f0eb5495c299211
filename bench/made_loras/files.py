"""LoRAs of a population as safetensors files in folders of their classes, beside a manifest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.errors import UsageError, environment_failure, nearest

from .population import LoraPopulation

MANIFEST = "manifest.csv"
"""uri, label and group of every file."""
MADE = "made_loras.json"
"""What the files are of; written first, so that a run that was stopped can go on."""
_BLOCK_BYTES = 32 << 20


def _diffusers(module: str, factor: str) -> str:
    return f"unet.{module}.lora.{factor}.weight"


def _peft(module: str, factor: str) -> str:
    return f"base_model.model.{module}.lora_{'A' if factor == 'down' else 'B'}.weight"


def _kohya(module: str, factor: str) -> str:
    return f"lora_unet_{module.replace('.', '_')}.lora_{factor}.weight"


STYLES: Mapping[str, Callable[[str, str], str]] = {"diffusers": _diffusers, "peft": _peft, "kohya": _kohya}
"""What files call the `down` or `up` of a module."""


def write_loras(
    population: LoraPopulation,
    folder: Path,
    num: int,
    *,
    style: str = "diffusers",
    on_progress: OnProgress = silent,
) -> Path:
    """Write samples 0 to `num` - 1, float32, as `CLASS/NUMBER.safetensors`; their manifest's path.

    Files of kohya's style hold an `alpha` for each module, equal to the rank: ΔW is up · down in all styles. What a
    run that was stopped has finished is kept. Raises UsageError for a folder that holds something else, and
    EnvironmentFailure where it cannot be written.
    """
    if style not in STYLES:
        raise UsageError(f"there is no key style {style!r}{nearest(style, STYLES)}")
    if num < 1:
        raise UsageError(f"{num} samples were asked for, expected at least 1")
    made = json.dumps({"samples": num, "style": style, **population.document()}, indent=2) + "\n"
    try:
        _take(folder, made)
        labels, groups = population.labels(num), population.groups(num) or [""] * num
        names = [f"{population.classes[label]}/{number:06d}.safetensors" for number, label in enumerate(labels)]
        for done, (number, tensors) in enumerate(_files(population, style, _missing(folder, names))):
            on_progress(Progress(stage="write", done=done, total=num))
            _write(folder / names[number], tensors)
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(("uri", "label", "group"))
        rows.writerows(zip(names, (population.classes[label] for label in labels), groups, strict=True))
        _replace(folder / MANIFEST, table.getvalue().encode())
    except OSError as error:
        raise environment_failure(error, f"write {folder}") from error
    return folder / MANIFEST


def _take(folder: Path, made: str) -> None:
    """Raises UsageError for a folder that is neither empty nor of the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MADE
    if marker.is_file():
        if marker.read_text() != made:
            raise UsageError(f"{folder} holds other made LoRAs, which {marker} describes: choose another folder")
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty, and holds no LoRAs that were made here: choose another folder")
    else:
        _replace(marker, made.encode())


def _missing(folder: Path, names: list[str]) -> list[int]:
    return [number for number, name in enumerate(names) if not (folder / name).exists()]


def _files(population: LoraPopulation, style: str, numbers: list[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The tensors of each sample, drawn in blocks that are small in memory."""
    most = max(_BLOCK_BYTES // (4 * population.layout.num_values), 1)
    first = 0
    while first < len(numbers):
        last = first  # of a run of numbers that follow one another
        while last + 1 < min(len(numbers), first + most) and numbers[last + 1] == numbers[last] + 1:
            last += 1
        factors = population.draw(last - first + 1, numbers[first])
        for row in range(last - first + 1):
            yield numbers[first] + row, _named({name: factor[row] for name, factor in factors.items()}, style)
        first = last + 1


def _named(factors: Mapping[str, np.ndarray], style: str) -> dict[str, np.ndarray]:
    tensors = {}
    for name, factor in factors.items():
        module, _, which = name.removesuffix(".weight").rpartition(".lora.")
        tensors[STYLES[style](module, which)] = np.ascontiguousarray(factor)
        if style == "kohya" and which == "down":
            tensors[f"lora_unet_{module.replace('.', '_')}.alpha"] = np.array(len(factor), np.float32)
    return tensors


def _write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    path.parent.mkdir(exist_ok=True)
    _replace(path, save(tensors, metadata={"format": "pt"}))


def _replace(path: Path, data: bytes) -> None:
    """A file that is there is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
