"""The forest of differences: each with its interval around the line of none, and which hold when all are counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from fovcache.probes.result import RANDOM_LAYERS, Ablation, ArmComparison, Difference

from .cells import representations
from .figures import drawable, is_drawable, new_figure
from .numbers import effect, interval, p_value, points
from .palette import LIGHT, Theme, share_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Groups: TypeAlias = list[tuple[str, list[tuple[str, Difference]]]]
"""What is compared, and the differences with their names."""
LEVEL = 0.05
"""A corrected p below counts as a difference."""
MAX_ROWS = 150
"""More are cut, whole comparisons at a time; the table has all."""
_ROW_IN, _HEAD_IN = 0.22, 0.24
_COLUMNS = (("difference", 54), ("95 % interval", 132), ("p (Holm)", 182), ("effect", 220))
"""What stands behind the axes, and how many points from them it ends."""


def is_told(difference: Difference) -> bool:
    """Whether it differs from none when all differences of the ablation are counted."""
    return difference.p_holm is not None and difference.p_holm < LEVEL


def other_name(difference: Difference) -> str:
    """What is subtracted."""
    return "as many random layers" if difference.other_control == RANDOM_LAYERS else difference.other


def comparison(difference: Difference) -> str:
    """`early less all`."""
    return f"{difference.experiment} less {other_name(difference)}"


def compared(ablation: Ablation) -> list[list[Difference]]:
    """By comparison, in the order of the configuration, those between experiments first; then by representation."""
    place = {name: number for number, name in enumerate(representations(ablation))}
    groups: dict[tuple[bool, str, str], list[Difference]] = {}
    for each in ablation.differences:
        is_random = each.other_control == RANDOM_LAYERS
        groups.setdefault((is_random, each.experiment, each.other), []).append(each)
    for group in groups.values():
        group.sort(key=lambda each: place.get(each.representation, len(place)))
    return [group for _, group in sorted(groups.items(), key=lambda item: item[0][0])]


def shown_differences(ablation: Ablation) -> Groups:
    """Comparisons by what they are called, each difference by its representation; as far as they fit."""
    return _fitting(
        (comparison(group[0]), [(each.representation, each) for each in group]) for group in compared(ablation)
    )


def shown_arms(arms: Sequence[ArmComparison]) -> Groups:
    """Arms by their names, each difference by its representation and experiment; as far as they fit."""
    return _fitting(
        (
            f"{arm.arm} less the base",
            [(f"{each.representation} of {each.experiment}", each) for each in arm.differences],
        )
        for arm in arms
    )


def draw_differences(ablation: Ablation, theme: Theme = LIGHT) -> Figure | None:
    """A row for each difference between experiments or from random layers; None where there is none."""
    return _draw(shown_differences(ablation), theme)


def draw_arms(arms: Sequence[ArmComparison], theme: Theme = LIGHT) -> Figure | None:
    """A row for each difference of an arm from the base; None where there is none."""
    return _draw(shown_arms(arms), theme)


def _fitting(groups: Iterable[tuple[str, list[tuple[str, Difference]]]]) -> Groups:
    found: Groups = []
    num_rows = 0
    for title, group in groups:
        num_rows += len(group)
        if found and num_rows > MAX_ROWS:
            break
        if group:
            found.append((title, group[:MAX_ROWS]))
    return found


def _draw(groups: Groups, theme: Theme) -> Figure | None:
    if not groups:
        return None
    has_heads = any(len(group) > 1 for _, group in groups)
    figure = new_figure(sum(len(group) * _ROW_IN + _HEAD_IN * has_heads for _, group in groups) + 1.0)
    axes = figure.subplots()
    names: list[tuple[float, str, bool]] = []  # height of its middle in inches, text, whether it heads a group
    top = 0.0
    for title, group in groups:
        if has_heads:
            axes.axhline(top, color=theme.track, linewidth=0.8)
            names.append((top + 0.62 * _HEAD_IN, drawable(title, 44), True))
            top += _HEAD_IN
        for name, each in group:
            y = top + _ROW_IN / 2
            names.append((y, drawable(name if has_heads else title, 44), False))
            _draw_row(axes, y, each, theme)
            top += _ROW_IN
    axes.set_ylim(top + 0.04, 0)
    axes.axvline(0, color=theme.ink, linewidth=1, zorder=0.9)
    every = [each for _, group in groups for _, each in group]
    axes.set_xlim(*_limits(every))
    axes.set_xlabel("difference of test accuracies, points")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:+g}".replace("-", "−") if x else "0")
    _name_rows(axes, names)
    _legend(figure, every, theme)
    return figure


def _draw_row(axes: Axes, y: float, difference: Difference, theme: Theme) -> None:
    colour = share_colour(1, theme) if is_told(difference) else theme.muted
    if difference.ci95 is not None and all(map(is_drawable, difference.ci95)):
        low, high = (100 * end for end in difference.ci95)
        axes.plot([low, high], [y, y], color=colour, linewidth=1.7, solid_capstyle="butt")
    if is_drawable(difference.mean):
        face = colour if is_told(difference) else theme.paper
        axes.plot(100 * difference.mean, y, marker="o", markersize=5, color=colour, markerfacecolor=face, clip_on=False)
    texts = (
        points(difference.mean, sign=True),
        interval(difference.ci95, sign=True),
        p_value(difference.p_holm),
        effect(difference.effect_size),
    )
    for text, (name, place) in zip(texts, _COLUMNS, strict=True):
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), xytext=(place, -0.5), textcoords="offset points",
            ha="right", va="center", color=theme.ink if name != "95 % interval" else theme.muted, fontsize=8,
            annotation_clip=False, weight="bold" if name == "p (Holm)" and is_told(difference) else "normal",
            in_layout=False,
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


def _limits(differences: Sequence[Difference]) -> tuple[float, float]:
    """Around everything that is drawn, and none."""
    ends = [0.0]
    for each in differences:
        ends += [100 * end for end in (each.mean, *(each.ci95 or ())) if is_drawable(end)]
    margin = max(0.04 * (max(ends) - min(ends)), 0.5)
    return min(ends) - margin, max(ends) + margin


def _legend(figure: Figure, differences: Sequence[Difference], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    if all(each.p_holm is None for each in differences):
        return
    colour = share_colour(1, theme)
    handles = [
        Line2D([], [], color=colour, linewidth=1.7, marker="o", markersize=5),
        Line2D([], [], color=theme.muted, linewidth=1.7, marker="o", markersize=5, markerfacecolor=theme.paper),
    ]
    names = [f"p < {LEVEL:g}, all differences counted (Holm)", "not told from none"]
    figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False, handlelength=2.2)
