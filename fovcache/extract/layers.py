"""Layer names by glob: `*` stops at a dot, `**` does not, `?` is one character but a dot."""

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
    translated = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(translated.get(part, re.escape(part)) for part in parts))
