"""Scanning sources: which samples there are, by content, and where their bytes lie now."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..decode.sampling import WHOLE, Window
from ..errors import SourceError
from ..keys.digest import file_digest
from ..keys.recipe import caption_key, sample_key
from ..store.memo import Memo, now_ns
from .entry import Entry
from .listing import Listing, as_text, list_sources
from .place import Place
from .sample import Caption, Location, Sample, Unreadable
from .spec import SourceSpec, parse_source
from .tar_shards import TarEntry, read_tar

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Found:
    """Samples of some entries, in their order."""

    samples: Sequence[Sample]
    """Those whose content is known."""
    unreadable: Sequence[Unreadable]
    """What could not become a sample."""
    locations: dict[str, Location]
    """For each key, where its bytes lie (the first place, of several)."""

    @cached_property
    def captions(self) -> dict[str, Caption]:
        """The samples' captions by their own keys, each once, in order; with one that stands for none."""
        texts = dict.fromkeys(sample.caption for sample in self.samples)
        return {caption_key(text): Caption(text=text) for text in texts}


class Scan:
    """What the sources of a build hold. URLs that are not known yet are `pending`, and can be filled in later."""

    def __init__(
        self, sources: tuple[SourceSpec, ...], suffixes: frozenset[str], listing: Listing, num_entries: int
    ) -> None:
        self.sources = sources
        """The sources, expanded."""
        self.suffixes = suffixes
        """Endings of inputs, with the dot."""
        self.num_ignored = listing.num_ignored
        """Files in folders that are of no kind that is read here."""
        self.num_entries = num_entries
        """What the sources list in all; a tar shard is one entry."""
        self.places = listing.places
        """Every file and URL, by path or URL, in the order of the sources."""
        self.entries = listing.entries
        """What is listed and looked at, in order."""
        self._found: Found | None = None
        self._entries_at: dict[str, list[Entry]] = {}

    @property
    def samples(self) -> Sequence[Sample]:
        """In the order of the sources, then by path, row or archive order."""
        return self.found().samples

    @property
    def unreadable(self) -> Sequence[Unreadable]:
        """What could not become a sample."""
        return self.found().unreadable

    @property
    def locations(self) -> dict[str, Location]:
        """For each key, where its bytes lie."""
        return self.found().locations

    @property
    def pending(self) -> list[Place]:
        """URLs whose content is not known yet, in order."""
        return [place for place in self.places.values() if not place.is_known]

    @property
    def pending_uris(self) -> list[str]:
        """The uris of entries whose content is not known yet."""
        pending = {place.where for place in self.pending}
        return [entry.uri for entry in self.entries if entry.place in pending]

    @property
    def remote(self) -> list[Place]:
        """All URLs, in order."""
        return [place for place in self.places.values() if place.is_remote]

    def found(self) -> Found:
        """All that is known now."""
        if self._found is None:
            self._found = self.found_of(self.entries)
        return self._found

    def refresh(self) -> None:
        """More is known of some places than when they were last looked at."""
        self._found = None

    def found_at(self, places: Iterable[Place]) -> Found:
        """What some places hold, now that they are known."""
        self.refresh()
        if not self._entries_at:
            for entry in self.entries:
                self._entries_at.setdefault(entry.place, []).append(entry)
        return self.found_of(entry for place in places for entry in self._entries_at[place.where])

    def found_of(self, entries: Iterable[Entry]) -> Found:
        """What some entries come to, as far as their places are known."""
        found = _Collected()
        for entry in entries:
            place = self.places.get(entry.place)
            if place is None or place.fault:
                reason, permanent = (entry.fault, True) if place is None else (place.fault, place.is_permanent)
                found.unreadable.append(
                    Unreadable(uri=entry.uri, source=entry.source, reason=reason, permanent=permanent)
                )
            elif place.is_tar and place.value and (entry.start_s is not None or entry.end_s is not None):
                reason = "start_s and end_s are of a video, and this is a tar shard"
                found.unreadable.append(Unreadable(uri=entry.uri, source=entry.source, reason=reason, permanent=True))
            elif place.is_tar and place.value:
                for fields in json.loads(place.value)["entries"]:
                    _add_member(found, entry, place, TarEntry(**fields))
            elif place.value:
                _add_file(found, entry, place)
        return Found(samples=tuple(found.samples), unreadable=tuple(found.unreadable), locations=found.locations)


def scan_sources(
    sources: Sequence[str],
    suffixes: frozenset[str],
    memo: Memo,
    *,
    num_threads: int = 4,
    allow_file_urls: bool = False,
    limit: int | None = None,
) -> Scan:
    """Find the samples of `sources` and hash the local ones; `suffixes` are the endings of inputs, with the dot.

    With `limit` only so many of what the sources list are looked at, the first of them.

    Raises SourceError for a source that does not exist or holds no sample at all.
    """
    if not sources:
        raise SourceError("no source was given; expected folders, tar shards, manifests or URLs, as in train=DIR")
    specs = tuple(parse_source(text) for text in sources)
    listing = list_sources(specs, suffixes, allow_file_urls=allow_file_urls)
    places = listing.places if limit is None else _first(listing, limit)
    changed = [
        place
        for place in places.values()
        if not place.is_remote and not place.fault and not _recall(place, suffixes, memo)
    ]
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(lambda place: _hash(place, suffixes, memo), changed):
            pass
    return Scan(specs, suffixes, replace(listing, entries=listing.entries[:limit], places=places), len(listing.entries))


def _first(listing: Listing, limit: int) -> dict[str, Place]:
    """The places of the first entries."""
    return {e.place: listing.places[e.place] for e in listing.entries[:limit] if e.place in listing.places}


def _recall(place: Place, suffixes: frozenset[str], memo: Memo) -> bool:
    """Whether the memo knows the file as it is now; then its value is filled in."""
    try:
        value = memo.get(place.path, os.stat(place.path))
    except OSError:
        return False
    if value is None or (place.is_tar and not is_table_of(value, suffixes)):
        return False
    place.value = value
    return True


def _hash(place: Place, suffixes: frozenset[str], memo: Memo) -> None:
    """Read the file and fill in its digest, or its members when it is a shard."""
    try:
        before = os.stat(place.path)
        if not stat.S_ISREG(before.st_mode):  # reading a pipe would wait for ever
            place.fault = "it is not a plain file"
            return
        hashed_ns = now_ns()
        value = content_value(place, suffixes)
        after = os.stat(place.path)
    except OSError as error:
        place.fault = error.strerror or str(error)
        return
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        place.fault = "it changed while it was read"
        return
    place.value = value
    memo.remember(place.path, before, hashed_ns, value)


def content_value(place: Place, suffixes: frozenset[str]) -> bytes:
    """The digest of a place whose bytes are here, or the table of its members. Raises OSError, SourceError."""
    if not place.is_tar:
        return bytes.fromhex(file_digest(place.path))
    entries = [asdict(entry) for entry in read_tar(Path(place.path), suffixes)]
    return json.dumps({"suffixes": sorted(suffixes), "entries": entries}).encode()


def is_table_of(value: bytes, suffixes: frozenset[str]) -> bool:
    """Whether a remembered value is a shard's table, made for the same kinds of inputs."""
    try:
        return bool(json.loads(value)["suffixes"] == sorted(suffixes))
    except (ValueError, TypeError, KeyError):
        return False


@dataclass(slots=True)
class _Collected:
    samples: list[Sample] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    locations: dict[str, Location] = field(default_factory=dict)


def _add_file(found: _Collected, entry: Entry, place: Place) -> None:
    content = place.value.hex()
    key, window = content, WHOLE
    if entry.start_s is not None or entry.end_s is not None:
        window = Window(start_s=entry.start_s or 0.0, end_s=entry.end_s)
        if window != WHOLE:
            key = sample_key(content, window.start_s, window.end_s)
    found.samples.append(
        Sample(
            key=key,
            uri=entry.uri,
            source=entry.source,
            label=entry.label,
            caption=entry.caption,
            group=entry.group,
            split=entry.split,
        )
    )
    if key not in found.locations:
        found.locations[key] = Location(place=place, content=content, suffix=place.suffix, window=window)


def _add_member(found: _Collected, entry: Entry, place: Place, member: TarEntry) -> None:
    uri = f"{entry.uri}#{as_text(member.name)}" if member.name else entry.uri
    if member.fault:
        found.unreadable.append(Unreadable(uri=uri, source=entry.source, reason=member.fault, permanent=True))
        return
    named: dict[str, Any] = {name: getattr(entry, name) for name in ("label", "caption", "group", "split")}
    fields = {**named, **member.fields}
    if entry.split is not None:
        fields["split"] = entry.split  # what the user says on the command line comes first
    found.samples.append(Sample(key=member.digest, uri=uri, source=entry.source, **fields))
    if member.digest not in found.locations:
        found.locations[member.digest] = Location(
            place=place,
            content=member.digest,
            suffix=os.path.splitext(member.name)[1].lower(),
            offset=member.offset,
            size=member.size,
        )
