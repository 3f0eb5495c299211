"""Time by stage, added up over threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_RESOURCES = {"fetch": "disk", "decode": "cpu", "copy": "copy", "encode": "device", "write": "disk"}


class StageClock:
    """Adds up how long each stage was busy. Stages of different threads overlap, so shares can pass 100 %."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy_s: dict[str, float] = {}
        self._count: dict[str, int] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block of code as one run of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            busy = time.perf_counter() - start
            with self._lock:
                self._busy_s[name] = self._busy_s.get(name, 0.0) + busy
                self._count[name] = self._count.get(name, 0) + 1

    def stages(self) -> list[dict[str, object]]:
        """`{id, resource, n, total_s}` of each stage that ran, in pipeline order."""
        return [
            {"id": name, "resource": resource, "n": self._count[name], "total_s": self._busy_s[name]}
            for name, resource in _RESOURCES.items()
            if name in self._count
        ]
