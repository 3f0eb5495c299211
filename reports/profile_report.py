"""The report of a profile: `report.html`, which holds everything, and its figures as PNG files beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fovcache.bench.profiler.result import Profile

from . import captions
from .figures import drawing, png
from .page import Picture, page
from .palette import DARK, LIGHT, Theme
from .timeline import draw_timeline
from .waterfall import draw_waterfall
from .what_if import draw_what_if

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HTML_NAME = "report.html"

_Draw: TypeAlias = "Callable[[Profile, Theme], Figure | None]"
_Words: TypeAlias = Callable[[Profile], str]
_FIGURES: tuple[tuple[str, _Draw, _Words, _Words], ...] = (
    ("waterfall", draw_waterfall, captions.waterfall_caption, captions.waterfall_alt),
    ("timeline", draw_timeline, captions.timeline_caption, captions.timeline_alt),
    ("what_if", draw_what_if, captions.what_if_caption, captions.what_if_alt),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What `write_report` wrote."""

    html: Path
    """The page; it needs no other file."""
    pngs: tuple[Path, ...]
    """The figures that the profile has the numbers for."""


def write_report(profile: Profile, folder: Path) -> ReportFiles:
    """Write a profile's page and figures into `folder`, which is made; earlier ones there are replaced.

    Each file is whole or as it was, and the page comes last. Raises OSError where it cannot be written.
    """
    pictures = [picture for figure in _FIGURES if (picture := _picture(profile, *figure))]
    files = {f"{picture.name}.png": picture.light for picture in pictures}
    html = page(profile, pictures).encode("utf-8", "replace")  # lone surrogates, of odd file names
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _write(folder / name, data)
    for name, *_ in _FIGURES:  # of an earlier profile, which had more
        if f"{name}.png" not in files:
            (folder / f"{name}.png").unlink(missing_ok=True)
    _write(folder / HTML_NAME, html)
    return ReportFiles(html=folder / HTML_NAME, pngs=tuple(folder / name for name in files))


def _picture(profile: Profile, name: str, draw: _Draw, caption: _Words, alt: _Words) -> Picture | None:
    images = []
    for theme in (LIGHT, DARK):
        with drawing(theme):
            figure = draw(profile, theme)
            if figure is None:
                return None
            images.append(png(figure))
    return Picture(name=name, caption=caption(profile), alt=alt(profile), light=images[0], dark=images[1])


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
