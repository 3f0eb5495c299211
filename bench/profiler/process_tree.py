"""This process's live children and theirs, and what CPU time each has used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

_HAS_LISTS = Path("/proc/thread-self/children").exists()
"""Whether the kernel lists each thread's children: that takes less time than to look at all processes."""


def descendants() -> list[psutil.Process]:
    """All that live, or have ended and were not waited for yet."""
    if not _HAS_LISTS:
        return list(psutil.Process().children(recursive=True))
    found = []
    for pid in _pids("self"):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found.append(psutil.Process(pid))
    return found


def cpu_s(process: psutil.Process) -> tuple[float, float]:
    """Core-seconds of user and of system time, its own and of children that it has waited for. Raises psutil.Error."""
    times = process.cpu_times()
    user, system = (getattr(times, kind) + getattr(times, f"children_{kind}", 0.0) for kind in ("user", "system"))
    return user, system


def _pids(of: str) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is not ours
        for thread in Path(f"/proc/{of}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (thread / "children").read_text().split():
                    yield int(child)
                    yield from _pids(child)
