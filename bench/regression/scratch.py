"""A temporary folder that does not outlive its use."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOTHING_KEPT = "nothing is kept: the next run begins anew"


@contextlib.contextmanager
def scratch_folder(if_stopped: str | None = NOTHING_KEPT) -> Iterator[Path]:
    """A temporary folder that goes whatever happens, signals included; `if_stopped` is then noted on the exception."""
    folder = Path(tempfile.mkdtemp(prefix="fovbench-"))
    try:
        yield folder.resolve()
    except BaseException as error:
        if if_stopped is not None:
            error.add_note(if_stopped)
        raise
    finally:
        with _undisturbed():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals to stop wait until the end: an impatient second one would leave files behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
