"""What became of a process that worked for this one, in words."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import IO, Any

from fovcache.errors import DamageError, EnvironmentFailure, UsageError

_MOST_SAID = 300
"""Characters of what a process said last."""


def how_ended(status: int) -> str:
    """`ended with status 1`, `was ended by SIGSEGV`."""
    if status >= 0:
        return f"ended with status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def last_words(said: IO[bytes]) -> str:
    """`: ` and the last line of a process's standard error; empty where there is none."""
    if said.closed:
        return ""
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - 4096))
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[:_MOST_SAID]}" if last else ""


def error_of(document: Mapping[str, Any]) -> Exception:
    """What `error_document` made a document of."""
    kind = {"DamageError": DamageError, "EnvironmentFailure": EnvironmentFailure}.get(document["kind"], UsageError)
    error = kind(document["text"])
    if isinstance(error, EnvironmentFailure):
        error.errno = document["errno"]
    return error
