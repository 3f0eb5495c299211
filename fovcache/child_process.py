"""Python processes that work for this one and can be killed: how they start, hear of its end, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any


def start_child(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, stderr: int | IO[Any] | None = None
) -> subprocess.Popen[bytes]:
    """`python -m module`, which finds its modules where this process does, with pipes to its input and output.

    It leads a group of its own, and is killed with what it starts. Raises OSError.
    """
    import_path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **(environment or {}), "PYTHONPATH": import_path},
        start_new_session=True,
    )


def private_pipes() -> tuple[BufferedIOBase, BufferedIOBase]:
    """In the child: the pipes to who asks, out of reach of libraries that print or read."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    return requests, answers


def end_child() -> None:
    """In the child: end at once, with what it started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)
