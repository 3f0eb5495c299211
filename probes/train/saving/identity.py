"""Whether a run that is taken up again is the run that began: the settings that decide it, compared one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fovcache.errors import UsageError

MAY_DIFFER: Mapping[str, str] = {
    "cache": "where the cache lies; the feed's digests say what it holds",
    "data.window_gb": "how much of a stream is on disk at once; encoded in other blocks, rows may differ in last bits",
    "train.checkpoint_every": "when the run is saved changes nothing of it",
    "train.keep": "nor does how many checkpoints stay",
    "train.trackers": "they copy what the log says",
    "train.out_of_memory": "what memory allowed until now is in the checkpoint; this is for what comes",
}
"""Fields that a resumed run may change, and why."""

_DEVICE = "device"
_ABSENT = object()


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError that names each field in which the run that was `saved` and the one that resumes it differ.

    Fields have dotted names. Of `device` only the type counts: `cuda:0` and `cuda:1` compute the same bits.
    """
    before, after = _plain(saved), _plain(now)
    differing = [
        _said(name, before.get(name, _ABSENT), after.get(name, _ABSENT))
        for name in dict.fromkeys([*before, *after])
        if name not in MAY_DIFFER and before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]
    if differing:
        raise UsageError(
            f"the run cannot be resumed, since what decides it has changed: {'; '.join(differing)}. Resume with the "
            "values that it began with, or give another --out to begin a new run"
        )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back, tuples being lists; of the device its type."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(fields)))
    if isinstance(plain.get(_DEVICE), str):
        plain[_DEVICE] = plain[_DEVICE].partition(":")[0]
    return plain


def _said(name: str, before: object, after: object) -> str:
    if before is _ABSENT:
        return f"{name} was not there when the run began, and is {_value(after)} now"
    if after is _ABSENT:
        return f"{name} was {_value(before)} when the run began, and is not there now"
    return f"{name} was {_value(before)} when the run began, and is {_value(after)} now"


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
