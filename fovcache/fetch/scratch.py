"""The working set: downloads on disk, bounded in bytes, each there until it is released."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import BinaryIO, Self

from ..errors import environment_failure
from ..store.lease import hold_lease, sweep_dead
from ..store.storage import LocalStorage
from .reasons import Reason, failure

_STEP_BYTES = 1 << 20
"""By how much a file of unknown length grows at a time."""


class Scratch:
    """A folder that never holds more than `max_bytes` of downloads.

    Downloads wait for room while they hold some, and who reads them may want them in order, so that late ones are not
    released before early ones are whole: they could wait for each other for ever. Hence one rule. The oldest file
    that is still coming may use any room, and those behind it together a quarter of the folder. One file may be half
    of the folder, so the oldest finds room as soon as the whole ones before it are released; then it is the next
    one's turn. What is needed of readers: they release whole files without waiting for later ones, but for as many as
    fill the other quarter.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        self._storage = LocalStorage(folder)
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._files: set[ScratchFile] = set()
        self._line: OrderedDict[int, ScratchFile] = OrderedDict()  # by age, from the oldest that is still coming
        self._line_bytes = 0
        self._used_bytes = 0
        self._peak_bytes = 0
        self._is_closed = False
        self._numbers = itertools.count()
        self._lease = contextlib.ExitStack()
        self._folder = self._storage.path(LocalStorage.TEMPORARY)
        try:
            self._storage.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise environment_failure(error, f"make {self._folder}") from error
        sweep_dead(self._storage)
        self._lease.enter_context(hold_lease(self._storage, "fetch"))

    @property
    def used_bytes(self) -> int:
        """How many bytes are taken, or promised to downloads under way."""
        return self._used_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that were ever taken."""
        return self._peak_bytes

    @property
    def max_file_bytes(self) -> int:
        """The most that one file may have."""
        return self._max_bytes // 2

    def file(self) -> ScratchFile:
        """A new file, of which nothing is on disk yet."""
        with self._changed:
            number = next(self._numbers)
            file = ScratchFile(self, number, self._folder / f"{self._storage.owner}.{number}")
            self._files.add(file)
            self._line[number] = file
        return file

    def close(self) -> None:
        """Remove every file, and end every wait for room with CancelledError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for file in self._files:  # one that is being written is closed by its writer
                _remove(file.path)
        self._lease.close()

    def _take(self, file: ScratchFile, size_bytes: int) -> None:
        """Wait until a file that is coming may have `size_bytes` in all."""
        if size_bytes > self.max_file_bytes:
            limit = f"one may have {self.max_file_bytes}, half of the scratch folder: give it more room"
            raise failure(Reason.TOO_LARGE, f"{size_bytes} bytes or more, and {limit}")
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room(file, size_bytes - file.held_bytes))
            if self._is_closed:
                raise CancelledError("the scratch folder was closed")
            self._hold(file, size_bytes)
            self._peak_bytes = max(self._peak_bytes, self._used_bytes)

    def _has_room(self, file: ScratchFile, num_bytes: int) -> bool:
        oldest = next(iter(self._line.values()))
        behind_bytes = self._line_bytes - oldest.held_bytes
        has_turn = file is oldest or behind_bytes + num_bytes <= self._max_bytes // 4
        return has_turn and self._used_bytes + num_bytes <= self._max_bytes

    def _hold(self, file: ScratchFile, num_bytes: int) -> None:
        """Account for what a file takes."""
        if file.number in self._line:
            self._line_bytes += num_bytes - file.held_bytes
        self._used_bytes += num_bytes - file.held_bytes
        file.held_bytes = num_bytes

    def _finish(self, file: ScratchFile) -> None:
        with self._changed:
            self._hold(file, file.size_bytes)
            file.is_whole = True
            self._advance()

    def _give_back(self, file: ScratchFile, *, is_released: bool) -> None:
        with self._changed:
            self._hold(file, 0)
            if is_released:
                self._files.discard(file)
                self._line.pop(file.number, None)
            self._advance()

    def _advance(self) -> None:
        """Let the line begin with a file that is coming."""
        while self._line and (first := next(iter(self._line.values()))).is_whole:
            self._line_bytes -= first.held_bytes
            del self._line[first.number]
        self._changed.notify_all()


class ScratchFile:
    """One download. A sink while it comes in; then a file to read, until `release`."""

    def __init__(self, scratch: Scratch, number: int, path: Path) -> None:
        self.number = number
        """Its age: of two files the older has the lower."""
        self.path = path
        """Where it lies."""
        self.size_bytes = 0
        """How many bytes were written."""
        self.digest = ""
        """Their BLAKE3, hexadecimal, once it is whole."""
        self.held_bytes = 0
        """How much room it takes, or was promised."""
        self.is_whole = False
        """Whether all of it is here."""
        self._scratch = scratch
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def start(self, size_bytes: int | None) -> None:
        """Wait for room, then begin. Raises SampleError (`too-large`) for what can never fit."""
        self._scratch._take(self, 0 if size_bytes is None else size_bytes)
        with _explained(self.path):
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append to the file, waiting for room where its length was not known."""
        assert self._file is not None
        self._reserve(self.size_bytes + len(data))
        left = memoryview(data)
        with _explained(self.path):
            while left:
                left = left[self._file.write(left) :]
        self.size_bytes += len(data)

    def _reserve(self, size_bytes: int) -> None:
        """Have room for so many bytes; where their number was not known before, for some more."""
        if size_bytes > self.held_bytes:
            step = min(self.held_bytes + _STEP_BYTES, self._scratch.max_file_bytes)
            self._scratch._take(self, max(size_bytes, step))

    def finish(self, digest: str) -> None:
        """It is whole."""
        self._close()
        self.digest = digest
        self._scratch._finish(self)

    def discard(self) -> None:
        """Forget what was written; it may start again."""
        self._remove()
        self._scratch._give_back(self, is_released=False)

    def release(self) -> None:
        """Remove it and give its room to others; again is no error."""
        self._remove()
        self._scratch._give_back(self, is_released=True)

    def _remove(self) -> None:
        self._close()
        _remove(self.path)
        self.size_bytes = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _remove(path: Path) -> None:
    with _explained(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise environment_failure(error, f"write {path}") from error
