"""What the templates of a profile need: the profile, its figures, and what is worked out from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fovcache.bench.profiler.result import Profile, WhatIf

from . import captions, numbers
from .numbers import TimeUnit
from .palette import stage_colours
from .picture import Draw, Picture, Words, draw_picture
from .timeline import draw_timeline
from .waterfall import RESOURCE_NAMES, draw_waterfall, unattributed_s
from .what_if import draw_what_if

FIGURES: tuple[tuple[str, Draw[Profile], Words[Profile], Words[Profile]], ...] = (
    ("waterfall", draw_waterfall, captions.waterfall_caption, captions.waterfall_alt),
    ("timeline", draw_timeline, captions.timeline_caption, captions.timeline_alt),
    ("what_if", draw_what_if, captions.what_if_caption, captions.what_if_alt),
)
_MAX_FAILURES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """A profile on a page."""

    profile: Profile
    """The profile."""
    name: str
    """Of its file; empty on a page of its own."""
    prefix: str
    """What the ids of its elements begin with, so that several profiles stand on one page."""
    level: int
    """Of its inner headings."""
    pictures: Mapping[str, Picture]
    """By the figure's name; those that the profile has the numbers for."""
    colours: Mapping[str, str]
    """By stage id."""
    names: Mapping[str, str]
    """By stage id."""
    times: TimeUnit
    """Of the times in its tables."""
    bound: WhatIf | None
    """The prediction of full overlap, with nothing else changed."""
    unattributed_s: float
    """Seconds of a sample that no stage had."""
    failures: tuple[dict[str, Any], ...]
    """Those that are listed."""
    resources: Mapping[str, str]
    """What resources are called."""


def profile_view(profile: Profile, *, name: str = "", prefix: str = "", level: int = 2, number: int = 1) -> ProfileView:
    """A profile with its figures drawn; the first's are `waterfall` …, a second's `waterfall-2` …"""
    files = {figure: figure if number == 1 else f"{figure}-{number}" for figure, *_ in FIGURES}
    drawn = {figure: draw_picture(profile, files[figure], draw, caption, alt) for figure, draw, caption, alt in FIGURES}
    return ProfileView(
        profile=profile,
        name=name,
        prefix=prefix,
        level=level,
        pictures={figure: picture for figure, picture in drawn.items() if picture},
        colours=stage_colours([stage.id for stage in profile.stages]),
        names={stage.id: stage.name for stage in profile.stages},
        times=numbers.time_unit(_times(profile)),
        bound=next((each for each in profile.predicted if each.id == "overlap"), None),
        unattributed_s=unattributed_s(profile.serial) if profile.serial else 0.0,
        failures=profile.failures[:_MAX_FAILURES],
        resources=RESOURCE_NAMES,
    )


def subtitle(profile: Profile) -> str:
    """What was profiled and on what, in one line."""
    machine = profile.environment.get("gpu") or profile.environment.get("cpu")
    shown = [*((name, profile.settings.get(name)) for name in ("sources", "encoders", "model")), ("machine", machine)]
    return " · ".join(numbers.described(name, value) for name, value in shown if value)


def _times(profile: Profile) -> list[float]:
    """Those that the tables show beside each other."""
    times = [stage.mean_s for stage in profile.stages]
    times += [profile.serial.s_per_sample] if profile.serial else []
    return times + ([profile.overlapped.s_per_sample] if profile.overlapped else [])
