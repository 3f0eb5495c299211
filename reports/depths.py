"""Accuracy by depth as lines: beside a heat map of few representations, row by row the same numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fovcache.probes.result import Ablation

from .cells import chance
from .figures import drawable, is_drawable
from .palette import Theme, series_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def encoder_of(layer: str) -> str:
    """The alias of `ALIAS:…`; empty where there is none."""
    return layer.rpartition(":")[0]


def draw_depths(axes: Axes, ablation: Ablation, layers: Sequence[str], names: Sequence[str], theme: Theme) -> None:
    """A line for each representation and encoder, its interval as a band; empty where there is nothing to join."""
    if not names or len(layers) < 2:
        axes.set_axis_off()
        return
    by_encoder = [list(rows) for _, rows in itertools.groupby(range(len(layers)), lambda row: encoder_of(layers[row]))]
    for (name, colour), rows in itertools.product(series_colours(names, theme).items(), by_encoder):
        cells = [(row, ablation.estimate(name, layers[row])) for row in rows]
        there = [(row, cell) for row, cell in cells if cell is not None and is_drawable(cell.mean)]
        ends = [(row, cell.ci95) for row, cell in there if cell.ci95 is not None]
        if ends:
            lows, highs = zip(*((100 * low, 100 * high) for _, (low, high) in ends), strict=True)
            axes.fill_betweenx([row for row, _ in ends], lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            [100 * cell.mean for _, cell in there], [row for row, _ in there], color=colour, marker="o", markersize=3,
            linewidth=1.4,
        )  # fmt: skip
    if is_drawable(chance(ablation)):
        axes.axvline(100 * chance(ablation), color=theme.wait, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_yticks(range(len(layers)), labels=[""] * len(layers))
    axes.tick_params(labelsize=8)
    axes.set_title("test accuracy, %, and its 95 % interval", fontsize=8.5)
    if len(names) > 1:
        _legend(axes, names, theme)


def _legend(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, marker="o", markersize=3) for colour in series_colours(names, theme).values()]
    # Named afterwards: a label that starts with `_` would be left out.
    legend = axes.legend(lines, ["-"] * len(lines), frameon=False, fontsize=8, loc="best")
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(drawable(name, 24))
