"""Leases: a builder at work says so, so that nobody collects what it is writing.

A lease is a file that its holder touches; it is dead when its process is gone (on this host) or when it
was not touched for EXPIRY_S.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from ..errors import environment_failure
from .layout import LEASES
from .storage import LocalStorage

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

EXPIRY_S = 60.0
_TOUCH_S = 5.0
_CLOCK_S = 2.0
"""Two readings of one process's start differ by less: it is derived from a boot time in whole seconds."""


@contextlib.contextmanager
def hold_lease(storage: LocalStorage, work: str) -> Iterator[None]:
    """Hold a lease while a block of code runs. `work` says on what: a recipe's digest, or a command.

    Within another lease of the same storage it takes that one's place for as long.
    """
    path = storage.path(f"{LEASES}/{storage.owner}.json")
    outer = path.read_text() if path.exists() else None
    document = {
        "pid": os.getpid(),
        "host": _process_space(),
        "started_s": _started_s(os.getpid()),
        "leased_s": time.time(),
        "work": work,
    }
    _write(path, json.dumps(document))
    done = threading.Event()
    thread = threading.Thread(target=_keep_alive, args=(path, done), name="fovcache-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if outer is None:
                path.unlink()
            else:
                _write(path, outer)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise environment_failure(error, f"write {path}") from error


def _keep_alive(path: Path, done: threading.Event) -> None:
    while not done.wait(_TOUCH_S):
        try:
            os.utime(path)
        except OSError as error:
            logger.warning("the lease %s could not be renewed: %s", path, error)


def live_owners(storage: LocalStorage) -> set[str]:
    """The owners of leases that are alive."""
    names = storage.list(LEASES)
    return {Path(name).stem for name in names if _is_alive(storage.path(name))}


def in_turn(storage: LocalStorage, items: Sequence[_T], name: Callable[[_T], str]) -> list[_T]:
    """In order; beside another live builder in an order of our own, so that the two meet as late as can be."""
    if live_owners(storage) - {storage.owner}:
        return sorted(items, key=lambda item: hash((storage.owner, name(item))))
    return list(items)


def live_work(storage: LocalStorage) -> tuple[float, frozenset[str]]:
    """What live builders hold: when the first took its lease, in seconds since the epoch, and on what they work.

    Infinity when there is none; minus infinity when a lease cannot be read.
    """
    starts, works = [math.inf], set()
    for owner in live_owners(storage):
        try:
            document = json.loads(storage.path(f"{LEASES}/{owner}.json").read_text())
            starts.append(float(document["leased_s"]))
            works.add(str(document["work"]))
        except FileNotFoundError:  # it has just ended
            continue
        except (OSError, ValueError, KeyError, TypeError):
            starts.append(-math.inf)
    return min(starts), frozenset(works)


def sweep_dead(storage: LocalStorage) -> int:
    """Remove what killed builders left: their temporary files, then their leases; how many files.

    A temporary file whose owner never held a lease is left until it is old: a quick command may be writing it.
    """
    leases = {Path(name).stem: name for name in storage.list(LEASES)}
    dead = leases.keys() - live_owners(storage) - {storage.owner}
    swept = []
    for name in storage.list(LocalStorage.TEMPORARY):
        owner = Path(name).name.partition(".")[0]
        if owner in dead or (owner not in leases and _age_s(storage.path(name)) > EXPIRY_S):
            swept.append(name)
    swept += [leases[owner] for owner in sorted(dead)]
    for name in swept:
        storage.delete(name)
    return len(swept)


def _is_alive(path: Path) -> bool:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        if document["host"] == _process_space():
            started_s = _started_s(document["pid"])
            return started_s is not None and abs(started_s - document["started_s"]) < _CLOCK_S
        return _age_s(path) < EXPIRY_S
    except (OSError, ValueError, KeyError, TypeError):
        return path.exists() and _age_s(path) < EXPIRY_S


def _process_space() -> str:
    """Where a process id means something: this host since it started, in this container."""
    marks = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the host's name has to do
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        marks.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(marks)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _started_s(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
