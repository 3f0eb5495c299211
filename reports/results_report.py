"""The report of a folder of results: a page that holds everything, its tables as Markdown, its figures as PNGs."""

from __future__ import annotations

import re
from pathlib import Path

from .ablation_view import ARMS, OF_CELL
from .ablation_view import FIGURES as ABLATION_FIGURES
from .files import HTML_NAME, MARKDOWN_NAME, ReportFiles, png_files, write_pngs, write_whole
from .page import render
from .profile_view import FIGURES as PROFILE_FIGURES
from .quality_view import FIGURES as QUALITY_FIGURES
from .results import Results
from .results_markdown import results_markdown
from .results_view import results_view
from .train_view import FIGURES as TRAIN_FIGURES

FIGURES_FOLDER = "figures"
_FIGURES = (*PROFILE_FIGURES, *QUALITY_FIGURES, *ABLATION_FIGURES, *TRAIN_FIGURES)
_NAMES = "|".join(name for name, *_ in _FIGURES)
_OURS = re.compile(rf"(?:{_NAMES}|{ARMS}|{OF_CELL}\w+)(?:-\d+)?\.png", re.ASCII)


def write_results(results: Results, folder: Path) -> ReportFiles:
    """Write `report.html`, `report.md` and `figures/*.png` into `folder`, which is made.

    Those of an earlier report are replaced, and nothing else is touched. Each file is whole or as it was, and the page
    comes last. Raises OSError where it cannot be written.
    """
    view = results_view(results)
    html = render("results.html", report=view, subtitle=view.subtitle)
    markdown = results_markdown(view, FIGURES_FOLDER).encode("utf-8", "replace")
    folder.mkdir(parents=True, exist_ok=True)
    figures = folder / FIGURES_FOLDER
    earlier = sorted(path.name for path in figures.glob("*.png") if _OURS.fullmatch(path.name))
    pngs = write_pngs(figures, png_files(view.pictures), earlier)
    write_whole(folder / MARKDOWN_NAME, markdown)
    write_whole(folder / HTML_NAME, html)
    return ReportFiles(html=folder / HTML_NAME, pngs=pngs, markdown=folder / MARKDOWN_NAME)
