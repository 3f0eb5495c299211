"""A rolling window over sources that do not fit the disk: each piece is fetched, decoded, encoded, used and let go.

A piece is one source, such as a tar shard, in a small cache of its own; building is that of `fovcache build`. One
thread builds ahead of what is used. It waits while the window is full, and what is let go makes room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fovcache.builder.progress import Progress
from fovcache.builder.report import BuildReport
from fovcache.builder.request import BuildOptions, EncoderRequest, Resolution
from fovcache.builder.run import run_build
from fovcache.cache import Cache, open_cache
from fovcache.console import THREAD_PREFIX
from fovcache.decode.limits import Limits
from fovcache.errors import FovcacheError, SourceError, UsageError
from fovcache.sources.address import shown_uri
from fovcache.store.layout import SCRATCH

logger = logging.getLogger(__name__)

DATASET = "piece"
_SCRATCH_SHARE = 0.5
"""Of the window, for downloads: one file may be half of that."""
_BLOCKS = 8
"""A block of rows is at most this part of what features may take, and as much is kept free for one being written."""
_PATIENCE_S = 0.2
_STAT_BLOCK = 512
"""Bytes that `st_blocks` counts in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Encoders that run over the same samples, each as it was asked for before."""

    each: tuple[EncoderRequest, ...]
    """One an encoder."""

    def resolve(self, limits: Limits | None = None) -> tuple[Resolution, ...]:
        """One resolution for each. Raises EncoderError and its kin."""
        return tuple(resolution for request in self.each for resolution in request.resolve(limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One source, built."""

    number: int
    """Its place in the order of use."""
    cache: Cache
    """Its features, in the dataset DATASET."""
    report: BuildReport
    """How building went: failed samples are in it."""


class _Closed(FovcacheError):
    """Nobody waits for the build any more."""


class RollingWindow:
    """Pieces in order, from `first` on, built ahead as far as there is room."""

    def __init__(
        self,
        folder: Path,
        sources: Sequence[str],
        requests: Requests,
        *,
        max_bytes: int,
        options: BuildOptions,
        first: int = 0,
    ) -> None:
        """`options` as of a build; where downloads lie, shard size and dataset are the window's own.

        Raises UsageError for a window that no block fits in, EnvironmentFailure.
        """
        self._folder, self._sources, self._requests = folder, list(sources), requests
        self._max_bytes = max_bytes
        scratch_bytes = int(max_bytes * _SCRATCH_SHARE)
        self._room = max_bytes - scratch_bytes
        self._spare = self._room // _BLOCKS
        if self._spare < 1024:
            raise UsageError(f"a window of {max_bytes} bytes is too small: give it at least {64 * 1024} (window_gb)")
        self._options = replace(
            options,
            dataset=DATASET,
            shard_bytes=min(options.shard_bytes, max(1024, self._spare // 2)),
            fetch=replace(options.fetch, scratch_bytes=scratch_bytes),
        )
        self.peak_bytes = 0
        """The most that was seen on disk at once, downloads and features together."""
        self._first, self._oldest = first, first
        self._built: dict[int, Piece | BaseException] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._clear(keep=first)
        self._thread = threading.Thread(target=self._build_all, name=f"{THREAD_PREFIX}window", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._sources)

    def piece(self, number: int) -> Piece:
        """A piece as soon as it is built, `number` from 0. Pieces before it that were not let go stay.

        Raises what building it raised, which is UsageError where it does not fit the window.
        """
        with self._changed:
            self._changed.wait_for(lambda: number in self._built)
            built = self._built[number]
        if isinstance(built, BaseException):
            raise built
        return built

    def release(self, number: int) -> None:
        """Let a piece go, and all before it: their files are removed."""
        for each in range(self._oldest, number + 1):
            shutil.rmtree(self._place(each), ignore_errors=True)
            with self._changed:
                self._built.pop(each, None)
        with self._changed:
            self._oldest = max(self._oldest, number + 1)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop building. What is being fetched or decoded is given up at its next step; files stay for a resume."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout=30)

    def _build_all(self) -> None:
        for number in range(self._first, len(self._sources)):
            found: Piece | BaseException
            try:
                self._wait_for_room(number)
                found = self._build(number)
            except _Closed:
                return
            except BaseException as error:  # noqa: BLE001 - raised again by `piece`, in the thread that asks
                found = error
            with self._changed:
                self._built[number] = found
                self._changed.notify_all()
            if not isinstance(found, Piece):
                return

    def _build(self, number: int) -> Piece:
        cache = open_cache(self._place(number))
        source = self._sources[number]
        try:
            report = run_build(cache.storage, [source], self._requests, self._options, self._watch(number))  # type: ignore[arg-type]
        except SourceError as error:
            raise SourceError(f"{shown_uri(source)}: {error}") from error
        self._measure()
        return Piece(number=number, cache=cache, report=report)

    def _watch(self, number: int) -> Callable[[Progress], None]:
        """Called while a piece is built: holds the build where the window is full."""
        return lambda progress: self._wait_for_room(number)

    def _wait_for_room(self, number: int) -> None:
        """Wait until a block fits. Raises _Closed, or UsageError where nothing that could be let go is there."""
        while True:
            with self._changed:
                if self._is_closed:
                    raise _Closed("the window was closed")
                is_alone = self._oldest >= number
            features = self._measure()
            if features + self._spare <= self._room:
                return
            if is_alone:
                raise UsageError(
                    f"{shown_uri(self._sources[number])} alone takes more than the {self._room} bytes that a window of "
                    f"{self._max_bytes} bytes has for features: raise window_gb, or cut it into smaller shards"
                )
            with self._changed:
                self._changed.wait(_PATIENCE_S)

    def _measure(self) -> int:
        """Bytes of features on disk now; also keeps `peak_bytes`."""
        features, downloads = 0, 0
        for folder, _, files in os.walk(self._folder):  # which does not mind that folders go meanwhile
            is_scratch = SCRATCH in Path(folder).parts
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    size = Path(folder, file).lstat().st_blocks * _STAT_BLOCK
                    features, downloads = features + size * (not is_scratch), downloads + size * is_scratch
        self.peak_bytes = max(self.peak_bytes, features + downloads)
        return features

    def _place(self, number: int) -> Path:
        return self._folder / f"piece-{number:06d}"

    def _clear(self, *, keep: int) -> None:
        """Remove what an earlier run left, but for the piece that this one begins with."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path != self._place(keep):
                shutil.rmtree(path, ignore_errors=True)
