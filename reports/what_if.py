"""The figure of what-ifs: throughput as it is, as predicted, and as then measured."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from fovcache.bench.profiler.result import Profile

from .figures import ROW_IN, drawn, label, new_figure, rows
from .numbers import digits, percent
from .palette import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_PREDICTED = 20
_BAR = 0.36
_VAST = 12  # times the median


def draw_what_if(profile: Profile, theme: Theme = LIGHT) -> Figure | None:
    """Bars of samples an hour, predicted above measured; None where nothing was predicted."""
    shown = profile.predicted[:_MAX_PREDICTED]
    if not shown:
        return None
    limit = longest_bar(profile)
    figure = new_figure(ROW_IN * 1.7 * (len(shown) + 1) + 0.85)
    axes = figure.subplots()
    names = ["overlapped, as measured now"] if profile.overlapped else []
    if profile.overlapped:
        now = drawn(profile.overlapped.samples_per_hour)
        _bar(axes, 0, now, limit, 2 * _BAR, theme.measured, theme)
        label(axes, 0, min(now, limit), digits(now))
        axes.axvline(now, color=theme.wait, linewidth=1, linestyle=(0, (4, 2)), zorder=0.9)
    for row, each in enumerate(shown, start=len(names)):
        shift = _BAR / 2 if each.measured else 0.0
        predicted = drawn(each.samples_per_hour)
        _bar(axes, row - shift, predicted, limit, _BAR if each.measured else 2 * _BAR, theme.predicted, theme)
        label(axes, row - shift, min(predicted, limit), f"{digits(predicted)}  ×{digits(each.speedup)}")
        if each.measured:
            measured = drawn(each.measured.samples_per_hour)
            _bar(axes, row + shift, measured, limit, _BAR, theme.measured, theme)
            error = percent(each.measured.error, sign=True)
            label(axes, row + shift, min(measured, limit), f"{digits(measured)} measured, error {error}")
    rows(axes, [*names, *(each.change for each in shown)], lines=2)
    axes.set_xlim(0, limit * 1.02 or 1)
    axes.set_xlabel("samples an hour")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _legend(figure, theme)
    return figure


def longest_bar(profile: Profile) -> float:
    """Samples an hour at which longer bars are cut, so that one vast promise does not hide the others."""
    rates = [each.samples_per_hour for each in profile.predicted]
    rates += [each.measured.samples_per_hour for each in profile.predicted if each.measured]
    rates += [profile.overlapped.samples_per_hour] if profile.overlapped else []
    lengths = sorted(filter(None, map(drawn, rates)))
    if not lengths:
        return 0.0
    within = [length for length in lengths if length <= _VAST * statistics.median_low(lengths)]
    return lengths[-1] if len(within) == len(lengths) else 2 * within[-1]


def _bar(axes: Axes, row: float, length: float, limit: float, height: float, colour: str, theme: Theme) -> None:
    axes.barh(row, min(length, limit), height=height, facecolor=colour, edgecolor=theme.ink, linewidth=0.5)
    if length > limit:
        slant, width = 0.006 * limit, 0.01 * limit
        for at in (0.93 * limit, 0.95 * limit):
            xs = [at - slant, at + slant, at + slant + width, at - slant + width]
            ys = [row + 0.55 * height, row - 0.55 * height, row - 0.55 * height, row + 0.55 * height]
            axes.fill(xs, ys, facecolor=theme.paper, linewidth=0)


def _legend(figure: Figure, theme: Theme) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, edgecolor=theme.ink, linewidth=0.5) for colour in (theme.predicted, theme.measured)
    ]
    figure.legend(
        patches, ["predicted", "measured"], loc="outside upper left", ncols=2, frameon=False, handlelength=1.2,
        handleheight=0.9,
    )  # fmt: skip
