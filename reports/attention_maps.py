"""Where queries look: attention to the patches of each frame, queries as rows, frames as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fovcache.probes.train.result import BASE, MAIN, AttentionMap, Run, TrainSuite

from .figures import WIDTH_IN, drawable, is_drawable, new_figure
from .palette import HEAT, LIGHT, Theme
from .train_runs import arms, done, runs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FRAMES = 16
"""More are cut; as many samples are beside each other as fit into so many columns."""
MAX_SAMPLES = 3
"""More are cut."""
MAX_QUERIES = 3
"""Of an arm."""
_COARSE = "coarse"
_LABELS_IN, _SCALE_IN, _GAP_IN, _MAX_CELL_IN = 1.3, 0.12, 0.16, 1.05
_SCALE_LETTERS_IN = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRow:
    """One row of pictures: a query of a run."""

    run: Run
    """Whose model looks."""
    name: str
    """The query's."""
    maps: tuple[AttentionMap | None, ...]
    """Of each sample that is shown; None where the run has none of it."""


def looking_runs(suite: TrainSuite) -> list[Run]:
    """The base's first done run that has maps, and beside it a coarse arm's, else another's."""
    found = [run for arm in arms(suite) if (run := _first(suite, arm)) is not None]
    base = [run for run in found if run.arm == BASE]
    others = sorted((run for run in found if run.arm != BASE), key=lambda run: _COARSE not in run.arm)
    return [*base, *others[:1]]


def shown_samples(suite: TrainSuite) -> list[str]:
    """As many as fit beside each other."""
    every = [each for run in looking_runs(suite) for each in run.attention if _frames(each)]
    longest = max((len(_frames(each)) for each in every), default=1)
    return list(dict.fromkeys(each.sample for each in every))[: max(min(MAX_SAMPLES, MAX_FRAMES // longest), 1)]


def shown_maps(suite: TrainSuite) -> list[MapRow]:
    """Each run's queries in their order, as far as they fit."""
    samples = shown_samples(suite)
    rows = []
    for run in looking_runs(suite):
        found = {(each.name, each.sample): each for each in run.attention if _frames(each)}
        names = [name for name in dict.fromkeys(name for name, _ in found) if any((name, s) in found for s in samples)]
        rows += [
            MapRow(run=run, name=name, maps=tuple(found.get((name, sample)) for sample in samples))
            for name in names[:MAX_QUERIES]
        ]
    return rows


def _first(suite: TrainSuite, arm: str) -> Run | None:
    return next((run for run in done(runs_of(suite, MAIN, arm)) if any(map(_frames, run.attention))), None)


def _frames(each: AttentionMap) -> list[Any]:
    """Its frames as arrays, as far as they fit; empty where they are no rectangles of numbers."""
    import numpy as np

    frames = each.frames[:MAX_FRAMES]
    if any(not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows) for rows in frames):
        return []
    return [np.array([[v if is_drawable(v) else np.nan for v in row] for row in rows], np.float64) for rows in frames]


def draw_attention(suite: TrainSuite, theme: Theme = LIGHT) -> Figure | None:
    """A picture for each frame, one scale of colours for all; None where no run that is done has maps."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    rows = shown_maps(suite)
    drawn = [[_frames(each) if each else [] for each in row.maps] for row in rows]
    every = [frame for blocks in drawn for frames in blocks for frame in frames]
    if not every:
        return None
    lengths = [max(map(len, blocks)) for blocks in zip(*drawn, strict=True)]
    gaps_in = _GAP_IN * (len(lengths) - 1)
    cell_in = min((WIDTH_IN - _LABELS_IN - gaps_in) / sum(lengths), _MAX_CELL_IN)
    widths, starts = _columns(lengths, cell_in)
    heights = [
        cell_in * max(frame.shape[0] / frame.shape[1] for frames in blocks for frame in frames) for blocks in drawn
    ]
    figure = new_figure(sum(heights) + 0.06 * len(heights) + _SCALE_IN + 0.95)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(
        len(heights) + 1, len(widths), squeeze=False, height_ratios=[*heights, _SCALE_IN], width_ratios=widths
    )
    for axes in grid.flat:
        axes.set_axis_off()
    scale = ScalarMappable(PowerNorm(0.5, 0, _highest(every)), colormaps[HEAT])
    for line, row, blocks in zip(grid, rows, drawn, strict=False):
        for start, frames in zip(starts, blocks, strict=True):
            _draw_frames(line[start:], frames, scale, theme)
        _name_row(line[0], row)
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        name = drawable(shown_samples(suite)[number], max(int(length * cell_in * 12), 8))
        _name_frames(grid[0][start : start + length], name)
    num_columns = next((n for n in range(1, len(widths)) if sum(widths[:n]) >= _SCALE_LETTERS_IN), len(widths))
    _draw_scale(figure, grid[-1], num_columns, scale, _uniform(every), theme)
    return figure


def _columns(lengths: Sequence[int], cell_in: float) -> tuple[list[float], list[int]]:
    """(widths of the grid's columns, where each sample's begin): gaps between samples, and what is left at the end."""
    widths: list[float] = []
    starts = []
    for length in lengths:
        widths += [_GAP_IN] if widths else []
        starts.append(len(widths))
        widths += [cell_in] * length
    return [*widths, max(WIDTH_IN - _LABELS_IN - sum(widths), 0.01)], starts


def _highest(frames: Sequence[Any]) -> float:
    import numpy as np

    highest = max((float(np.nanmax(frame)) for frame in frames if not np.isnan(frame).all()), default=0.0)
    return highest if highest > 0 else 1.0


def _uniform(frames: Sequence[Any]) -> float | None:
    """What each patch has where all are looked at alike; None where frames differ in their number."""
    sizes = {frame.size for frame in frames}
    return 1 / sizes.pop() if len(sizes) == 1 else None


def _draw_frames(line: Sequence[Axes], frames: Sequence[Any], scale: Any, theme: Theme) -> None:
    for axes, frame in zip(line, frames, strict=False):
        axes.set_axis_on()
        axes.set_facecolor(theme.track)
        axes.imshow(frame, cmap=scale.cmap, norm=scale.norm, interpolation="nearest", aspect="equal")
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)


def _name_row(axes: Axes, row: MapRow) -> None:
    for text, up, weight in ((drawable(row.run.arm, 20), 6, "bold"), (f"query {drawable(row.name, 14)}", -6, "normal")):
        axes.annotate(
            text, (0, 0.5), xycoords="axes fraction", xytext=(-6, up), textcoords="offset points", ha="right",
            va="center", fontsize=8, weight=weight, annotation_clip=False,
        )  # fmt: skip


def _name_frames(line: Sequence[Axes], sample: str) -> None:
    for number, axes in enumerate(line):
        axes.set_title(f"\n{number}", fontsize=8, loc="center", pad=3)  # its first line is room for the sample's name
    line[0].annotate(
        sample, (0, 1), xycoords="axes fraction", xytext=(0, 14), textcoords="offset points", fontsize=8,
        annotation_clip=False, in_layout=False,
    )  # fmt: skip


def _draw_scale(
    figure: Figure, line: Sequence[Axes], num_columns: int, scale: Any, uniform: float | None, theme: Theme
) -> None:
    """Below the first columns, as wide as they are."""
    spec = line[0].get_gridspec()
    assert spec is not None
    axes = figure.add_subplot(spec[-1, :num_columns])
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(labelsize=8)
    text = "attention to a patch"
    if uniform is not None:
        axes.axvline(uniform, color=theme.wait, linewidth=2.5, clip_on=False)
        text += f"; red line: all alike, {uniform:.2g}"
    bar.set_label(text, fontsize=8)
