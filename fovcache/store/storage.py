"""Where a cache's files live. One protocol, so that a bucket can take a folder's place."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ..errors import environment_failure

_unique = itertools.count()

_CLAIM_EXPIRY_S = 60.0
"""A claim is held for one rename; one that is older was left by a killed process."""


class Storage(Protocol):
    """A flat name space of immutable files; names are relative, with `/`.

    Every write is all or nothing and durable when it returns. Raises EnvironmentFailure when the place
    itself fails, FileNotFoundError for a name that is not there.
    """

    def read(self, name: str) -> bytes:
        """A file's bytes."""

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `offset`. Raises EOFError when the file ends before the buffer is full."""

    def size(self, name: str) -> int:
        """A file's length in bytes."""

    def modified_s(self, name: str) -> float:
        """When a file was written, in seconds since the epoch."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Names below a folder, sorted; nothing when there is no such folder."""

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """Write a file, replacing what is there: for content-addressed names, where both are equal."""

    def put_if_absent(self, name: str, parts: Iterable[bytes | memoryview]) -> bool:
        """Write a file unless one is there. Of several writers exactly one is told True."""

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""


class LocalStorage:
    """A folder on a local or network file system.

    Temporary files carry this object's `owner`, so that what a killed process left can be told from
    what a live one is writing.
    """

    TEMPORARY = "tmp"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.owner = uuid.uuid4().hex

    def path(self, name: str) -> Path:
        """A file's path."""
        return self.root / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        descriptor = os.open(self.path(name), os.O_RDONLY)
        try:
            done = 0
            while done < len(buffer):
                count = os.preadv(descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise EOFError(f"{name} ends at byte {offset + done}, expected {offset + len(buffer)}")
                done += count
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        return self.path(name).stat().st_size

    def modified_s(self, name: str) -> float:
        return self.path(name).stat().st_mtime

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        folder = self.path(prefix)
        if folder.is_dir():
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                name = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from self.list(name)
                else:
                    yield name

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        with self._temporary(name, parts) as temporary, _explained(f"write {self.path(name)}"):
            temporary.replace(self.path(name))
            flush_folder(self.path(name).parent)

    def put_if_absent(self, name: str, parts: Iterable[bytes | memoryview]) -> bool:
        with self._temporary(name, parts) as temporary, _explained(f"write {self.path(name)}"):
            try:
                # A link fails when the name is taken, and its content is whole from the first moment.
                os.link(temporary, self.path(name))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
                return self._claim_and_replace(temporary, self.path(name))
            flush_folder(self.path(name).parent)
            return True

    def delete(self, name: str) -> None:
        with _explained(f"delete {self.path(name)}"), contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()

    @staticmethod
    def _claim_and_replace(temporary: Path, path: Path) -> bool:
        """For file systems without hard links: an exclusive claim beside the name decides who writes it."""
        claim = path.with_name(path.name + ".claim")
        with contextlib.suppress(FileNotFoundError):
            if time.time() - claim.stat().st_mtime > _CLAIM_EXPIRY_S:  # its writer was killed
                claim.unlink()
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        try:
            if path.exists():
                return False
            temporary.replace(path)
            flush_folder(path.parent)
            return True
        finally:
            claim.unlink()

    @contextlib.contextmanager
    def _temporary(self, name: str, parts: Iterable[bytes | memoryview]) -> Iterator[Path]:
        temporary = self.path(self.TEMPORARY) / f"{self.owner}.{next(_unique)}"
        with _explained(f"write {self.path(name)}"):
            make_folder(temporary.parent)
            make_folder(self.path(name).parent)
        try:
            with _explained(f"write {self.path(name)}"):
                write_new(temporary, parts)
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that LocalStorage gives to files that it is writing."""
    return re.fullmatch(rf"{LocalStorage.TEMPORARY}/[0-9a-f]{{32}}\.\d+", name) is not None


def write_new(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file that is not there yet, to the disk; its folder is for the caller to flush. Raises OSError."""
    with path.open("xb", buffering=0) as file:
        for part in parts:
            _write_all(file.fileno(), memoryview(part).cast("B"))
        os.fsync(file.fileno())


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that it lasts: its name is an entry of the folder above."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Write a folder's entries to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise environment_failure(error, what) from error
