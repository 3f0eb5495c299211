"""The forest plot: each experiment's accuracy and interval, by representation, its controls and chance beside it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fovcache.probes.result import RANDOM_LAYERS, Ablation, Estimate

from .cells import CONTROL_NAMES, chance, controls, named_experiments, representations
from .figures import drawable, is_drawable, new_figure
from .numbers import count, interval, percent
from .palette import LIGHT, Theme, series_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 150
"""More are cut, whole representations at a time; the table has all."""
_HEAD_IN, _ROW_IN, _LANE_IN = 0.24, 0.2, 0.085
_MARKERS = {RANDOM_LAYERS: "D"}
_COLUMNS = (("accuracy", 44), ("95 % interval", 110), ("features", 156))
"""What stands behind the axes, and how many points from them it ends."""


def shown_groups(ablation: Ablation) -> list[tuple[str, list[Estimate]]]:
    """Representations with their estimates of named experiments, as far as they fit."""
    experiments = named_experiments(ablation)
    groups: list[tuple[str, list[Estimate]]] = []
    num_rows = 0
    for name in representations(ablation):
        found = [each for experiment in experiments if (each := ablation.estimate(name, experiment))]
        num_rows += len(found)
        if groups and num_rows > MAX_ROWS:
            break
        groups += [(name, found[:MAX_ROWS])] if found else []
    return groups


def draw_forest(ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """A row for each representation × experiment; None where there is none."""
    groups = shown_groups(ablation)
    if not groups:
        return None
    kinds = controls(ablation, named_experiments(ablation))
    has_heads = any(len(found) > 1 for _, found in groups)
    lanes = _lanes(ablation, groups, kinds)
    row_in = _ROW_IN + _LANE_IN * (1 + max(lanes.values()) if lanes else 0)
    height_in = sum(len(found) * row_in + _HEAD_IN * has_heads for _, found in groups)
    figure = new_figure(height_in + 1.0)
    axes = figure.subplots()
    colours = series_colours(named_experiments(ablation), theme)
    names: list[tuple[float, str, bool]] = []  # height of its middle in inches, text, whether it heads a group
    top = 0.0
    for group, found in groups:
        if has_heads:
            axes.axhline(top, color=theme.track, linewidth=0.8)
            names.append((top + 0.62 * _HEAD_IN, drawable(group), True))
            top += _HEAD_IN
        for each in found:
            names.append((top + _ROW_IN / 2, drawable(each.experiment if has_heads else group), False))
            _draw_row(axes, names[-1][0], ablation, each, lanes, colours[each.experiment], theme)
            top += row_in
    axes.set_ylim(top + 0.04, 0)
    _name_rows(axes, names)
    _draw_chance(axes, ablation, groups, theme)
    axes.set_xlim(*_limits(ablation, groups, kinds))
    axes.set_xlabel("test accuracy, %")
    axes.xaxis.set_major_formatter("{x:g}")
    _legend(figure, kinds, theme)
    return figure


def _draw_row(
    axes: Axes, y: float, ablation: Ablation, estimate: Estimate, lanes: Mapping[str, int], colour: str, theme: Theme
) -> None:
    _draw_estimate(
        axes, y, estimate, "o", 5.5, linewidth=1.9, color=colour, markerfacecolor=colour, markeredgecolor=colour,
        zorder=3,
    )  # fmt: skip
    for kind, lane in lanes.items():
        control = ablation.estimate(estimate.representation, estimate.experiment, kind)
        if control is not None:
            _draw_estimate(
                axes, y + 0.1 + _LANE_IN * lane, control, _MARKERS.get(kind, "o"), 3.6, linewidth=0.9,
                color=theme.muted, markerfacecolor=theme.paper, markeredgecolor=theme.muted, zorder=2,
            )  # fmt: skip
    texts = percent(estimate.mean), interval(estimate.ci95), count(estimate.num_effective)
    inks = theme.ink, theme.muted, theme.muted
    for text, (_, place), ink in zip(texts, _COLUMNS, inks, strict=True):
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), xytext=(place, -0.5), textcoords="offset points",
            ha="right", va="center", color=ink, fontsize=8, annotation_clip=False, in_layout=False,  # below its heading
        )  # fmt: skip


def _lanes(ablation: Ablation, groups: Sequence[tuple[str, list[Estimate]]], kinds: Sequence[str]) -> dict[str, int]:
    """Below the estimate, one lane for all controls where none of them overlap, else one each."""
    for _, found in groups:
        for each in found:
            beside = (ablation.estimate(each.representation, each.experiment, kind) for kind in kinds)
            spans = sorted(one.ci95 or (one.mean, one.mean) for one in beside if one)
            if any(high + 0.02 > low for (_, high), (low, _) in itertools.pairwise(spans)):
                return {kind: lane for lane, kind in enumerate(kinds)}
    return dict.fromkeys(kinds, 0)


def _draw_estimate(axes: Axes, y: float, estimate: Estimate, marker: str, size: float, **style: Any) -> None:
    if estimate.ci95 is not None and all(map(is_drawable, estimate.ci95)):
        low, high = (100 * end for end in estimate.ci95)
        axes.plot([low, high], [y, y], solid_capstyle="butt", **{**style, "marker": ""})
    if is_drawable(estimate.mean):
        axes.plot(100 * estimate.mean, y, marker=marker, markersize=size, clip_on=False, **{**style, "linewidth": 1})


def _draw_chance(axes: Axes, ablation: Ablation, groups: Sequence[tuple[str, list[Estimate]]], theme: Theme) -> None:
    levels = [each.chance for _, found in groups for each in found if is_drawable(each.chance)]
    if not levels:
        return
    axes.axvspan(100 * min(levels), 100 * max(levels), color=theme.wait, alpha=0.18, linewidth=0, zorder=0.8)
    level = 100 * statistics.fmean(levels)
    axes.axvline(level, color=theme.wait, linewidth=1, linestyle=(0, (4, 2)), zorder=0.9)
    axes.annotate(
        f"chance {percent(chance(ablation))}", (level, 1), xycoords=("data", "axes fraction"), xytext=(3, 4),
        textcoords="offset points", color=theme.wait, fontsize=8,
    )  # fmt: skip


def _name_rows(axes: Axes, names: Sequence[tuple[float, str, bool]]) -> None:
    axes.set_yticks([y for y, _, _ in names], labels=[name for _, name, _ in names])
    for tick, (_, _, is_head) in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if is_head else "normal")
    for text, place in _COLUMNS:
        axes.annotate(
            text, (1, 1), xycoords="axes fraction", xytext=(place, 4), textcoords="offset points", ha="right",
            fontsize=8, weight="bold", annotation_clip=False,
        )  # fmt: skip


def _limits(
    ablation: Ablation, groups: Sequence[tuple[str, list[Estimate]]], kinds: Sequence[str]
) -> tuple[float, float]:
    """Around everything that is drawn."""
    ends: list[float] = []
    for _, found in groups:
        for each in found:
            beside = [ablation.estimate(each.representation, each.experiment, kind) for kind in kinds]
            for one in filter(None, [each, *beside]):
                ends += [one.mean, one.chance, *(one.ci95 or ())]
    ends = [100 * end for end in ends if is_drawable(end)] or [0.0, 100.0]
    margin = max(0.04 * (max(ends) - min(ends)), 0.5)
    return min(ends) - margin, max(ends) + margin


def _legend(figure: Figure, kinds: Sequence[str], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=theme.ink, linewidth=1.9, marker="o", markersize=5.5)]
    names = ["mean of the seeds, 95 % interval"]
    for kind in kinds:
        marker = _MARKERS.get(kind, "o")
        handles.append(
            Line2D([], [], color=theme.muted, linewidth=0.9, marker=marker, markersize=3.6, markerfacecolor=theme.paper)
        )
        names.append(f"control: {CONTROL_NAMES[kind]}")
    figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False, handlelength=2.2)
