"""Downloading a build's URLs: which are unchanged, what the others hold, and when their bytes can go again.

The content of a URL is only known when it is here, and which samples go into which block must not depend on which
download is faster. So URLs are taken in the order of the sources, in waves of so many bytes; a wave is planned when
all of it is here, while the next ones come in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ..errors import SampleError, SourceError
from ..fetch.reasons import Reason, failure
from ..pipeline.channel import LOOK_S
from ..pipeline.pipeline import Pipeline
from ..pipeline.stage import Failed, Stage
from ..pipeline.stats import StageStats
from ..sources.magic import HEAD_BYTES, suffix_of
from ..sources.place import TAR_SUFFIX, Place
from ..sources.sample import Located
from ..sources.scan import content_value, is_table_of

if TYPE_CHECKING:
    from ..fetch.fetcher import Fetcher
    from ..fetch.scratch import ScratchFile

logger = logging.getLogger(__name__)

WAVE_BYTES = 512 << 20
WAVE_SHARE = 8
"""A wave is at most this part of the scratch folder, so that the next ones come in while it is worked on."""
_MAX_AHEAD = 1 << 16
"""Downloads that may be done while an older one waits for its server; the scratch folder bounds their bytes."""


class Downloads:
    """The URLs of one build: checks, downloads and releases them. Faults are written into their places."""

    def __init__(self, fetcher: Fetcher, suffixes: frozenset[str], *, concurrency: int, scratch_bytes: int) -> None:
        self._fetcher = fetcher
        self._suffixes = suffixes
        self._concurrency = concurrency
        self._wave_bytes = min(WAVE_BYTES, max(1, scratch_bytes // WAVE_SHARE))
        self._files: dict[str, ScratchFile] = {}
        self._needed: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._pipeline = Pipeline(
            [
                Stage(
                    id="fetch",
                    name="download",
                    resource="network",
                    run=self._bring,
                    num_workers=concurrency,
                    max_queued=concurrency,
                )
            ],
            max_results=_MAX_AHEAD,
        )

    @property
    def stages(self) -> tuple[StageStats, ...]:
        """Where the downloads' time went."""
        return tuple(stage for stage in self._pipeline.stats().stages if stage.n)

    def recall(self, places: Sequence[Place], on_checked: Callable[[int], None]) -> None:
        """Ask the servers of all remembered URLs whether those are unchanged, and fill in what they hold."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                checks = [pool.submit(self._recall, place) for place in places]
                for number, check in enumerate(checks, 1):
                    while not wait([check], LOOK_S).done:  # a longer sleep could miss a signal to stop
                        pass
                    check.result()
                    on_checked(number)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._fetcher.close()  # ends the checks under way, for which leaving the pool waits
                raise

    def _recall(self, place: Place) -> None:
        try:
            value = self._fetcher.revalidate(place.where)
        except SampleError as error:
            place.fault, place.is_permanent = error.reason, error.permanent
            return
        if value is not None:
            _fill_in(place, value, self._suffixes)

    def waves(self, places: Sequence[Place], is_needed: Callable[[Place], bool]) -> Iterator[list[Place]]:
        """All `places` in order, wave by wave, with the bytes of those that are not known or `is_needed`."""
        wave: list[Place] = []
        num_bytes = 0
        for outcome in self._pipeline.run((place, is_needed(place)) for place in places):
            place = outcome.item[0] if isinstance(outcome, Failed) else outcome
            if isinstance(outcome, Failed):
                place.fault, place.is_permanent = outcome.error.reason, outcome.error.permanent
            wave.append(place)
            num_bytes += place.size_bytes
            if num_bytes >= self._wave_bytes:  # at once: it must not wait for room that it takes itself
                yield wave
                wave, num_bytes = [], 0
        if self._is_closed:
            raise CancelledError("the downloads were closed")  # what is left is only a part of a wave
        if wave:
            yield wave

    def learn(self, places: Sequence[Place]) -> None:
        """Find out what places hold that are not known, and keep no bytes of them."""
        for wave in self.waves(places, lambda place: False):
            self.release_unneeded(wave)

    def _bring(self, job: tuple[Place, bool]) -> Place:
        place, is_needed = job
        if not place.fault and (is_needed or not place.value):
            self.bring(place)
        return place

    def bring(self, place: Place) -> None:
        """Download one URL, unless it is here. Raises SampleError."""
        with self._lock:
            turn = self._turns.setdefault(place.where, threading.Lock())
        with turn:
            if not place.path:
                self._download(place)

    def _download(self, place: Place) -> None:
        file = self._fetcher.download(place.where)
        place.path = str(file.path)
        try:
            value = self._value(place, file)
        except BaseException:
            place.path = ""
            file.release()
            raise
        self._fetcher.remember(place.where, value)
        with self._lock:
            self._files[place.where] = file

    def _value(self, place: Place, file: ScratchFile) -> bytes:
        """Look at what a download is, fill it in, and return what is to be remembered of it."""
        if place.suffix not in self._suffixes | {TAR_SUFFIX}:
            with file.path.open("rb") as opened:
                place.suffix = suffix_of(opened.read(HEAD_BYTES))
        if place.suffix not in self._suffixes | {TAR_SUFFIX}:
            raise failure(Reason.NOT_MEDIA, "what came is of no kind that this encoder reads")
        try:
            value = content_value(place, self._suffixes) if place.is_tar else bytes.fromhex(file.digest)
        except SourceError as error:
            raise failure(Reason.NOT_MEDIA, "no plain tar archive came") from error
        place.value, place.size_bytes = value, file.size_bytes
        known = {"suffix": place.suffix, "size_bytes": place.size_bytes}
        return json.dumps({**known, "value": value.decode() if place.is_tar else value.hex()}).encode()

    def here(self, location: Located) -> Located:
        """A sample with its bytes here, until it is `done`. Raises SampleError."""
        if location.place.is_remote:
            self.bring(location.place)
        return location

    @contextlib.contextmanager
    def at_hand(self, location: Located) -> Iterator[None]:
        """A sample's bytes are here while a block of code runs. Raises SampleError."""
        self.need([location])
        try:
            self.here(location)
            yield
        finally:
            self.done([location])

    def need(self, locations: Sequence[Located]) -> None:
        """Say of a wave which samples will be read; `done` must follow for each of them."""
        with self._lock:
            self._needed.update(location.place.where for location in locations if location.place.is_remote)

    def release_unneeded(self, places: Sequence[Place]) -> None:
        """Remove what a wave brought and nothing needs."""
        for place in places:
            with self._lock:
                file = None if self._needed[place.where] else self._let_go(place)
            if file is not None:
                file.release()

    def done(self, locations: Sequence[Located]) -> None:
        """The bytes of some samples are no longer needed."""
        for place in (location.place for location in locations if location.place.is_remote):
            with self._lock:
                self._needed[place.where] -= 1
                file = None if self._needed[place.where] else self._let_go(place)
            if file is not None:
                file.release()

    def _let_go(self, place: Place) -> ScratchFile | None:
        """The bytes of a place, to be released: from now on they are not here. Called with the lock held."""
        file = self._files.pop(place.where, None)
        if file is not None:
            place.path = ""
        return file

    def close(self) -> None:
        """End what is under way and remove what is here."""
        self._is_closed = True
        self._fetcher.close()
        self._pipeline.close()


def _fill_in(place: Place, remembered: bytes, suffixes: frozenset[str]) -> None:
    """Take what an earlier run remembered of a URL, if it is of use to this one."""
    try:
        known = json.loads(remembered)
        suffix, size_bytes, text = known["suffix"], known["size_bytes"], known["value"]
    except (ValueError, TypeError, KeyError):
        return
    if suffix == TAR_SUFFIX:
        if not is_table_of(text.encode(), suffixes):
            return
    elif suffix not in suffixes:
        return
    place.suffix, place.size_bytes = suffix, size_bytes
    place.value = text.encode() if place.is_tar else bytes.fromhex(text)
