"""What this process, its children and its machine use, through psutil.

CPU time, bytes of disks and memory are of the process and all its children; those of children that ended are kept, as
the system hands them to the parent. Network bytes are the whole machine's (or container's), as no system counts them
by process; bytes over the loopback are told apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import psutil

from .process_tree import cpu_s, descendants


class HostCounters:
    """Reads the counters. One that this machine does not have is named in `absent`, and never raises."""

    def __init__(self, ignored_pids: Collection[int] = ()) -> None:
        """`ignored_pids` are children that are no part of the work, such as a profiler."""
        self._own = psutil.Process()
        self._ignored = frozenset(ignored_pids)
        self.absent: dict[str, str] = {}
        """By group of counters (`io`, `network`, `memory`), why there is none."""

    def read(self) -> dict[str, float]:
        """Now: `cpu_user_s`, `cpu_system_s`, `read_bytes`, `written_bytes`, `received_bytes`, `sent_bytes` and
        `loopback_bytes` count up; `rss_bytes`, `available_bytes` and `num_processes` are of this moment."""
        found: dict[str, float] = {}
        tree = self._tree()
        found["num_processes"] = len(tree)
        self._group("cpu", found, lambda: _cpu(tree))
        self._group("memory", found, lambda: _memory(tree))
        self._group("io", found, lambda: _io(tree))
        self._group("network", found, _network)
        return found

    def _tree(self) -> list[psutil.Process]:
        try:
            children = descendants()
        except (psutil.Error, OSError) as error:
            self.absent["children"] = _reason(error)
            children = []
        return [self._own, *(child for child in children if child.pid not in self._ignored)]

    def _group(self, name: str, found: dict[str, float], read: Callable[[], dict[str, float]]) -> None:
        if name in self.absent:
            return
        try:
            found |= read()
        except (psutil.Error, OSError, AttributeError, NotImplementedError) as error:
            self.absent[name] = _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, AttributeError):
        return "this system does not count it by process"
    return f"{type(error).__name__}: {error}"


def _each(tree: list[psutil.Process], read: Callable[[psutil.Process], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Of the process itself, which must answer, and of every child that is still there and lets itself be read."""
    found = [read(tree[0])]
    for child in tree[1:]:
        try:
            found.append(read(child))
        except psutil.Error:
            continue
    return found


def _cpu(tree: list[psutil.Process]) -> dict[str, float]:
    users, systems = zip(*_each(tree, cpu_s), strict=True)
    return {"cpu_user_s": sum(users), "cpu_system_s": sum(systems)}


def _memory(tree: list[psutil.Process]) -> dict[str, float]:
    from fovcache.loaders.residency import free_host_bytes

    rss = sum(values[0] for values in _each(tree, lambda process: (process.memory_info().rss,)))
    return {"rss_bytes": rss, "available_bytes": free_host_bytes()}


def _io(tree: list[psutil.Process]) -> dict[str, float]:
    def read(process: psutil.Process) -> tuple[float, ...]:
        counters = process.io_counters()
        return counters.read_bytes, counters.write_bytes

    reads, writes = zip(*_each(tree, read), strict=True)
    return {"read_bytes": sum(reads), "written_bytes": sum(writes)}


def _network() -> dict[str, float]:
    interfaces: dict[str, Any] = psutil.net_io_counters(pernic=True, nowrap=False)
    outer = [counters for name, counters in interfaces.items() if not _is_loopback(name)]
    inner = [counters for name, counters in interfaces.items() if _is_loopback(name)]
    return {
        "received_bytes": sum(counters.bytes_recv for counters in outer),
        "sent_bytes": sum(counters.bytes_sent for counters in outer),
        "loopback_bytes": sum(counters.bytes_recv for counters in inner),
    }


def _is_loopback(name: str) -> bool:
    return name.lower().startswith("loopback") or name.rstrip("0123456789") == "lo"


def own_peak_bytes() -> int | None:
    """The process's own largest resident memory since it began; None where the system does not keep it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if os.uname().sysname == "Darwin" else int(peak) * 1024
