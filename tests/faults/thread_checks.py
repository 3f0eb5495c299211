"""What tests of threads watch for: deadlocks, and threads that go on."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def no_hang_and_no_thread_left() -> Iterator[None]:
    """A deadlock shows where it is, and ends the tests; a thread that goes on is a failure."""
    before = set(threading.enumerate())
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
    wait_for(lambda: set(threading.enumerate()) <= before)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
