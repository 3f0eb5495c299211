"""What sources list: entries with the places that they point at, before any of those is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import SourceError
from .entry import Entry
from .folder import class_of, walk_files
from .manifest import read_manifest
from .place import TAR_SUFFIX, Place
from .spec import SourceSpec
from .url_list import read_url_list, url_entries


@dataclass(slots=True, kw_only=True)
class Listing:
    """Entries in the order of their sources, and each place that they point at once."""

    entries: list[Entry] = field(default_factory=list)
    """Entries with a fault or with a place."""
    places: dict[str, Place] = field(default_factory=dict)
    """By path or URL."""
    num_ignored: int = 0
    """Files in folders that are of no kind that is read here."""


def list_sources(specs: tuple[SourceSpec, ...], suffixes: frozenset[str], *, allow_file_urls: bool = False) -> Listing:
    """List sources; `suffixes` are the endings of inputs. Raises SourceError for one that holds no sample at all."""
    listing = Listing()
    accepted = suffixes | {TAR_SUFFIX}
    for number, spec in enumerate(specs):
        if spec.kind == "files":
            _add_files(listing, spec, number, accepted)
        else:
            for entry in _listed(spec, number, allow_file_urls):
                _add(listing, entry, accepted)
    return listing


def _add_files(listing: Listing, spec: SourceSpec, number: int, accepted: frozenset[str]) -> None:
    num_found = 0
    for entry in _files(spec, number):
        place = Place.of_file(entry.place)
        if place.suffix in accepted:
            num_found += 1
            listing.entries.append(entry)
            listing.places.setdefault(entry.place, place)
        else:
            listing.num_ignored += 1
    if not num_found:
        endings = ", ".join(sorted(accepted))
        raise SourceError(f"source {spec.text!r} holds no samples; expected files ending in {endings}")


def _listed(spec: SourceSpec, number: int, allow_file_urls: bool) -> Iterator[Entry]:
    if spec.kind == "urls":
        return url_entries(spec.urls, number, spec.split)
    read = read_manifest if spec.kind == "manifest" else read_url_list
    return (
        entry
        for path in spec.paths
        for entry in read(path, number, spec.split, root=spec.root, allow_file_urls=allow_file_urls)
    )


def _add(listing: Listing, entry: Entry, accepted: frozenset[str]) -> None:
    """Add what somebody named: nothing of it is passed over in silence."""
    listing.entries.append(entry)
    if entry.fault or entry.place in listing.places:
        return
    place = Place.of_url(entry.place) if entry.is_remote else Place.of_file(entry.place)
    if not place.is_remote and place.suffix not in accepted:
        place.fault = f"its ending {place.suffix!r} is of no kind that this encoder reads"
        place.is_permanent = True
    listing.places[entry.place] = place


def _files(spec: SourceSpec, number: int) -> Iterator[Entry]:
    for path in spec.paths:
        if not path.is_dir():
            uri = as_text(path.relative_to(spec.root).as_posix())
            yield Entry(uri=uri, source=number, place=str(path), split=spec.split)
            continue
        prefix = "" if path == spec.root else as_text(path.relative_to(spec.root).as_posix() + "/")
        try:
            for file, relative in walk_files(str(path)):
                uri = as_text(relative)
                label = (
                    None if uri.endswith(TAR_SUFFIX) else class_of(uri)
                )  # a shard's members have labels of their own
                yield Entry(uri=prefix + uri, source=number, place=file, split=spec.split, label=label)
        except OSError as error:
            raise SourceError(f"source {spec.text!r}: cannot list {error.filename}: {error.strerror}") from error


def as_text(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 are written out, as in `\\xff.png`."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
