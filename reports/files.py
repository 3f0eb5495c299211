"""What a report is on disk: files that are each whole or as they were, the page last."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .picture import Picture

HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What was written."""

    html: Path
    """The page; it needs no other file."""
    pngs: tuple[Path, ...]
    """The figures that there are numbers for."""
    markdown: Path | None = None
    """The tables as Markdown; only of a folder of results."""


def png_files(pictures: Iterable[Picture]) -> dict[str, bytes]:
    """Figures by file name, as they look on paper."""
    return {f"{picture.name}.png": picture.light for picture in pictures}


def write_pngs(folder: Path, files: Mapping[str, bytes], earlier: Iterable[str]) -> tuple[Path, ...]:
    """Write figures into `folder`, which is made, and remove those of `earlier` that are not among them."""
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_whole(folder / name, data)
    for name in earlier:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    return tuple(folder / name for name in files)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
