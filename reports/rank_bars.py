"""Ranks by depth: a bar for each layer, and a hollow mark for its random twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fovcache.probes.quality.result import LayerQuality, Numbers, Quality

from .figures import BAR, ROW_IN, drawable, drawn, is_drawable, new_figure
from .numbers import digits
from .palette import LIGHT, Theme, series_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 120
"""More are cut, those nearest to the input; the table has all."""
_PANELS: tuple[tuple[str, Callable[[Numbers], float]], ...] = (
    ("variance rank", lambda found: found.variance_rank),
    ("… as % of a Gaussian's", lambda found: 100 * found.gaussian_share),
    ("RankMe", lambda found: found.rankme),
)
_FREE = 1.22
"""Room for numbers behind bars."""


def shown_layers(quality: Quality) -> Sequence[LayerQuality]:
    """Those that fit, in the encoder's order."""
    return quality.layers[-MAX_LAYERS:]


def draw_rank_bars(quality: Quality, theme: Theme = LIGHT) -> Figure | None:
    """Layers from the input down; None without any."""
    layers = shown_layers(quality)
    if not layers:
        return None
    figure = new_figure(ROW_IN * len(layers) + 1.0)
    panels = figure.subplots(1, len(_PANELS), squeeze=False)[0]
    colour = series_colours(["layer"], theme)["layer"]
    for place, (axes, (name, number)) in enumerate(zip(panels, _PANELS, strict=True)):
        _draw_panel(axes, layers, number, colour, theme)
        axes.set_title(name, fontsize=8.5)
        labels = [drawable(each.layer, 24) if place == 0 else "" for each in layers]
        axes.set_yticks(range(len(layers)), labels=labels)
    if any(each.twin for each in layers):
        _legend(figure, colour, theme)
    return figure


def _draw_panel(
    axes: Axes, layers: Sequence[LayerQuality], number: Callable[[Numbers], float], colour: str, theme: Theme
) -> None:
    own = [number(each.numbers) for each in layers]
    axes.barh(range(len(layers)), [drawn(value) for value in own], height=BAR, color=colour)
    twins = [(row, number(each.twin)) for row, each in enumerate(layers) if each.twin is not None]
    there = [(row, value) for row, value in twins if is_drawable(value)]
    axes.plot(
        [value for _, value in there], [row for row, _ in there], linestyle="", marker="D", markersize=4.5,
        markerfacecolor=theme.paper, markeredgecolor=theme.ink, markeredgewidth=0.9,
    )  # fmt: skip
    largest = max([drawn(value) for value in own] + [value for _, value in there], default=0.0)
    beyond = dict(there)
    for row, value in enumerate(own):
        end = max(drawn(value), drawn(beyond.get(row, 0.0)))
        axes.annotate(digits(value), (end, row), xytext=(6, -0.5), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(0, largest * _FREE if largest > 0 else 1)
    axes.set_ylim(len(layers) - 0.45, -0.55)
    axes.tick_params(labelsize=8)


def _legend(figure: Figure, colour: str, theme: Theme) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    mark = Line2D([], [], linestyle="", marker="D", markersize=4.5, markerfacecolor=theme.paper,
                  markeredgecolor=theme.ink)  # fmt: skip
    handles = [Patch(color=colour), mark]
    labels = ["the layer", "the same layer with random weights"]
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
