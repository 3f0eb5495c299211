"""How much CPU time this process has used, with its children, whether they live or were waited for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_HAS_LISTS = Path("/proc/thread-self/children").exists()
"""Whether the kernel lists each thread's children: that takes less time than to look at all processes."""


def core_seconds() -> float:
    """Core-seconds so far, of which differences count. Live children's come in steps of 10 ms."""
    return time.process_time() + _waited_for_s() + sum(map(_child_s, _children()))


def _waited_for_s() -> float:
    """Of children that have ended."""
    if sys.platform == "win32":
        return 0.0
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children() -> list[int]:
    """The pids of live descendants."""
    if not _HAS_LISTS:
        return [child.pid for child in psutil.Process().children(recursive=True)]
    return list(_descendants("self"))


def _descendants(pid: str) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is not ours
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (thread / "children").read_text().split():
                    yield int(child)
                    yield from _descendants(child)


def _child_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:  # it has ended meanwhile
        return 0.0
    return float(sum(getattr(times, kind, 0.0) for kind in ("user", "system", "children_user", "children_system")))
