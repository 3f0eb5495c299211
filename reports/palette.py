"""The colours of reports: one for each stage in every figure, apart for colour-blind readers, on light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Paul Tol's "muted" scheme, and a grey. Neighbours in a pipeline differ in lightness too.
_OF_STAGE = {
    "fetch": "#88ccee",
    "load": "#44aa99",
    "decode": "#cc6677",
    "vae_encode": "#ddcc77",
    "encode": "#117733",
    "copy": "#999933",
    "forward": "#332288",
    "backward": "#aa4499",
    "optimise": "#882255",
    "write": "#8a94a0",
}
# Of Tol's "bright" and "muted": apart in lightness too where they follow each other.
_OF_SERIES = (
    "#4477aa", "#cc6677", "#117733", "#ccbb44", "#66ccee", "#aa3377", "#44aa99", "#882255", "#999933", "#7b6bd6",
)  # fmt: skip
HEAT = "viridis"
"""The colour map of heat maps: even in lightness from dark to bright, also for colour-blind readers and in grey."""
_SHARE = {False: "#1d5a96", True: "#7cc0f5"}
"""Of all, on a light and on a dark background."""
_BLACK, _WHITE = "#000000", "#ffffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """What is behind, between and around the stages' colours."""

    paper: str
    """The background."""
    ink: str
    """Text."""
    muted: str
    """Secondary text and lines; at least 4.5 : 1 on paper."""
    track: str
    """The part of a bar that is not filled."""
    measured: str
    """Bars of no stage's: sums and measurements."""
    predicted: str
    """Bars of predictions."""
    wait: str
    """Time in which something waits."""


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b2128",
    muted="#5a6470",
    track="#e9ecef",
    measured="#56616d",
    predicted="#c3c9cf",
    wait="#b8431c",
)
DARK = Theme(
    paper="#171b20",
    ink="#e8ebee",
    muted="#a3adb8",
    track="#2b323a",
    measured="#c3cad1",
    predicted="#57616c",
    wait="#ff8a5c",
)


def stage_colours(ids: Sequence[str]) -> dict[str, str]:
    """By stage id, `#rrggbb`. A known stage has the same in every report; others get what is left, then shades."""
    colours = {name: _OF_STAGE[name] for name in ids if name in _OF_STAGE}
    shades = [colour for colour in _OF_STAGE.values() if colour not in colours.values()]
    for towards in (_WHITE, _BLACK):
        shades += [mixed(colour, towards, 0.42) for colour in _OF_STAGE.values()]
    others = [name for name in dict.fromkeys(ids) if name not in colours]
    return colours | {name: shades[number % len(shades)] for number, name in enumerate(others)}


def series_colours(names: Sequence[str], theme: Theme) -> dict[str, str]:
    """By name, `#rrggbb`, for things that are compared with each other; lighter on a dark background."""
    shades = _OF_SERIES if theme.paper != DARK.paper else tuple(mixed(each, _WHITE, 0.28) for each in _OF_SERIES)
    return {name: shades[number % len(shades)] for number, name in enumerate(dict.fromkeys(names))}


def share_colour(share: float, theme: Theme) -> str:
    """Of a part of a whole, `#rrggbb`: none of it as the track, more is stronger, and little can be told from none."""
    return mixed(theme.track, _SHARE[theme.paper == DARK.paper], min(max(share, 0.0), 1.0) ** 0.5)


def mixed(colour: str, towards: str, part: float) -> str:
    """`part` of the way from one colour to another."""
    channels = zip(_channels(colour), _channels(towards), strict=True)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in channels)


def css_variables(theme: Theme) -> Mapping[str, str]:
    """What the page's style takes from a theme."""
    return {"paper": theme.paper, "ink": theme.ink, "muted": theme.muted, "track": theme.track, "wait": theme.wait}


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
