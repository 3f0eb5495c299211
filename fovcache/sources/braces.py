"""Brace ranges as shells and WebDataset's users write them: `shard-{000..012}.tar`, `{train,val}.tar`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from ..errors import SourceError

MAX_EXPANDED = 1_000_000
_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})", re.ASCII)


def expand_braces(pattern: str) -> list[str]:
    """Every text that `pattern` stands for, in order; `[pattern]` where nothing in it is a brace range.

    A number that starts with 0 keeps the width of the wider end. Braces inside braces are not read. Raises SourceError
    for more than a million.
    """
    parts = _GROUP.split(pattern)
    choices = [_choices(part) if index % 2 else [part] for index, part in enumerate(parts)]
    if math.prod(map(len, choices)) > MAX_EXPANDED:
        raise SourceError(f"the braces of a source stand for more than {MAX_EXPANDED} names; give fewer at once")
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if not match:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = int(match[1]), int(match[2])
    if abs(first - last) >= MAX_EXPANDED:
        raise SourceError(f"the braces {{{inside}}} stand for more than {MAX_EXPANDED} names; give fewer at once")
    is_padded = any(len(end) > 1 and end.startswith("0") for end in match.groups())
    width = max(map(len, match.groups())) if is_padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
