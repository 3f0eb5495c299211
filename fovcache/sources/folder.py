"""Files in a folder; the first level of subfolders are the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator


def walk_files(root: str) -> Iterator[tuple[str, str]]:
    """`(path, relative path)` of every file below `root`, in the order of their relative paths.

    Hidden files and folders are passed over; links to folders are followed, each real folder once. Raises OSError
    for a folder that cannot be listed.
    """
    yield from _walk(root, "", {os.path.realpath(root)})


def _walk(folder: str, prefix: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        relative = prefix + entry.name
        if not _is_dir(entry):
            yield entry.path, relative
        elif (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            yield from _walk(entry.path, relative + "/", seen)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it fails as that of a file
        return False


def class_of(relative: str) -> str | None:
    """The class of a file: the first folder of its relative path, None for a file beside the class folders."""
    first, slash, _ = relative.partition("/")
    return first if slash else None
