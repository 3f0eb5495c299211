"""The samples that a profile runs on: the first of its sources, over and over, each time fetched and decoded anew."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fovcache.builder.reading import decode, fetch
from fovcache.builder.request import Resolution
from fovcache.builder.units import Unit
from fovcache.decode.sampling import WHOLE, Window
from fovcache.errors import SampleError, SourceError
from fovcache.fetch.fetcher import Fetcher
from fovcache.fetch.scratch import ScratchFile
from fovcache.keys.recipe import sample_key
from fovcache.sources.magic import HEAD_BYTES, suffix_of
from fovcache.sources.place import Place
from fovcache.sources.sample import Location, Unreadable
from fovcache.sources.scan import Scan, content_value


class Download:
    """One download of a URL, shared by the samples in it (one, but for tar shards), and gone after the last."""

    def __init__(self, fetcher: Fetcher, url: str, num_users: int) -> None:
        self.url = url
        self._fetcher = fetcher
        self._num_users = num_users
        self._lock = threading.Lock()
        self._file: ScratchFile | None = None

    def bring(self) -> ScratchFile:
        """Download it, unless it is here. Raises SampleError."""
        with self._lock:
            if self._file is None:
                self._file = self._fetcher.download(self.url)
            return self._file

    def done(self) -> None:
        """One of its samples needs it no longer."""
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and self._file is not None:
                self._file.release()
                self._file = None


@dataclass(slots=True, kw_only=True)
class Item:
    """One sample on its way through a profile's stages."""

    uri: str
    """Where it stands in its source, without secrets."""
    location: Location
    """Where its bytes lie; of a URL what is known before it is here."""
    download: Download | None = None
    """For what lies at a URL."""
    unit: Unit | None = None
    """What the build's own stages work on; decoded, it holds for each encoder its input."""

    @property
    def key(self) -> str:
        """The sample's key, once it was fetched."""
        assert self.unit is not None
        return self.unit.keys[0]

    @property
    def size_bytes(self) -> int:
        """What it holds in memory."""
        return self.unit.size_bytes if self.unit is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The samples of one file or URL: several in a tar shard."""

    place: Place
    """The file or URL."""
    members: tuple[tuple[str, Location], ...]
    """The uri of each, and where its bytes lie."""


class SampleStream:
    """Samples of a scan, cycled, and the two stages that the build has too, without deduplication or cache."""

    def __init__(
        self, scan: Scan, resolutions: Sequence[Resolution], fetcher: Fetcher | None, num_samples: int
    ) -> None:
        """Takes the first `num_samples` of `scan`. Raises SourceError when none of them can be read."""
        self._resolutions = tuple(resolutions)
        self._suffixes = resolutions[0].suffixes
        self._fetcher = fetcher
        self.unreadable: list[Unreadable] = []
        """What is known not to be a sample without fetching it."""
        self._groups = self._known_groups(scan, num_samples)
        if not self._groups:
            why = f": {self.unreadable[0].reason}" if self.unreadable else ""
            raise SourceError(f"none of the sources' first samples can be read{why}; `fovcache build` says more")
        self.num_distinct = sum(len(group.members) for group in self._groups)
        """Samples in a cycle."""
        self.num_listed = round(scan.num_entries * self.num_distinct / (len(self._groups) + len(self.unreadable)))
        """Samples in the sources; where there are tar shards, by the mean of those that were looked at."""
        suffixes = {location.suffix for group in self._groups for _, location in group.members}
        self.decoders = {str(self._resolutions[0].of(suffix).spec.software()["name"]) for suffix in suffixes}
        """What decodes them, by name."""
        self.is_remote = any(group.place.is_remote for group in self._groups)
        """Whether any lies at a URL."""

    def __iter__(self) -> Iterator[Item]:
        """Samples without end."""
        for group in itertools.cycle(self._groups):
            download = None
            if group.place.is_remote:
                assert self._fetcher is not None
                download = Download(self._fetcher, group.place.where, len(group.members))
            for uri, location in group.members:
                yield Item(uri=uri, location=location, download=download)

    def fetch(self, item: Item) -> Item:
        """Bring a sample's bytes and check them, as the build does. Raises SampleError."""
        try:
            location = item.location if item.download is None else self._arrived(item.location, item.download)
            specs = tuple(each.of(location.suffix).spec for each in self._resolutions)
            item.unit = fetch(Unit(keys=(_key_of(location),), locations=(location,), specs=specs))
        except SampleError:
            if item.download is not None:
                item.download.done()
            raise
        return item

    def decode(self, item: Item) -> Item:
        """Decode a sample for every encoder, as the build does. Raises SampleError."""
        assert item.unit is not None
        try:
            unit = decode(item.unit)
        finally:
            if item.download is not None:
                item.download.done()
        for (decoded,) in unit.items:
            if isinstance(decoded, SampleError):
                raise decoded
        return item

    def _arrived(self, location: Location, download: Download) -> Location:
        """Where the bytes of a URL lie now."""
        file = download.bring()
        place = Place.of_url(download.url)
        place.path = str(file.path)
        if location.size is not None:
            return replace(location, place=place)
        if place.suffix not in self._suffixes:
            with file.path.open("rb") as opened:
                place.suffix = suffix_of(opened.read(HEAD_BYTES))
        if place.suffix not in self._suffixes:
            raise SampleError("fetch", "what came is of no kind that this encoder reads", permanent=True)
        return replace(location, place=place, content=file.digest, suffix=place.suffix)

    def _known_groups(self, scan: Scan, num_samples: int) -> list[Group]:
        groups: list[Group] = []
        for entry in scan.entries:
            if sum(len(group.members) for group in groups) >= num_samples:
                break
            place = scan.places.get(entry.place)
            if place is not None and place.is_remote and not place.is_tar:
                window = Window(start_s=entry.start_s or 0.0, end_s=entry.end_s)
                location = Location(place=place, content="", suffix=place.suffix, window=window)
                groups.append(Group(place=place, members=((entry.uri, location),)))
                continue
            if place is not None and place.is_remote and not place.value:
                self._look_into(place)
            found = scan.found_of([entry])
            self.unreadable += found.unreadable
            if found.samples and place is not None:
                members = tuple((sample.uri, found.locations[sample.key]) for sample in found.samples)
                groups.append(Group(place=place, members=members))
        return groups

    def _look_into(self, place: Place) -> None:
        """Download a tar shard once, to know what is in it."""
        assert self._fetcher is not None
        try:
            with self._fetcher.download(place.where) as file:
                place.path = str(file.path)
                place.value = content_value(place, self._suffixes)
        except (SampleError, SourceError) as error:
            place.fault = str(error)
        finally:
            place.path = ""


def _key_of(location: Location) -> str:
    """As a scan has it."""
    window = location.window
    return location.content if window == WHOLE else sample_key(location.content, window.start_s, window.end_s)
