"""What figures show, in words: a caption for everybody, and the picture's content for those who cannot see it."""

from __future__ import annotations

from fovcache.bench.profiler.result import Profile

from .numbers import count, duration, percent, rate
from .timeline import extent_s, lanes, real_spans, shown_spans
from .waterfall import steps
from .what_if import longest_bar


def waterfall_caption(profile: Profile) -> str:
    """How to read the waterfall."""
    text = "Time of one sample, on one axis. "
    if profile.serial:
        text += "Serial: each stage begins where the one before ended; hatched is time that failed samples took. "
    if profile.overlapped:
        text += (
            "Overlapped: for each resource the part of the time a sample takes in which it was busy, split between its "
            "stages as their device events, core times or serial times are. "
        )
    if profile.predicted:
        text += "Predicted: the time a sample would take after one change."
    return text.strip()


def waterfall_alt(profile: Profile) -> str:
    """The waterfall's content."""
    parts = [f"{step.stage.name} {duration(step.good_s + step.failed_s)}" for step in steps(profile)]
    text = f"Serial: {', '.join(parts) or 'nothing measured'}."
    if profile.overlapped:
        run = profile.overlapped
        busy = ", ".join(f"{name} {percent(value)} busy" for name, value in run.busy.items())
        text += f" Overlapped: {duration(run.s_per_sample)} a sample, {busy}, {percent(run.stall)} waiting for input."
    if profile.predicted:
        text += " Predicted: " + ", ".join(f"{each.change} {duration(each.s_per_sample)}" for each in profile.predicted)
    return text


def timeline_caption(profile: Profile) -> str:
    """How to read the timeline."""
    spans, recorded = shown_spans(profile), real_spans(profile)
    names = lanes(profile, spans)
    text = f"What each thread and the device did in {duration(extent_s(spans))} of the overlapped run"
    text += f", of {duration(extent_s(recorded))} recorded" if len(spans) < len(recorded) else ""
    hidden = len({span.lane for span in spans}) - len(names)
    text += f"; {count(hidden)} more threads are not shown" if hidden > 0 else ""
    return f"{text}. Grey is time in which a thread ran no stage."


def timeline_alt(profile: Profile) -> str:
    """The timeline's content."""
    spans = shown_spans(profile)
    parts = []
    for lane in lanes(profile, spans):
        mine = [span for span in spans if span.lane == lane]
        busy = sum(span.end_s - span.start_s for span in mine)
        parts.append(f"{lane}: {count(len(mine))} spans, {duration(busy)} in all")
    return f"Bars of stages along time. {'; '.join(parts)}."


def what_if_caption(profile: Profile) -> str:
    """How to read the figure of what-ifs."""
    text = "Samples an hour now and after one change each; dashed is now."
    if any(each.samples_per_hour > longest_bar(profile) for each in profile.predicted):
        text += " A bar with a gap is cut: it would be longer."
    if any(each.measured for each in profile.predicted):
        text += " The error is that of the predicted time: below zero the prediction was too fast."
    return text


def what_if_alt(profile: Profile) -> str:
    """The figure of what-ifs' content."""
    parts = []
    for each in profile.predicted:
        measured = f", measured {rate(each.measured.samples_per_hour)}" if each.measured else ""
        parts.append(f"{each.change}: {rate(each.samples_per_hour)}{measured}")
    now = f"Now {rate(profile.overlapped.samples_per_hour)}. " if profile.overlapped else ""
    return f"{now}{'; '.join(parts)}."
