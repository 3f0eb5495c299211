"""The heat map: the accuracy of each layer by itself, by representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fovcache.probes.result import Ablation, Estimate

from .cells import chance, representations
from .depths import draw_depths, encoder_of
from .figures import WIDTH_IN, drawable, is_drawable, new_figure
from .numbers import ABSENT, half_interval, points
from .palette import HEAT, LIGHT, Theme, contrast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS, MAX_REPRESENTATIONS = 160, 12
"""More are cut; the table has all."""
_ROW_IN = 0.26
_SCALE_IN = 0.13
_MAX_COLUMN_IN = 1.2
_MIN_DEPTHS_IN = 2.4
_LINE_LETTERS = 12
_LABELS_IN = 2.0
_DARK, _BRIGHT = "#000000", "#ffffff"


def shown_layers(ablation: Ablation) -> list[str]:
    """Single layers that have an estimate, in the encoder's order, as far as they fit."""
    run = {each.experiment for each in ablation.estimates}
    return [layer for layer in ablation.single_layers if layer in run][:MAX_LAYERS]


def shown_columns(ablation: Ablation) -> list[str]:
    """Representations that have an estimate of a shown layer, the best first, as far as they fit."""
    layers = shown_layers(ablation)
    found = [name for name in representations(ablation) if any(ablation.estimate(name, layer) for layer in layers)]
    return found[:MAX_REPRESENTATIONS]


def draw_heat_map(ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """Layers from the input down, representations side by side; None without single layers."""
    layers, names = shown_layers(ablation), shown_columns(ablation)
    if not layers or not names:
        return None
    cells = [[ablation.estimate(name, layer) for name in names] for layer in layers]
    height_in = _ROW_IN * len(layers)
    figure = new_figure(height_in + _SCALE_IN + 1.05)
    # Columns keep a readable width: what is left stays empty at the right.
    used_in = min((WIDTH_IN - _LABELS_IN) / len(names), _MAX_COLUMN_IN) * len(names)
    rest_in = max(WIDTH_IN - _LABELS_IN - used_in, 0.01)
    grid = figure.subplots(2, 2, squeeze=False, width_ratios=[used_in, rest_in], height_ratios=[height_in, _SCALE_IN])
    grid[1, 1].set_axis_off()
    draw_depths(grid[0, 1], ablation, layers, names if rest_in >= _MIN_DEPTHS_IN else [], theme)
    axes = grid[0, 0]
    scale = _scale(cells, ablation)
    _draw_cells(axes, cells, scale, theme)
    axes.set_xticks(range(len(names)), labels=[_column_name(name) for name in names], fontsize=8)
    axes.set_yticks(range(len(layers)), labels=[drawable(layer) for layer in layers])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    _separate_encoders(axes, layers, theme)
    _draw_scale(figure, grid[1, 0], scale, ablation, theme)
    return figure


def _scale(cells: Sequence[Sequence[Estimate | None]], ablation: Ablation) -> Any:
    """Colours from chance, or what lies below it, to the highest."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    ends = [100 * cell.mean for row in cells for cell in row if cell and is_drawable(cell.mean)] or [0.0, 100.0]
    ends += [100 * chance(ablation)] if is_drawable(chance(ablation)) else []
    low, high = min(ends), max(ends)
    return ScalarMappable(Normalize(low, high if high > low else low + 1), colormaps[HEAT])


def _draw_cells(axes: Axes, cells: Sequence[Sequence[Estimate | None]], scale: Any, theme: Theme) -> None:
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            is_there = cell is not None and is_drawable(cell.mean)
            colour = to_hex(scale.to_rgba(100 * cell.mean)) if cell is not None and is_there else theme.track
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=theme.paper, linewidth=0.8)
            )
            if cell is None or not is_there:
                axes.annotate(
                    ABSENT, (column, row), ha="center", va="center", color=theme.muted, fontsize=8, in_layout=False
                )
                continue
            ink = max((_DARK, _BRIGHT), key=lambda each: contrast(each, colour))
            half = half_interval(cell.ci95)
            shift = -1.5 if half else 0
            axes.annotate(
                points(cell.mean), (column, row), xytext=(shift, -0.5), textcoords="offset points", va="center",
                ha="right" if half else "center", color=ink, fontsize=8, weight="bold",
                in_layout=False,
            )  # fmt: skip
            axes.annotate(
                half, (column, row), xytext=(1.5, -0.5), textcoords="offset points", va="center", ha="left",
                color=ink, fontsize=6.8, in_layout=False,
            )  # fmt: skip


def _column_name(name: str) -> str:
    """In two lines where it is long, broken behind a `_` if there is one in the right place."""
    name = drawable(name, 2 * _LINE_LETTERS)
    at = name.rfind("_", max(len(name) - _LINE_LETTERS - 1, 0), _LINE_LETTERS) + 1 or _LINE_LETTERS
    return name if len(name) < _LINE_LETTERS - 1 or at >= len(name) else f"{name[:at]}\n{name[at:]}"


def _separate_encoders(axes: Axes, layers: Sequence[str], theme: Theme) -> None:
    """A gap where layers `ALIAS:…` go over to another encoder's."""
    encoders = [encoder_of(layer) for layer in layers]
    for row in range(1, len(layers)):
        if encoders[row] != encoders[row - 1]:
            axes.axhline(row - 0.5, color=theme.paper, linewidth=5)
            axes.axhline(row - 0.5, color=theme.muted, linewidth=0.8)


def _draw_scale(figure: Figure, axes: Axes, scale: Any, ablation: Ablation, theme: Theme) -> None:
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(labelsize=8)
    level = chance(ablation)
    text = "test accuracy, %"
    if is_drawable(level):
        axes.axvline(100 * level, color=theme.wait, linewidth=2.5, clip_on=False)
        text += f"; red line: chance, {points(level)}"
    bar.set_label(text, fontsize=8)
