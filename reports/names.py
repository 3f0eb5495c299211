"""Names out of files as text among other text: on one line, of a bounded length, turning nothing around it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_LETTERS = 120
_TURNING = frozenset({"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "FSI", "PDF", "PDI"})
_ISOLATE, _END = "\u2068", "\u2069"
_UNKNOWN = "\ufffd"


def shown(name: str, most: int = MAX_LETTERS) -> str:
    """A name on one line, cut behind `most` letters; what runs from right to left is kept apart from what is beside."""
    line = " ".join(name.split())
    line = line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
    is_turning = any(unicodedata.bidirectional(letter) in _TURNING for letter in line)
    line = "".join(letter if _is_text(letter) else _UNKNOWN for letter in line)
    return f"{_ISOLATE}{line}{_END}" if is_turning else line


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in a row, the first `most` of them."""
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(shown(name, 40) for name in every[:most]) + more


def _is_text(letter: str) -> bool:
    """Neither a control character nor one that turns or hides what follows; nor half of a pair."""
    return letter.isprintable() or unicodedata.category(letter) in ("Zs",)
