"""CKA as a square of layers by layers, and beside it of each layer with its random twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fovcache.probes.quality.result import LayerQuality, Quality

from .figures import WIDTH_IN, drawable, is_drawable, new_figure
from .numbers import ABSENT
from .palette import HEAT, LIGHT, Theme, contrast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 64
"""More are cut, those nearest to the input; the result's file has all."""
_MAX_WRITTEN = 26
"""Layers of which cells hold their number."""
_LABELS_IN, _SCALE_IN = 2.0, 0.13
_MAX_CELL_IN = 0.5
_DARK, _BRIGHT = "#000000", "#ffffff"


def compared_layers(quality: Quality) -> Sequence[LayerQuality]:
    """Those that fit, in the encoder's order; none where there is nothing to compare."""
    if len(quality.layers) < 2 and not any(each.twin for each in quality.layers):
        return ()
    return quality.layers[-MAX_LAYERS:]


def draw_layer_similarity(quality: Quality, theme: Theme = LIGHT) -> Figure | None:
    """Layers from the input down and to the right; None where there is nothing to compare."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    layers = compared_layers(quality)
    if not layers:
        return None
    num, first = len(layers), len(quality.layers) - len(layers)
    has_twin = any(each.twin for each in layers)
    num_columns = num + 1.5 * has_twin
    cell_in = min((WIDTH_IN - _LABELS_IN) / num_columns, _MAX_CELL_IN)
    rest_in = max(WIDTH_IN - _LABELS_IN - cell_in * num_columns, 0.01)
    height_in = max(cell_in * num, 0.3)
    figure = new_figure(height_in + _SCALE_IN + 1.6)
    grid = figure.subplots(2, 2, squeeze=False, width_ratios=[cell_in * num_columns, rest_in],
                           height_ratios=[height_in, _SCALE_IN])  # fmt: skip
    for axes in grid[:, 1]:
        axes.set_axis_off()
    axes = grid[0, 0]
    scale = ScalarMappable(Normalize(0, 1), colormaps[HEAT])
    square = [line[first:] for line in quality.cka[first:]]
    _draw_cells(axes, 0.0, square, num, scale, theme)
    if has_twin:
        _draw_cells(axes, num + 0.5, [(each.cka_with_twin,) for each in layers], num, scale, theme)
    names = [drawable(each.layer, 20) for each in layers]
    places = [*range(num), *([num + 0.5] if has_twin else [])]
    axes.set_xticks(places, labels=[*names, *(["its twin"] if has_twin else [])], rotation=90, fontsize=8)
    axes.set_yticks(range(num), labels=names, fontsize=8)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlim(-0.5, num_columns - 0.5)
    axes.set_ylim(num - 0.5, -0.5)
    bar = figure.colorbar(scale, cax=grid[1, 0], orientation="horizontal")
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("debiased CKA", fontsize=8)
    return figure


def _draw_cells(
    axes: Axes, left: float, lines: Sequence[Sequence[float | None]], num: int, scale: Any, theme: Theme
) -> None:
    """Rows of as many cells each, the first around `left`; what is missing has no colour."""
    import numpy as np
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    height, width = len(lines), len(lines[0])
    values = np.array([[value if _is_there(value) else np.nan for value in line] for line in lines], np.float64)
    axes.add_patch(Rectangle((left - 0.5, -0.5), width, height, facecolor=theme.track, linewidth=0))
    edges = np.arange(width + 1) + left - 0.5, np.arange(height + 1) - 0.5
    axes.pcolormesh(
        *edges, np.ma.masked_invalid(values), cmap=scale.cmap, norm=scale.norm, edgecolors=theme.paper, linewidth=0.6,
        antialiased=True,
    )  # fmt: skip
    if num > _MAX_WRITTEN:
        return
    for (row, column), value in np.ndenumerate(values):
        colour = theme.track if np.isnan(value) else to_hex(scale.to_rgba(value))
        ink = theme.muted if np.isnan(value) else max((_DARK, _BRIGHT), key=lambda each: contrast(each, colour))
        text = ABSENT if np.isnan(value) else f"{value:.2f}".replace("0.", ".").replace("-", "−")
        axes.annotate(text, (left + column, row), ha="center", va="center", color=ink, fontsize=6.8)


def _is_there(value: float | None) -> bool:
    return value is not None and is_drawable(value)
