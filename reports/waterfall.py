"""The waterfall: a sample's stages one after the other, as they overlap, and as they could."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fovcache.bench.profiler.result import OverlappedRun, Profile, SerialRun, StageTimes, WhatIf

from .figures import BAR, HATCH_WAIT, ROW_IN, drawn, heading, label, new_figure, part, rows
from .numbers import TimeUnit, percent, rate, time_unit
from .palette import LIGHT, Theme, mixed, stage_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HATCH_FAILED = "//////"
_MAX_PREDICTED = 20
_PREDICTED_ROW = 1.25  # of a row's height: two lines of text
_RESOURCES = ("network", "disk", "cpu", "gpu", "step")
_OF_THE_STEP = ("gpu", "step")
RESOURCE_NAMES = {"cpu": "cpu cores", "step": "training step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one stage takes of a sample that came through, in a serial run."""

    stage: StageTimes
    """The stage."""
    good_s: float
    """Seconds, of samples that did not fail in it."""
    failed_s: float
    """Seconds, of samples that did."""


def steps(profile: Profile) -> list[Step]:
    """The stages' parts of a sample. With `unattributed_s` they add up to the serial seconds a sample."""
    if profile.serial is None:  # a fault: there is no common count of samples
        return [Step(stage=stage, good_s=drawn(stage.mean_s), failed_s=0.0) for stage in profile.stages]
    n = max(profile.serial.n, 1)
    return [
        Step(stage=stage, good_s=drawn((stage.total_s - stage.failed_s) / n), failed_s=drawn(stage.failed_s / n))
        for stage in profile.stages
    ]


def unattributed_s(serial: SerialRun) -> float:
    """Seconds of a sample that no stage had."""
    return drawn(serial.unattributed_share * serial.s_per_sample)


def draw_waterfall(profile: Profile, theme: Theme = LIGHT) -> Figure | None:
    """Serial above overlapped above predicted, on one axis of time; None where nothing was measured."""
    panels: list[tuple[Callable[[Axes, Profile, Theme, TimeUnit], None], float]] = []
    if profile.stages:
        panels.append((_draw_serial, len(profile.stages) + (2 if profile.serial else 0)))
    if profile.overlapped:
        panels.append((_draw_overlapped, len(profile.overlapped.busy) + 1))
    if profile.predicted:
        panels.append((_draw_predicted, _PREDICTED_ROW * len(profile.predicted[:_MAX_PREDICTED])))
    if not panels:
        return None
    figure = new_figure(sum(ROW_IN * num + 0.42 for _, num in panels) + 0.45)
    grid = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=[num for _, num in panels])
    longest = _longest(profile)
    unit = time_unit([longest])
    for axes, (draw, _) in zip(grid[:, 0], panels, strict=True):
        axes.tick_params(axis="x", length=0)
        axes.spines["bottom"].set_visible(False)
        draw(axes, profile, theme, unit)
    last = grid[-1, 0]
    last.spines["bottom"].set_visible(True)
    last.set_xlim(0, longest / unit.seconds * 1.02 or 1)
    last.set_xlabel(f"{unit.name} a sample")
    return figure


def _longest(profile: Profile) -> float:
    serial = sum(step.good_s + step.failed_s for step in steps(profile))
    if profile.serial:
        serial = max(serial + unattributed_s(profile.serial), drawn(profile.serial.s_per_sample))
    overlapped = drawn(profile.overlapped.s_per_sample) if profile.overlapped else 0.0
    shown = profile.predicted[:_MAX_PREDICTED]
    predicted = [each.s_per_sample for each in shown] + [each.measured.s_per_sample for each in shown if each.measured]
    return max([serial, overlapped, *map(drawn, predicted)])


def _draw_serial(axes: Axes, profile: Profile, theme: Theme, unit: TimeUnit) -> None:
    serial, parts = profile.serial, steps(profile)
    colours = stage_colours([stage.id for stage in profile.stages])
    heading(axes, "Serial", "one stage after the other: " + (_speed(serial, unit) if serial else "what was measured"))
    ends = [0.0]
    for row, step in enumerate(parts):
        colour, start = colours[step.stage.id], ends[-1]
        _bar(axes, row, start, step.good_s, unit, facecolor=colour, edgecolor=theme.ink)
        pale = mixed(colour, theme.paper, 0.7)
        failed = {"facecolor": pale, "edgecolor": theme.ink, "hatch": _HATCH_FAILED}
        _bar(axes, row, start + step.good_s, step.failed_s, unit, **failed)
        ends.append(start + step.good_s + step.failed_s)
        text = unit.text(step.good_s + step.failed_s)
        text += f"  {percent(step.stage.share)}" if serial else ""
        text += f", of it {unit.text(step.failed_s)} failed" if step.failed_s else ""
        label(axes, row, ends[-1] / unit.seconds, text)
    names = [step.stage.name for step in parts]
    if serial:
        rest, whole = unattributed_s(serial), drawn(serial.s_per_sample)
        _bar(axes, len(parts), ends[-1], rest, unit, facecolor=theme.paper, edgecolor=theme.muted)
        text = f"{unit.text(rest)}  {percent(serial.unattributed_share)}"
        label(axes, len(parts), (ends[-1] + rest) / unit.seconds, text)
        _bar(axes, len(parts) + 1, 0, whole, unit, facecolor=theme.measured, edgecolor=theme.ink)
        label(axes, len(parts) + 1, whole / unit.seconds, f"{unit.text(whole)}  {percent(1)}")
        names += ["unattributed", "total"]
        ends += [ends[-1] + rest]
    for row, end in enumerate(ends[1:-1]):
        axes.plot([end / unit.seconds] * 2, [row + BAR / 2, row + 1 - BAR / 2], color=theme.muted, linewidth=0.6)
    rows(axes, names)


def _draw_overlapped(axes: Axes, profile: Profile, theme: Theme, unit: TimeUnit) -> None:
    run = profile.overlapped
    assert run is not None
    heading(axes, "Overlapped", "as measured: " + _speed(run, unit))
    whole = drawn(run.s_per_sample)
    colours = stage_colours([stage.id for stage in profile.stages])
    order = sorted(run.busy, key=lambda name: (_RESOURCES.index(name) if name in _RESOURCES else 9, name))
    for row, resource in enumerate(order):
        _bar(axes, row, 0, whole, unit, facecolor=theme.track, edgecolor="none")
        start, weights = 0.0, _weights(profile, run, resource)
        for stage, weight in weights.items():
            length = part(run.busy[resource]) * whole * weight
            _bar(axes, row, start, length, unit, facecolor=colours.get(stage, theme.measured), edgecolor=theme.ink)
            start += length
        label(axes, row, whole / unit.seconds, f"{percent(run.busy[resource])} busy")
    row, stall = len(order), part(run.stall) * whole
    _bar(axes, row, 0, whole, unit, facecolor=theme.track, edgecolor="none")
    _bar(axes, row, whole - stall, stall, unit, facecolor=theme.paper, edgecolor=theme.wait, hatch=HATCH_WAIT)
    label(axes, row, whole / unit.seconds, f"{percent(run.stall)} waiting")
    rows(axes, [*(RESOURCE_NAMES.get(name, name) for name in order), "the device waits for input"])


def _weights(profile: Profile, run: OverlappedRun, resource: str) -> dict[str, float]:
    """How a resource's busy time is split between its stages: by device events, core time or serial time."""
    stages = [stage for stage in profile.stages if stage.resource == resource]
    if resource in _OF_THE_STEP:
        seconds = {stage: drawn(value) for stage, value in run.device_s.items()}
    elif resource == "cpu":
        seconds = {stage.id: drawn(stage.cpu_s) for stage in stages}
    else:
        seconds = {stage.id: drawn(stage.mean_s) for stage in stages}
    whole = sum(seconds.values())
    return {stage: value / whole for stage, value in seconds.items()} if whole else {"": 1.0}


def _draw_predicted(axes: Axes, profile: Profile, theme: Theme, unit: TimeUnit) -> None:
    shown = profile.predicted[:_MAX_PREDICTED]
    measured = any(each.measured for each in shown)
    notes = ["dashed: as measured now"] * bool(profile.overlapped) + ["◇ the prediction, measured"] * measured
    heading(axes, "Predicted", ", ".join(["time a sample with one change", *notes]))
    for row, each in enumerate(shown):
        length = drawn(each.s_per_sample)
        _bar(axes, row, 0, length, unit, facecolor=theme.predicted, edgecolor=theme.ink)
        end = length
        if each.measured:
            end = max(length, drawn(each.measured.s_per_sample))
            axes.plot(
                drawn(each.measured.s_per_sample) / unit.seconds, row, marker="D", markersize=5.5, color=theme.paper,
                markeredgecolor=theme.ink, markeredgewidth=1.1, clip_on=False, zorder=3,
            )  # fmt: skip
        label(axes, row, end / unit.seconds, _prediction(each, unit), gap=9 if each.measured else 5)
    if profile.overlapped:
        now = drawn(profile.overlapped.s_per_sample) / unit.seconds
        axes.axvline(now, color=theme.wait, linewidth=1, linestyle=(0, (4, 2)), zorder=0.9)
    rows(axes, [each.change for each in shown], lines=2)


def _prediction(what_if: WhatIf, unit: TimeUnit) -> str:
    text = unit.text(what_if.s_per_sample)
    if what_if.measured:
        return f"{text}, measured {unit.text(what_if.measured.s_per_sample)}"
    return text


def _speed(run: SerialRun | OverlappedRun, unit: TimeUnit) -> str:
    return f"{unit.text(run.s_per_sample)} a sample, {rate(run.samples_per_hour)}"


def _bar(axes: Axes, row: int, start_s: float, length_s: float, unit: TimeUnit, **style: Any) -> None:
    if length_s > 0:
        axes.barh(row, length_s / unit.seconds, left=start_s / unit.seconds, height=BAR, linewidth=0.5, **style)
