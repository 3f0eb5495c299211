"""How much CPU time this process has used, with its children, whether they live or were waited for."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_TASKS = Path("/proc/self/task")


def core_seconds() -> float:
    """Core-seconds so far. Differences count; live children's come in steps of 10 ms."""
    times = os.times()
    return times.children_user + times.children_system + _process_s() + sum(map(_of_child, _children()))


def _process_s() -> float:
    import time

    return time.process_time()


def _children() -> list[int]:
    """Pids of live descendants. Reading them from all threads' lists takes less than looking at all processes."""
    try:
        return _descendants(_TASKS)
    except OSError:  # not Linux, a kernel without these lists, or a thread that has just ended
        return [child.pid for child in psutil.Process().children(recursive=True)]


def _descendants(tasks: Path) -> list[int]:
    found = []
    for thread in os.listdir(tasks):
        found += [int(pid) for pid in (tasks / thread / "children").read_text().split()]
    for pid in tuple(found):
        found += _descendants(Path(f"/proc/{pid}/task"))
    return found


def _of_child(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:  # it has ended meanwhile
        return 0.0
    return float(times.user + times.system)
