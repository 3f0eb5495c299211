"""What annotations may hold, the same in tar shards and in manifests."""

from __future__ import annotations

import math
import reprlib
from typing import Any

ANNOTATIONS = ("label", "caption", "group", "split")
MAX_TEXT_BYTES = 1 << 20


def check_label(label: int) -> int:
    """`label`, if it fits the dataset's int64. Raises ValueError."""
    if not -(2**63) <= label < 2**63:
        raise ValueError(f"label {reprlib.repr(label)} does not fit 64 bits")
    return label


def check_text(name: str, text: str) -> str:
    """`text`, if it can be recorded. Raises ValueError."""
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half a surrogate pair, which is no text") from None
    if num_bytes > MAX_TEXT_BYTES:
        raise ValueError(f"{name} has {num_bytes} bytes, at most {MAX_TEXT_BYTES} are read")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character, which is no text")
    return text


def check_annotation(name: str, value: Any) -> int | str:
    """A label, caption, group or split: an integer only as a label; a group's is written out. Raises ValueError."""
    if isinstance(value, str):
        return check_text(name, value)
    if isinstance(value, int) and not isinstance(value, bool) and name in ("label", "group"):
        return check_label(value) if name == "label" else str(value)
    if isinstance(value, bytes):
        raise ValueError(f"{name} is not UTF-8")
    expected = "a whole number or text" if name == "label" else "text"
    raise ValueError(f"{name} is {reprlib.repr(value)}, expected {expected}")


def is_missing(value: Any) -> bool:
    """Whether a table says nothing here: null, no text, or the NaN that table programs write for it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def check_window(start: Any, end: Any) -> tuple[float | None, float | None]:
    """`(start_s, end_s)`, None for what is missing; a start of 0 where there is only an end. Raises ValueError."""
    start_s, end_s = _seconds("start_s", start), _seconds("end_s", end)
    if end_s is not None:
        start_s = start_s or 0.0
        if start_s >= end_s:
            raise ValueError(f"start_s is {start_s:g} and end_s is {end_s:g}, expected the end after the start")
    return start_s, end_s


def _seconds(name: str, value: Any) -> float | None:
    if is_missing(value):
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a number of seconds")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected seconds of at least 0 that are finite")
    return seconds + 0.0  # -0.0 is 0.0
