"""The forest plot of a verdict: each condition's difference or ratio with its interval, diagnostics apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fovcache.probes.train.result import Condition, TrainSuite

from .figures import drawable, is_drawable, log_ticks, new_figure, wrapped
from .numbers import percent, resolved, spanned
from .palette import LIGHT, Theme, share_colour
from .train_runs import diagnostics, metric_of, of_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTROL, DIAGNOSTIC = "negative control", "diagnostic, biased"
"""What is beside the verdict's own conditions, in words."""
_ROW_IN, _AROUND_IN = 0.34, 0.7
_COLUMNS = (50, 140, 174)
"""Where the texts behind the axes end, points from them: the number, its interval, the interval's level."""
_WIDE = 4.0
"""Ratios that are further apart than this are drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Conditions that share an axis."""

    title: str
    """What their numbers are."""
    neutral: float
    """What stands for no difference."""
    conditions: tuple[Condition, ...]
    """Those that have a number."""
    kind: str = ""
    """CONTROL or DIAGNOSTIC; empty for the verdict's own."""


def number_form(condition: Condition) -> Callable[[float], str]:
    """How its numbers are written: as its interval needs, differences with their sign."""
    width = condition.ci[1] - condition.ci[0] if condition.ci else abs(condition.mean or 0.0)
    return resolved(width, sign=condition.neutral == 0)


def groups(suite: TrainSuite) -> list[Group]:
    """The verdict's differences and ratios, those of the control, then diagnostics; none without a verdict."""
    kinds = (
        ("", suite.verdict.conditions if suite.verdict else ()),
        (CONTROL, of_control(suite)),
        (DIAGNOSTIC, diagnostics(suite)),
    )
    found = []
    for kind, every in kinds:
        there = [each for each in every if each.mean is not None and is_drawable(each.mean)]
        for neutral in sorted({each.neutral for each in there}):
            word = {0.0: "difference", 1.0: "ratio"}.get(neutral, "value")
            found.append(
                Group(
                    title=f"{word} of {metric_of(suite)}{f' ({kind})' if kind else ''}",
                    neutral=neutral,
                    conditions=tuple(each for each in there if each.neutral == neutral),
                    kind=kind,
                )
            )
    return found


def draw_verdict(suite: TrainSuite, theme: Theme = LIGHT) -> Figure | None:
    """A row for each condition that has a number; None where none has."""
    shown = groups(suite)
    if not shown:
        return None
    heights = [_ROW_IN * len(group.conditions) + _AROUND_IN for group in shown]
    figure = new_figure(sum(heights) + 0.4)
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(panels, shown, strict=True):
        _draw_group(axes, group, theme)
    _legend(figure, shown, theme)
    return figure


def _draw_group(axes: Axes, group: Group, theme: Theme) -> None:
    ends = _ends(group)
    if group.neutral == 1 and min(ends) > 0 and max(ends) / min(ends) > _WIDE:
        axes.set_xscale("log")
        log_ticks(axes.xaxis, max(ends) / min(ends))
        around = (max(ends) / min(ends)) ** 0.05
        axes.set_xlim(min(ends) / around, max(ends) * around)
    else:
        margin = 0.05 * (max(ends) - min(ends)) or 0.5
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,g}".replace("-", "−"))
    axes.axvline(group.neutral, color=theme.ink, linewidth=1, zorder=0.9)
    for row, condition in enumerate(group.conditions):
        _draw_row(axes, row, condition, group.kind, theme)
    names = [wrapped(each.name.removeprefix(f"{DIAGNOSTIC}: "), 2) for each in group.conditions]
    axes.set_yticks(range(len(names)), labels=names, linespacing=1.0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(drawable(group.title, 80))
    axes.tick_params(labelsize=8)
    for text, place in zip((group.title.partition(" ")[0], "interval", "level"), _COLUMNS, strict=True):
        axes.annotate(
            text, (1, 1), xycoords="axes fraction", xytext=(place, 2), textcoords="offset points", ha="right",
            fontsize=8, weight="bold", annotation_clip=False,
        )  # fmt: skip


def _draw_row(axes: Axes, row: int, condition: Condition, kind: str, theme: Theme) -> None:
    assert condition.mean is not None
    if _there(condition.within):
        low, high = condition.within or (0.0, 0.0)
        axes.fill_betweenx([row - 0.38, row + 0.38], low, high, color=theme.track, linewidth=0, zorder=0.8)
    colour, face, marker = _look(condition.holds, kind, theme)
    if _there(condition.ci):
        axes.plot(condition.ci or (), [row, row], color=colour, linewidth=1.9, solid_capstyle="butt")
    axes.plot(
        condition.mean, row, marker=marker, markersize=5.5, color=colour, clip_on=False, zorder=3,
        markerfacecolor=face,
    )  # fmt: skip
    each = [value for value in condition.per_seed if is_drawable(value)]
    axes.plot(
        each, [row + 0.27] * len(each), linestyle="", marker="|", markersize=4.5, color=theme.muted, clip_on=False
    )
    form = number_form(condition)
    level = percent(condition.level).replace(".0", "") if condition.ci else ""
    for text, place in zip((form(condition.mean), spanned(condition.ci, form), level), _COLUMNS, strict=True):
        axes.annotate(
            text, (1, row), xycoords=("axes fraction", "data"), xytext=(place, -0.5), textcoords="offset points",
            ha="right", va="center", color=theme.ink if place == _COLUMNS[0] else theme.muted, fontsize=8,
            annotation_clip=False, in_layout=False,
        )  # fmt: skip


def _look(holds: bool | None, kind: str, theme: Theme) -> tuple[str, str, str]:
    """(colour, colour inside, marker)"""
    if kind:
        return theme.muted, theme.paper, "D" if kind == DIAGNOSTIC else "s"
    colour = {True: share_colour(1, theme), False: theme.wait, None: theme.muted}[holds]
    return colour, colour if holds else theme.paper, "o"


def _there(ends: tuple[float, float] | None) -> bool:
    return ends is not None and all(map(is_drawable, ends))


def _ends(group: Group) -> list[float]:
    """Everything that is drawn."""
    found = [group.neutral]
    for each in group.conditions:
        found += [each.mean or 0.0, *(each.ci or ()), *(each.within or ()), *each.per_seed]
    return [end for end in found if is_drawable(end)]


def _legend(figure: Figure, shown: Sequence[Group], theme: Theme) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = dict.fromkeys(
        (None if group.kind else each.holds, group.kind) for group in shown for each in group.conditions
    )
    handles: list[Line2D | Patch] = []
    names = []
    for holds, kind in kinds:
        colour, face, marker = _look(holds, kind, theme)
        handles.append(Line2D([], [], color=colour, linewidth=1.9, marker=marker, markersize=5.5, markerfacecolor=face))
        names.append(kind or HOLDS[holds])
    if any(each.per_seed for group in shown for each in group.conditions):
        handles.append(Line2D([], [], linestyle="", marker="|", markersize=4.5, color=theme.muted))
        names.append("each seed")
    if any(each.within for group in shown for each in group.conditions):
        handles.append(Patch(color=theme.track))
        names.append("bounds of equivalence")
    figure.legend(handles, names, loc="outside upper left", ncols=6, frameon=False, handlelength=2.2)


HOLDS = {True: "holds", False: "does not hold", None: "could not be asked"}
"""In words."""
