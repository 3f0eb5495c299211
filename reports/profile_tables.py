"""The tables of a profile as values, for Markdown; the page has its own, with bars."""

from __future__ import annotations

from collections.abc import Iterator

from fovcache.bench.profiler.result import Profile

from .numbers import digits, percent
from .profile_view import ProfileView
from .table import ABSENT, Cell, Table, count, table, text


def profile_tables(view: ProfileView) -> Iterator[Table]:
    """Stages, and predictions."""
    profile, times = view.profile, view.times
    columns = ("stage", "n", "mean", "median", "p10", "p90", "95 % interval", "failed", "share")
    rows = [
        [
            text(stage.name),
            count(stage.n),
            *(
                Cell(text=times.number(value), value=value)
                for value in (stage.mean_s, stage.median_s, stage.p10_s, stage.p90_s)
            ),
            Cell(text=f"{times.number(stage.ci95_s[0])} – {times.number(stage.ci95_s[1])}"),
            count(stage.failed),
            Cell(text=percent(stage.share), value=stage.share) if profile.serial else ABSENT,
        ]
        for stage in profile.stages
    ]
    caption = f"Stages run one at a time, in {times.name} a sample; shares are of the serial wall time."
    yield table(f"{view.prefix}stages", caption, columns, rows)
    yield _predictions(view, profile)


def _predictions(view: ProfileView, profile: Profile) -> Table:
    columns = ("change", "time", "samples/h", "speed-up", "<limited by", "measured time", "error", "<command")
    rows = [
        [
            text(each.change),
            Cell(text=view.times.number(each.s_per_sample), value=each.s_per_sample),
            Cell(text=digits(each.samples_per_hour), value=each.samples_per_hour),
            Cell(text=f"×{digits(each.speedup)}", value=each.speedup),
            text(view.names.get(each.limited_by, each.limited_by)),
            Cell(text=view.times.number(each.measured.s_per_sample), value=each.measured.s_per_sample)
            if each.measured
            else ABSENT,
            Cell(text=percent(each.measured.error, sign=True), value=each.measured.error) if each.measured else ABSENT,
            text(each.command),
        ]
        for each in profile.predicted
    ]
    caption = f"Predictions of one change each, in {view.times.name} a sample."
    return table(f"{view.prefix}predictions", caption, columns, rows)
