"""Numbers as people read them: three digits, with their unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SPACE = "\u00a0"
"""Between a number and its unit, where no line may break."""
ABSENT = "–"
"""In place of what was not measured."""

_TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
_LONG_TIMES = (("h", 3600.0, 2), ("min", 60.0, 10))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_SUFFIXES = {"_mhz": "MHz", "_w": "W", "_j": "J", "_c": "°C", "_gib": "GiB", "_mib": "MiB", "_px": "px"}
_MAX_DEPTH, _MAX_ITEMS = 4, 20  # the rest is in the profile's JSON


def digits(value: float, num: int = 3) -> str:
    """A number of `num` significant digits: `0.0412`, `56.3`, `14,800`."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{'-' if value < 0 else ''}∞"
    if value == 0:
        return "0"
    exponent = int(f"{value:.{num - 1}e}".partition("e")[2])
    if not -6 <= exponent < 15:
        return f"{value:.{num}g}"
    decimals = num - 1 - exponent
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def count(value: int) -> str:
    """`1,024`."""
    return f"{value:,}"


def percent(fraction: float, *, sign: bool = False) -> str:
    """A fraction as a percentage with one decimal: `36.4 %`."""
    if not abs(fraction) < 1e4:
        return f"{digits(100 * fraction)}{SPACE}%"
    return f"{100 * fraction:{'+' if sign else ''},.1f}{SPACE}%".replace("-", "−")


def points(fraction: float, *, sign: bool = False) -> str:
    """A fraction in percent, where the sign stands in the heading: `36.4`; a difference of two with its sign."""
    return percent(fraction, sign=sign).removesuffix(f"{SPACE}%")


def interval(ci95: tuple[float, float] | None, *, sign: bool = False) -> str:
    """Two fractions in percent: `39.0 – 49.5`; of a difference with signs and words, `−1.2 to +3.4`."""
    if ci95 is None:
        return ABSENT
    low, high = (points(end, sign=sign) for end in ci95)
    return f"{low}{SPACE}{'to' if sign else '–'}{SPACE}{high}"


def half_interval(ci95: tuple[float, float] | None) -> str:
    """Half the distance of two fractions in percent: `± 5.2`; nothing where there is no interval."""
    return "" if ci95 is None else f"±{SPACE}{points((ci95[1] - ci95[0]) / 2)}"


def p_value(p: float | None) -> str:
    """`0.031`, or `< 0.001`; a dash where there is none."""
    if p is None:
        return ABSENT
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def effect(size: float | None) -> str:
    """A difference in standard deviations: `+0.47`, `−1.20`; a dash where there is none."""
    return ABSENT if size is None else f"{size:+.2f}".replace("-", "−") if abs(size) < 1e4 else digits(size)


def counted(value: int, noun: str) -> str:
    """`1 run`, `1,024 runs`."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def resolved(width: float, *, sign: bool = False) -> Callable[[float], str]:
    """How numbers are written to as many decimals as tell ends that are `width` apart; differences with their sign."""
    decimals = min(max(1 - math.floor(math.log10(width)), 0), 9) if 0 < width < math.inf else 3

    def form(value: float) -> str:
        text = f"{value:{'+' if sign else ''},.{decimals}f}" if abs(value) < 1e6 else digits(value)
        return text.replace("-", "−")

    return form


def ratio(value: float) -> str:
    """A ratio, with three decimals near 1: `0.998`, `1.153`, `130`."""
    return f"{value:.3f}" if 0.1 <= value < 10 else digits(value).replace("-", "−")


def spanned(ends: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    """Two plain numbers, each written by `form`: `−1.312 to −1.274`; a dash where there is no interval."""
    return ABSENT if ends is None else f"{form(ends[0])}{SPACE}to{SPACE}{form(ends[1])}"


def rate(samples_per_hour: float) -> str:
    """`14,800 samples/h`."""
    return f"{digits(samples_per_hour)}{SPACE}samples/h"


def size(size_bytes: float) -> str:
    """`1.5 MiB`."""
    if not abs(size_bytes) < 1e18:
        return f"{digits(size_bytes)}{SPACE}B"
    for unit in _SIZES:
        if abs(size_bytes) < 1024 or unit == _SIZES[-1]:
            break
        size_bytes /= 1024
    return f"{size_bytes:,.0f}{SPACE}B" if unit == "B" else f"{size_bytes:,.1f}{SPACE}{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUnit:
    """The unit in which times that stand beside each other are given."""

    name: str
    """`s`, `ms`, `µs`; of long times `min` or `h`."""
    seconds: float
    """How long one is."""

    def number(self, value_s: float) -> str:
        """Three digits, without the unit."""
        return digits(value_s / self.seconds)

    def text(self, value_s: float) -> str:
        """With the unit."""
        return f"{self.number(value_s)}{SPACE}{self.name}"


def time_unit(values_s: Iterable[float]) -> TimeUnit:
    """The largest unit of which the longest of these times has at least one; seconds from two on."""
    longest = max((value for value in values_s if math.isfinite(value)), default=0.0)
    for name, seconds in _TIMES[:2]:
        if longest >= (2 if seconds == 1 else 1) * seconds or longest <= 0:
            return TimeUnit(name=name, seconds=seconds)
    return TimeUnit(name="µs", seconds=1e-6)


def duration(value_s: float) -> str:
    """One time by itself, in the unit that suits it."""
    return time_unit([value_s]).text(value_s)


def long_time_unit(values_s: Iterable[float]) -> TimeUnit:
    """As `time_unit`, for what may last long: minutes from ten on, hours from two on."""
    every = list(values_s)
    longest = max((value for value in every if math.isfinite(value)), default=0.0)
    for name, seconds, least in _LONG_TIMES:
        if longest >= least * seconds:
            return TimeUnit(name=name, seconds=seconds)
    return time_unit(every)


def long_duration(value_s: float) -> str:
    """One time that may be long, in the unit that suits it."""
    return long_time_unit([value_s]).text(value_s)


def described(name: str, value: Any) -> str:
    """A value of a free-form mapping, in the unit that its name ends with."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return f"{count(len(value))} entries"
    if isinstance(value, list | tuple):
        shown = [
            f"[{count(len(item))}]" if isinstance(item, list | tuple) else described(name, item)
            for item in value[:_MAX_ITEMS]
        ]
        more = [f"{count(len(value) - _MAX_ITEMS)} more"] if len(value) > _MAX_ITEMS else []
        return ", ".join([*shown, *more]) or "none"
    if not isinstance(value, int | float):
        return str(value)
    plain = count(value) if isinstance(value, int) else digits(value)
    if name.endswith("_per_s"):
        return f"{size(value)}/s" if "bytes" in name else f"{plain}/s"
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("_share"):
        return percent(value)
    if name.endswith("_s"):
        return duration(value)
    for suffix, unit in _SUFFIXES.items():
        if name.endswith(suffix):
            return f"{plain}{SPACE}{unit}"
    return str(value) if isinstance(value, int) else plain


def entries(mapping: Mapping[str, Any], *, above: str = "", depth: int = 1) -> Iterator[tuple[str, str, Any]]:
    """(label, text, value) of each entry of a free-form mapping; those of mappings inside it as `outer: inner`.

    `{absent: why}` and `{mean, min, max}` are one entry; series of readings are left out.
    """
    for name, value in mapping.items():
        label = f"{above}{_label(str(name))}"
        if _is_series(value):
            continue
        if name == "absent":
            yield above.removesuffix(": ") or "all of it", f"not measured: {value}", value
        elif isinstance(value, Mapping) and set(value) == {"mean", "min", "max"}:
            mean, least, most = (described(str(name), value[key]) for key in ("mean", "min", "max"))
            yield label, f"{mean} on average, {least} to {most}", value
        elif isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
            yield from entries(value, above=f"{label}: ", depth=depth + 1)
        else:
            yield label, described(str(name), value), value


def _is_series(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _label(name: str) -> str:
    """`peak_allocated_bytes` → `peak allocated`: the unit stands behind the number."""
    if name == "kernel_active_share":
        return "share of time in which any kernel ran"
    for suffix in ("_per_s", "_bytes", "_s", *_SUFFIXES):
        if name.endswith(suffix) and len(name) > len(suffix):
            name = name.removesuffix(suffix)
            break
    return name.removeprefix("num_").replace("_", " ")
