"""The page of a profile: one HTML file that loads nothing, runs no script and shows text as text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from fovcache.bench.profiler.result import Profile, WhatIf

from . import numbers
from .figures import part
from .palette import DARK, LIGHT, css_variables, stage_colours
from .waterfall import RESOURCE_NAMES, unattributed_s

_MAX_FAILURES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure in the page."""

    name: str
    """Of its PNG file, without the ending."""
    caption: str
    """How to read it."""
    alt: str
    """What it shows, for those who cannot see it."""
    light: bytes
    """PNG on a light background."""
    dark: bytes
    """PNG on a dark one, of the same size."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height on the page: half of the picture's own."""
        width, height = (int.from_bytes(self.light[at : at + 4], "big") for at in (16, 20))  # in a PNG's header
        return width // 2, height // 2

    @staticmethod
    def uri(data: bytes) -> str:
        """A `data:` URI."""
        return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def page(profile: Profile, pictures: Sequence[Picture]) -> str:
    """The HTML of a profile. The same profile and pictures give the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fovcache.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(numbers=numbers, part=part)
    return environment.get_template("profile.html").render(
        profile=profile,
        pictures={picture.name: picture for picture in pictures},
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        colours=stage_colours([stage.id for stage in profile.stages]),
        names={stage.id: stage.name for stage in profile.stages},
        subtitle=_subtitle(profile),
        bound=_bound(profile),
        resources=RESOURCE_NAMES,
        times=numbers.time_unit(_times(profile)),
        unattributed_s=unattributed_s(profile.serial) if profile.serial else 0.0,
        failures=profile.failures[:_MAX_FAILURES],
    )


def _subtitle(profile: Profile) -> str:
    """What was profiled and on what, in one line."""
    machine = profile.environment.get("gpu") or profile.environment.get("cpu")
    shown = [*((name, profile.settings.get(name)) for name in ("sources", "encoders", "model")), ("machine", machine)]
    return " · ".join(numbers.described(name, value) for name, value in shown if value)


def _bound(profile: Profile) -> WhatIf | None:
    """The prediction of full overlap, with nothing else changed."""
    return next((each for each in profile.predicted if each.id == "overlap"), None)


def _times(profile: Profile) -> list[float]:
    """Those that the tables show beside each other."""
    times = [stage.mean_s for stage in profile.stages]
    times += [profile.serial.s_per_sample] if profile.serial else []
    return times + ([profile.overlapped.s_per_sample] if profile.overlapped else [])
