"""How much CPU time this process has used, with its children, whether they live or were waited for."""

from __future__ import annotations

import sys
import time

import psutil

from .process_tree import cpu_s, descendants


def core_seconds() -> float:
    """Core-seconds so far, of which differences count. Live children's come in steps of 10 ms."""
    return time.process_time() + _waited_for_s() + sum(map(_child_s, descendants()))


def _waited_for_s() -> float:
    """Of children that have ended."""
    if sys.platform == "win32":
        return 0.0
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _child_s(child: psutil.Process) -> float:
    try:
        return sum(cpu_s(child))
    except psutil.Error:  # it has ended meanwhile
        return 0.0
