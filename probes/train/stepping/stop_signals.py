"""SIGINT and SIGTERM as a wish that the loop reads between steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SECOND_AFTER_S = 2.0
"""Launchers pass on a signal that the terminal has sent to all already."""


class StopSignals:
    """While it is entered, the first signal is noted; a second one, later, does what it did before.

    Only the main thread may install handlers: in another nothing is noted. A signal that was ignored stays so.
    """

    def __init__(self, *, is_alone: bool = True) -> None:
        """`is_alone`: no launcher that could repeat a signal at any time."""
        self.name: str | None = None
        """Of the signal that came, such as `SIGTERM`."""
        self._is_alone = is_alone
        self._came_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._came_at = signal.Signals(number).name, time.monotonic()
        elif self._is_alone and time.monotonic() - self._came_at >= _SECOND_AFTER_S:
            self.__exit__()
            os.kill(os.getpid(), number)
