"""What a process that works for another tells it, as lines of JSON: answers, what is logged, what went wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from fovcache.child_process import end_child
from fovcache.errors import DamageError, EnvironmentFailure, FovcacheError

_FIRST_TO_GO = "500"


class Answers:
    """What is told. Several threads may."""

    def __init__(self, pipe: BufferedIOBase, *, on_gone: Callable[[], object] = end_child) -> None:
        """`on_gone` is called where whoever asked is gone; by default it ends this process."""
        self._pipe = pipe
        self._on_gone = on_gone
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """One line."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                self._pipe.write(line)
                self._pipe.flush()
        except BrokenPipeError:
            self._on_gone()


class Told(logging.Handler):
    """Tells what is logged here to who asks, whose handlers know where it goes."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        self._answers.send({"log": [record.name, record.levelno, record.getMessage()]})


def error_document(error: FovcacheError) -> dict[str, Any]:
    """What goes on in the process that asked."""
    kinds = (DamageError, EnvironmentFailure)
    kind = next((kind.__name__ for kind in kinds if isinstance(error, kind)), "UsageError")
    return {"kind": kind, "text": str(error), "errno": getattr(error, "errno", None)}


def first_to_go() -> None:
    """Where memory runs out, Linux ends this process and not the one that writes results down."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
