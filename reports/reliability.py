"""The reliability diagram of a cell: how often answers are right that are given with so much confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fovcache.probes.result import Ablation

from .cells import chosen, metrics_of
from .figures import WIDTH_IN, new_figure
from .palette import LIGHT, Theme, share_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE_IN = 3.3
_FEW = 10
"""Answers in a bin below which its accuracy says little."""


def draw_reliability(ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """Of the cell that validation chooses; None where its head gives no probabilities."""
    metrics = metrics_of(ablation, chosen(ablation))
    if metrics is None or not metrics.reliability:
        return None
    figure = new_figure(_SIDE_IN + 0.6)
    curve, counts, rest = figure.subplots(1, 3, width_ratios=[_SIDE_IN, _SIDE_IN, WIDTH_IN - 2 * _SIDE_IN - 1.6])
    rest.set_axis_off()
    colour = share_colour(1, theme)
    bins = [each for each in metrics.reliability if each[0] > 0]
    curve.plot([0, 100], [0, 100], color=theme.muted, linewidth=1, linestyle=(0, (4, 2)))
    many = [each for each in bins if each[0] >= _FEW]
    curve.plot([100 * mean for _, mean, _ in many], [100 * right for *_, right in many], color=colour, linewidth=1.2)
    for num, mean, right in bins:
        face = colour if num >= _FEW else theme.paper
        curve.plot(
            100 * mean, 100 * right, marker="o", markersize=5.5, color=colour, markerfacecolor=face, clip_on=False
        )
    _finish(curve, "right, %")
    curve.set_ylim(0, 100)
    total = sum(num for num, *_ in metrics.reliability)
    width = 100 / len(metrics.reliability)
    for place, (num, *_) in enumerate(metrics.reliability):
        counts.bar((place + 0.5) * width, 100 * num / max(total, 1), width * 0.86, color=theme.measured)
    _finish(counts, "answers, %")
    return figure


def _finish(axes: Axes, name: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_xlabel("confidence: probability of the answer, %")
    axes.set_ylabel(name)
    axes.grid(axis="both")
