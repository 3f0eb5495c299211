"""Scanning sources: which samples there are, by content, and where their bytes lie now."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..keys.digest import file_digest
from ..store.memo import Memo, now_ns
from .folder import class_of, walk_files
from .sample import Location, Sample, Unreadable
from .spec import SourceSpec, parse_source
from .tar_shards import TarEntry, read_tar

logger = logging.getLogger(__name__)

TAR_SUFFIX = ".tar"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the sources of a build hold."""

    sources: tuple[SourceSpec, ...]
    """The sources, expanded."""
    samples: tuple[Sample, ...]
    """In the order of the sources, then by path or archive order."""
    unreadable: tuple[Unreadable, ...]
    """What could not become a sample."""
    locations: dict[str, Location]
    """For each key, where its bytes lie (the first place, of several)."""
    num_ignored: int
    """Files in folders that are of no kind that is read here."""


@dataclass(slots=True)
class _File:
    path: str
    uri: str
    source: int
    split: str | None
    label: str | None
    value: bytes = b""
    fault: str = ""

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()


def scan_sources(sources: Sequence[str], suffixes: frozenset[str], memo: Memo, *, num_threads: int = 4) -> Scan:
    """Find and hash the samples of `sources`; `suffixes` are the endings of inputs, with the dot.

    Raises SourceError for a source that does not exist or holds no sample at all.
    """
    if not sources:
        raise SourceError("no source was given; expected folders or tar shards, as in train=DIR")
    specs = tuple(parse_source(text) for text in sources)
    accepted = suffixes | {TAR_SUFFIX}
    files: list[_File] = []
    num_ignored = 0
    for number, spec in enumerate(specs):
        found = list(_files(spec, number))
        wanted = [file for file in found if file.suffix in accepted]
        if not wanted:
            endings = ", ".join(sorted(accepted))
            raise SourceError(f"source {spec.text!r} holds no samples; expected files ending in {endings}")
        num_ignored += len(found) - len(wanted)
        files += wanted
    changed = [file for file in files if not _recall(file, suffixes, memo)]
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(lambda file: _hash(file, suffixes, memo), changed):
            pass
    return _collect(specs, files, num_ignored)


def _files(spec: SourceSpec, number: int) -> Iterator[_File]:
    for path in spec.paths:
        if not path.is_dir():
            yield _File(str(path), _text(path.relative_to(spec.root).as_posix()), number, spec.split, None)
            continue
        prefix = "" if path == spec.root else path.relative_to(spec.root).as_posix() + "/"
        try:
            for file, relative in walk_files(str(path)):
                uri = _text(relative)
                yield _File(file, _text(prefix) + uri, number, spec.split, class_of(uri))
        except OSError as error:
            raise SourceError(f"source {spec.text!r}: cannot list {error.filename}: {error.strerror}") from error


def _text(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 are written out, as in `\\xff.png`."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _recall(file: _File, suffixes: frozenset[str], memo: Memo) -> bool:
    """Whether the memo knows the file as it is now; then its value is filled in."""
    try:
        value = memo.get(file.path, os.stat(file.path))
    except OSError:
        return False
    if value is None or (file.suffix == TAR_SUFFIX and json.loads(value)["suffixes"] != sorted(suffixes)):
        return False
    file.value = value
    return True


def _hash(file: _File, suffixes: frozenset[str], memo: Memo) -> None:
    """Read the file and fill in its digest, or its entries when it is a shard."""
    try:
        before = os.stat(file.path)
        if not stat.S_ISREG(before.st_mode):  # reading a pipe would wait for ever
            file.fault = "it is not a plain file"
            return
        hashed_ns = now_ns()
        is_tar = file.suffix == TAR_SUFFIX
        value = _tar_value(Path(file.path), suffixes) if is_tar else bytes.fromhex(file_digest(file.path))
        after = os.stat(file.path)
    except OSError as error:
        file.fault = error.strerror or str(error)
        return
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        file.fault = "it changed while it was read"
        return
    file.value = value
    memo.remember(file.path, before, hashed_ns, value)


def _tar_value(path: Path, suffixes: frozenset[str]) -> bytes:
    entries = [asdict(entry) for entry in read_tar(path, suffixes)]
    return json.dumps({"suffixes": sorted(suffixes), "entries": entries}).encode()


def _collect(specs: tuple[SourceSpec, ...], files: list[_File], num_ignored: int) -> Scan:
    samples: list[Sample] = []
    unreadable: list[Unreadable] = []
    locations: dict[str, Location] = {}
    for file in files:
        if file.fault:
            unreadable.append(Unreadable(uri=file.uri, source=file.source, reason=file.fault, permanent=False))
        elif file.suffix == TAR_SUFFIX:
            for fields in json.loads(file.value)["entries"]:
                _add_tar_entry(file, TarEntry(**fields), samples, unreadable, locations)
        else:
            key = file.value.hex()
            samples.append(Sample(key=key, uri=file.uri, source=file.source, label=file.label, split=file.split))
            locations.setdefault(key, Location(path=file.path))
    return Scan(
        sources=specs,
        samples=tuple(samples),
        unreadable=tuple(unreadable),
        locations=locations,
        num_ignored=num_ignored,
    )


def _add_tar_entry(
    file: _File,
    entry: TarEntry,
    samples: list[Sample],
    unreadable: list[Unreadable],
    locations: dict[str, Location],
) -> None:
    uri = f"{file.uri}#{_text(entry.name)}" if entry.name else file.uri
    if entry.fault:
        unreadable.append(Unreadable(uri=uri, source=file.source, reason=entry.fault, permanent=True))
        return
    fields: dict[str, Any] = {"split": file.split, **entry.fields}
    if file.split is not None:
        fields["split"] = file.split  # what the user says on the command line comes first
    samples.append(Sample(key=entry.digest, uri=uri, source=file.source, **fields))
    locations.setdefault(entry.digest, Location(path=file.path, offset=entry.offset, size=entry.size))
