"""What all figures share: a style that no user's configuration changes, safe text, and their bytes as PNG."""

from __future__ import annotations

import functools
import io
import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .palette import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH_IN = 9.6
"""Of every figure, inches."""
DPI = 200
"""Twice what a page shows."""
ROW_IN = 0.27
"""Height of a row of bars, inches."""
BAR = 0.68
"""Height of a bar, as a part of its row."""
MAX_HEIGHT_IN = 60.0
"""Beyond it a picture serves nobody."""

HATCH_WAIT = "\\\\\\\\"
"""On time in which something waits."""

_NAME_LETTERS = 34
_BEYOND_REASON = 1e12
_FEW_DECADES = 500.0


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Draw and save inside it: matplotlib's own defaults, our colours, no mathematics in text, no log lines."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the first import on a machine reports that it builds a font cache
    try:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_style(theme))
            yield
    finally:
        logger.setLevel(level)


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
        "font.size": 8.5,
        "text.color": theme.ink,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "grid.color": theme.track,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "ytick.major.size": 0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "hatch.linewidth": 0.7,
    }


def new_figure(height_in: float) -> Figure:
    """An empty figure of the common width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, min(height_in, MAX_HEIGHT_IN)), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes each time; to be called inside `drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # `Figure.savefig` would lay it out a second time, and keep an alpha that is 1 everywhere
    buffer = io.BytesIO()
    pixels = canvas.buffer_rgba()
    Image.frombuffer("RGBA", pixels.shape[1::-1], pixels, "raw", "RGBA", 0, 1).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def rows(axes: Axes, names: list[str], *, lines: int = 1) -> None:
    """One row for each name, the first on top; long names take up to `lines` lines."""
    axes.set_yticks(range(len(names)), labels=[wrapped(name, lines) for name in names], linespacing=1.0)
    axes.set_ylim(len(names) - 0.45, -0.55)


def label(axes: Axes, row: float, end: float, text: str, *, gap: float = 5) -> None:
    """Text `gap` points behind the end of a bar; the layout makes room for it."""
    behind = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.0}
    axes.annotate(text, (end, row), xytext=(gap, -0.5), textcoords="offset points", va="center", bbox=behind)


def heading(axes: Axes, title: str, text: str) -> None:
    """A bold word above the rows' names, and a line above the bars."""
    axes.set_title(text, fontsize=8.5, pad=5)
    axes.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(-3.5, 5), textcoords="offset points", ha="right",
        va="baseline", weight="bold", fontsize=9.5,
    )  # fmt: skip


def log_ticks(axis: Axis, ratio: float) -> None:
    """Ticks of a logarithmic axis whose ends have this ratio: powers of ten; twos and fives where there is room."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < _FEW_DECADES else (1,)))
    axis.set_minor_locator(NullLocator())


def drawable(text: str, most: int = _NAME_LETTERS) -> str:
    """Any text as one short line of letters that the font has; the page shows the whole of it."""
    known = _letters()
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
    return "".join(letter if ord(letter) in known and letter.isprintable() else "\ufffd" for letter in line)


def wrapped(text: str, lines: int) -> str:
    """Any text in so many drawable lines, broken between words where there are any."""
    parts = textwrap.wrap(drawable(text, lines * _NAME_LETTERS), _NAME_LETTERS) or [""]
    if len(parts) > lines:  # what the breaks took no longer fits
        parts = [*parts[: lines - 1], drawable(" ".join(parts[lines - 1 :]))]
    return "\n".join(parts)


def drawn(value: float) -> float:
    """A length to draw: what is no number, below zero or beyond all reason has none."""
    return value if is_drawable(value) and value > 0 else 0.0


def is_drawable(value: float) -> bool:
    """Whether an axis can hold it."""
    return abs(value) < _BEYOND_REASON  # which is false for what is no number


def part(value: float) -> float:
    """A fraction to draw, 0 to 1."""
    return min(drawn(value), 1.0)


@functools.cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager

    path = font_manager.findfont("DejaVu Sans", fallback_to_default=True)
    return frozenset(font_manager.get_font(path).get_charmap())
