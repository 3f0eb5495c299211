"""The timeline: which stage each thread and the device ran when, in a part of the overlapped run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fovcache.bench.profiler.result import Profile, Span

from .figures import BAR, HATCH_WAIT, ROW_IN, drawable, is_drawable, new_figure, rows
from .numbers import time_unit
from .palette import LIGHT, Theme, stage_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICE_LANE = "device"
_MAX_LANES = 32
_MAX_SPANS_OF_LANE = 90  # more are too thin to be told apart
_MAX_LEGEND = 30
_MIN_EDGED = 0.004  # of the window: a narrower span would be all edge


def real_spans(profile: Profile) -> list[Span]:
    """Those that have a length, by their start."""
    spans = [span for span in profile.timeline if is_drawable(span.start_s) and is_drawable(span.end_s)]
    return sorted((span for span in spans if span.end_s > span.start_s), key=lambda span: (span.start_s, span.end_s))


def shown_spans(profile: Profile) -> list[Span]:
    """What the figure shows: from the start, until the busiest lane has as many spans as can be told apart."""
    spans = real_spans(profile)
    counts: Counter[str] = Counter()
    for number, span in enumerate(spans):
        counts[span.lane] += 1
        if counts[span.lane] > _MAX_SPANS_OF_LANE and span.start_s > spans[0].start_s:
            before = [each for each in spans[:number] if each.start_s < span.start_s]
            return [replace(each, end_s=min(each.end_s, span.start_s)) for each in before]
    return spans


def extent_s(spans: Sequence[Span]) -> float:
    """From the first one's start to the last one's end."""
    return max(span.end_s for span in spans) - spans[0].start_s


def lanes(profile: Profile, spans: Sequence[Span]) -> list[str]:
    """Threads in the order of their stages in the pipeline, then the device."""
    places = {stage.id: place for place, stage in enumerate(profile.stages)}
    first: dict[str, tuple[int, str]] = {}
    for span in spans:
        place = (places.get(span.stage, len(places)), span.lane)
        first[span.lane] = min(first.get(span.lane, place), place)
    threads = sorted((lane for lane in first if lane != DEVICE_LANE), key=lambda lane: (first[lane][0], _natural(lane)))
    device = [DEVICE_LANE] if DEVICE_LANE in first else []
    return threads[: _MAX_LANES - len(device)] + device


def draw_timeline(profile: Profile, theme: Theme = LIGHT) -> Figure | None:
    """A row for each thread and one for the device, gaps in the track's colour; None without spans."""
    spans = shown_spans(profile)
    if not spans:
        return None
    names = lanes(profile, spans)
    begin, extent = spans[0].start_s, extent_s(spans)
    unit = time_unit([extent])
    ids = [stage.id for stage in profile.stages]
    ids += [stage for stage in dict.fromkeys(span.stage for span in spans) if stage not in ids]
    colours = stage_colours(ids)
    drawn_ids = [each for each in ids if any(span.stage == each for span in spans)]
    legend_rows = -(-min(len(drawn_ids) + 1, _MAX_LEGEND) // 5)
    figure = new_figure(ROW_IN * (len(names) + 0.8 * legend_rows) + 0.75)
    axes = figure.subplots()
    for row, lane in enumerate(names):
        waits: dict[str, Any] = {
            "facecolor": theme.paper,
            "edgecolor": theme.wait,
            "hatch": HATCH_WAIT,
            "linewidth": 0.0,
        }
        track = waits if lane == DEVICE_LANE else {"facecolor": theme.track, "linewidth": 0.0}
        axes.broken_barh([(0, extent / unit.seconds)], (row - BAR / 2, BAR), zorder=1, **track)
        for stage in drawn_ids:
            mine = [span for span in spans if span.lane == lane and span.stage == stage]
            if mine:
                lengths = [span.end_s - span.start_s for span in mine]
                axes.broken_barh(
                    [
                        ((span.start_s - begin) / unit.seconds, length / unit.seconds)
                        for span, length in zip(mine, lengths, strict=True)
                    ],
                    (row - BAR / 2, BAR),
                    facecolor=colours[stage],
                    edgecolor=[theme.paper if length > _MIN_EDGED * extent else colours[stage] for length in lengths],
                    linewidth=0.4,  # a narrow one widens by it, lest it vanish
                    zorder=2,
                )
    rows(axes, names)
    axes.set_xlim(0, extent / unit.seconds)
    axes.set_xlabel(f"{unit.name} since the first span shown")
    known = {stage.id: stage.name for stage in profile.stages}
    _legend(figure, [(known.get(each, each), colours[each]) for each in drawn_ids], DEVICE_LANE in names, theme)
    return figure


def _legend(figure: Figure, entries: list[tuple[str, str]], has_device: bool, theme: Theme) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, edgecolor=theme.ink, linewidth=0.5) for _, colour in entries[:_MAX_LEGEND]]
    texts = [drawable(name) for name, _ in entries[:_MAX_LEGEND]]
    if has_device:
        patches.append(Patch(facecolor=theme.paper, edgecolor=theme.wait, hatch=HATCH_WAIT, linewidth=0.5))
        texts.append("the device has nothing to do")
    # Named afterwards: a label that starts with `_` would be left out.
    legend = figure.legend(
        patches, ["-"] * len(patches), loc="outside upper left", ncols=min(5, len(patches)), frameon=False,
        handlelength=1.2, handleheight=0.9,
    )  # fmt: skip
    for label, text in zip(legend.get_texts(), texts, strict=True):
        label.set_text(text)


def _natural(lane: str) -> tuple[int, str]:
    """`fetch-10` after `fetch-9`."""
    return len(lane), lane
