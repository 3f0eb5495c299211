"""The figure of what-ifs: throughput as it is, as predicted, and as then measured."""

from __future__ import annotations

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


def draw_what_if(profile: Profile, theme: Theme = LIGHT) -> Figure | None:
    """Bars of samples an hour, predicted above measured; None where nothing was predicted."""
    shown = profile.predicted[:_MAX_PREDICTED]
    if not shown:
        return None
    figure = new_figure(ROW_IN * 1.7 * (len(shown) + 1) + 0.85)
    axes = figure.subplots()
    names = ["overlapped, as measured now"] if profile.overlapped else []
    if profile.overlapped:
        now = drawn(profile.overlapped.samples_per_hour)
        _bar(axes, 0, now, 2 * _BAR, theme.measured, theme)
        label(axes, 0, now, digits(now))
        axes.axvline(now, color=theme.wait, linewidth=1, linestyle=(0, (4, 2)), zorder=0.9)
    for row, each in enumerate(shown, start=len(names)):
        shift = _BAR / 2 if each.measured else 0.0
        predicted = drawn(each.samples_per_hour)
        _bar(axes, row - shift, predicted, _BAR if each.measured else 2 * _BAR, theme.predicted, theme)
        label(axes, row - shift, predicted, f"{digits(predicted)}  ×{digits(each.speedup)}")
        if each.measured:
            measured = drawn(each.measured.samples_per_hour)
            _bar(axes, row + shift, measured, _BAR, theme.measured, theme)
            label(
                axes,
                row + shift,
                measured,
                f"{digits(measured)} measured, error {percent(each.measured.error, sign=True)}",
            )
    rows(axes, [*names, *(each.change for each in shown)])
    axes.set_xlim(left=0)
    axes.set_xlabel("samples an hour")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _legend(figure, theme)
    return figure


def _bar(axes: Axes, row: float, length: float, height: float, colour: str, theme: Theme) -> None:
    axes.barh(row, length, height=height, facecolor=colour, edgecolor=theme.ink, linewidth=0.5)


def _legend(figure: Figure, theme: Theme) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, edgecolor=theme.ink, linewidth=0.5) for colour in (theme.predicted, theme.measured)
    ]
    figure.legend(
        patches, ["predicted", "measured"], loc="outside upper left", ncols=2, frameon=False, handlelength=1.2,
        handleheight=0.9,
    )  # fmt: skip
