"""The confusion of a cell: which classes are taken for which, and the accuracy of each class beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fovcache.probes.result import Ablation, Estimate, Metrics

from .cells import chance, chosen, metrics_of
from .figures import WIDTH_IN, drawable, is_drawable, new_figure
from .palette import LIGHT, Theme, contrast, share_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED = 20
"""Of more classes cells hold no numbers."""
_MAX_CELL_IN, _MAX_MATRIX_IN = 0.42, 5.8
_LABELS_IN, _PANEL_IN = 1.3, 3.4
"""The second at most."""
_LABEL_IN = 0.15
"""Nearer names would touch."""
_LETTERS = 16
_SCALE_IN = 0.12
_DARK, _BRIGHT = "#000000", "#ffffff"


def draw_confusion(ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """Of the cell that validation chooses; None where its confusion is not known."""
    return draw_cell_confusion(chosen(ablation), ablation, theme)


def draw_cell_confusion(cell: Estimate | None, ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """Classes from the top down as they are, across as they were answered; None where it is not known."""
    metrics = metrics_of(ablation, cell)
    if metrics is None or not metrics.confusion:
        return None
    names = [drawable(name, _LETTERS) for name in ablation.classes]
    num = len(names)
    cell_in = min(_MAX_CELL_IN, _MAX_MATRIX_IN / num)
    side_in = cell_in * num
    panel_in = min(_PANEL_IN, WIDTH_IN - _LABELS_IN - side_in)
    rest_in = max(WIDTH_IN - _LABELS_IN - side_in - panel_in, 0.01)
    figure = new_figure(side_in + _SCALE_IN + 1.6)
    grid = figure.subplots(
        2, 3, squeeze=False, width_ratios=[side_in, panel_in, rest_in], height_ratios=[side_in, _SCALE_IN]
    )
    for axes in (grid[0, 2], grid[1, 1], grid[1, 2]):
        axes.set_axis_off()
    _draw_matrix(grid[0, 0], metrics.confusion, names, cell_in, theme)
    _draw_classes(grid[0, 1], metrics, names, chance(ablation), cell_in, theme)
    _draw_scale(grid[1, 0], theme)
    return figure


def shares(confusion: Sequence[Sequence[int]]) -> list[list[float]]:
    """Each number as a part of its row's sum; 0 in a row without any."""
    return [[count / max(sum(row), 1) for count in row] for row in confusion]


def _draw_matrix(
    axes: Axes, confusion: Sequence[Sequence[int]], names: Sequence[str], cell_in: float, theme: Theme
) -> None:
    rows = shares(confusion)
    colours = [[share_colour(share, theme) for share in row] for row in rows]
    channels = [[[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in row] for row in colours]
    axes.imshow(channels, aspect="auto", interpolation="nearest")
    num = len(names)
    for edge in range(1, num) if num <= 2 * MAX_NUMBERED else ():
        axes.axhline(edge - 0.5, color=theme.paper, linewidth=0.8)
        axes.axvline(edge - 0.5, color=theme.paper, linewidth=0.8)
    if num <= MAX_NUMBERED:
        for y, row in enumerate(rows):
            for x, share in enumerate(row):
                ink = max((_DARK, _BRIGHT), key=lambda each: contrast(each, colours[y][x]))
                _write_share(axes, x, y, share, ink, bold=x == y)
    places = _places(num, cell_in)
    axes.set_yticks(places, labels=[names[place] for place in places], fontsize=8)
    long = any(len(names[place]) * 0.075 > cell_in * (places[1] if len(places) > 1 else 1) for place in places)
    axes.set_xticks(places, labels=[names[place] for place in places], fontsize=8, rotation=90 if long else 0)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    axes.set_ylabel("class", fontsize=8)
    axes.set_xlabel("answered with, % of the class", fontsize=8)
    axes.xaxis.set_label_position("top")


def _write_share(axes: Axes, x: int, y: int, share: float, ink: str, *, bold: bool) -> None:
    if share > 0:
        text = "<1" if share < 0.01 else f"{100 * share:.0f}"
        axes.annotate(
            text, (x, y), xytext=(0, -0.5), textcoords="offset points", ha="center", va="center", color=ink,
            fontsize=7.5, weight="bold" if bold else "normal", in_layout=False,
        )  # fmt: skip


def _places(num: int, cell_in: float) -> range:
    """The classes that are named: every one, or as many as there is room for."""
    return range(0, num, max(1, math.ceil(_LABEL_IN / cell_in)))


def _draw_classes(
    axes: Axes, metrics: Metrics, names: Sequence[str], level: float, cell_in: float, theme: Theme
) -> None:
    """The accuracy of each class and its interval, in the matrix's rows."""
    size = 4.5 if cell_in > _LABEL_IN else 2.0
    for row, (mean, ci95) in enumerate(zip(metrics.class_accuracies, metrics.class_intervals, strict=True)):
        if ci95 is not None and all(map(is_drawable, ci95)):
            low, high = (100 * end for end in ci95)
            axes.plot([low, high], [row, row], color=theme.measured, linewidth=size / 3, solid_capstyle="butt")
        if mean is not None and is_drawable(mean):
            axes.plot(100 * mean, row, marker="o", markersize=size, color=share_colour(1, theme), clip_on=False)
    if is_drawable(level):
        axes.axvline(100 * level, color=theme.wait, linewidth=1, linestyle=(0, (4, 2)), zorder=0.9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_yticks(list(_places(len(names), cell_in)), labels=[])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=8)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("accuracy of the class, %, and its 95 % interval", fontsize=8)
    axes.xaxis.set_label_position("top")


def _draw_scale(axes: Axes, theme: Theme) -> None:
    steps = [share_colour(step / 255, theme) for step in range(256)]
    axes.imshow(
        [[[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in steps]], aspect="auto",
        extent=(0, 100, 0, 1), interpolation="nearest",
    )  # fmt: skip
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("% of the class's test samples", fontsize=8)
