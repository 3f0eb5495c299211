"""The report of a profile: `report.html`, which holds everything, and its figures as PNG files beside it."""

from __future__ import annotations

from pathlib import Path

from fovcache.bench.profiler.result import Profile

from .files import HTML_NAME, ReportFiles, png_files, write_pngs, write_whole
from .page import render
from .profile_view import FIGURES, profile_view, subtitle


def write_report(profile: Profile, folder: Path) -> ReportFiles:
    """Write a profile's page and figures into `folder`, which is made; earlier ones there are replaced.

    Each file is whole or as it was, and the page comes last. Raises OSError where it cannot be written.
    """
    view = profile_view(profile)
    html = render("profile.html", view=view, subtitle=subtitle(profile))
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [f"{name}.png" for name, *_ in FIGURES]
    pngs = write_pngs(folder, png_files(view.pictures.values()), earlier)
    write_whole(folder / HTML_NAME, html)
    return ReportFiles(html=folder / HTML_NAME, pngs=pngs)
