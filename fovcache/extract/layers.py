"""Layer names by glob: `*` stops at a dot, `**` does not, `?` is one character but a dot, `[0-3]` one of these."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import LayerError, nearest


def select_layers(patterns: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The layers in `known`, in its order, that any pattern matches.

    Raises LayerError with the nearest names for a pattern that matches nothing.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [name for name in known if _regex(pattern).fullmatch(name)]
        if not matched:
            raise LayerError(f"no layer matches {pattern!r}{nearest(pattern, known)}")
        chosen.update(matched)
    return tuple(name for name in known if name in chosen)


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern)
    try:
        return re.compile("".join(_translated(part) for part in parts))
    except re.error as error:
        raise LayerError(f"layer glob {pattern!r} is not one: {error}") from None


def _translated(part: str) -> str:
    wild = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    if part.startswith("[") and part.endswith("]"):
        return "[" + re.escape(part[1:-1]).replace(r"\-", "-") + "]"
    return wild.get(part, re.escape(part))


def layer_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort by: `blocks.10` after `blocks.9`, and `embed` first, as in every encoder of ours."""
    words = name.split(".")
    first = (0 if words[0] == "embed" else 1, 0, "")
    return (first, *((0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words))
