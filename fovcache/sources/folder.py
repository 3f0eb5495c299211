"""Samples in a folder of files; the first level of subfolders are the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk_files(root: Path) -> Iterator[Path]:
    """Every file below `root`, in the order of their relative paths; hidden ones are passed over.

    Links to folders are followed, each real folder once. Raises OSError for a folder that cannot be listed.
    """
    yield from _walk(root, {root.resolve()})


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if not entry.is_dir():
            yield path
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            yield from _walk(path, seen)


def class_of(path: Path, root: Path) -> str | None:
    """The class of a file: the name of the first folder below `root`, None for files in `root` itself."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else None
