"""Scanning sources: which samples there are, by content, and where their bytes lie now."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
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
    spec: SourceSpec
    source: int
    path: Path
    label: str | None
    stat: os.stat_result | None = None
    value: bytes = b""
    fault: str = ""


def scan_sources(sources: Sequence[str], suffixes: frozenset[str], memo: Memo, *, num_threads: int = 4) -> Scan:
    """Find and hash the samples of `sources`; `suffixes` are the endings of inputs, with the dot.

    Raises SourceError for a source that does not exist or holds no sample at all.
    """
    if not sources:
        raise SourceError("no source was given; expected folders or tar shards, as in train=DIR")
    specs = tuple(parse_source(text) for text in sources)
    files: list[_File] = []
    num_ignored = 0
    for number, spec in enumerate(specs):
        found = [file for file in _files(spec, number) if not file.path.name.startswith(".")]
        wanted = [file for file in found if file.path.suffix.lower() in suffixes | {TAR_SUFFIX}]
        if not wanted:
            endings = ", ".join(sorted(suffixes | {TAR_SUFFIX}))
            raise SourceError(f"source {spec.text!r} holds no samples; expected files ending in {endings}")
        num_ignored += len(found) - len(wanted)
        files += wanted
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(lambda file: _hash(file, suffixes, memo), files):
            pass
    return _collect(specs, files, num_ignored)


def _files(spec: SourceSpec, number: int) -> Iterator[_File]:
    for path in spec.paths:
        if path.is_dir():
            try:
                for file in walk_files(path):
                    yield _File(spec, number, file, class_of(file, path))
            except OSError as error:
                raise SourceError(f"source {spec.text!r}: cannot list {error.filename}: {error.strerror}") from error
        else:
            yield _File(spec, number, path, None)


def _hash(file: _File, suffixes: frozenset[str], memo: Memo) -> None:
    """Fill in the file's digest, or its entries when it is a shard; from the memo when it is unchanged."""
    is_tar = file.path.suffix.lower() == TAR_SUFFIX
    compute: Callable[[], bytes] = (
        (lambda: _tar_value(file.path, suffixes)) if is_tar else (lambda: bytes.fromhex(file_digest(file.path)))
    )
    try:
        before = file.stat = file.path.stat()
        remembered = memo.get(file.path, before)
        if remembered is not None and (not is_tar or json.loads(remembered)["suffixes"] == sorted(suffixes)):
            file.value = remembered
            return
        hashed_ns = now_ns()
        file.value = compute()
        after = file.path.stat()
    except OSError as error:
        file.fault = error.strerror or str(error)
        return
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ino,
    ):
        file.fault = "it changed while it was read"
        return
    memo.remember(file.path, before, hashed_ns, file.value)


def _tar_value(path: Path, suffixes: frozenset[str]) -> bytes:
    entries = [asdict(entry) for entry in read_tar(path, suffixes)]
    return json.dumps({"suffixes": sorted(suffixes), "entries": entries}).encode()


def _collect(specs: tuple[SourceSpec, ...], files: list[_File], num_ignored: int) -> Scan:
    samples: list[Sample] = []
    unreadable: list[Unreadable] = []
    locations: dict[str, Location] = {}
    for file in files:
        uri = file.path.relative_to(file.spec.root).as_posix()
        if file.fault:
            unreadable.append(Unreadable(uri=uri, source=file.source, reason=file.fault, permanent=False))
        elif file.path.suffix.lower() == TAR_SUFFIX:
            for entry in json.loads(file.value)["entries"]:
                _add_tar_entry(file, uri, TarEntry(**entry), samples, unreadable, locations)
        else:
            key = file.value.hex()
            samples.append(Sample(key=key, uri=uri, source=file.source, label=file.label, split=file.spec.split))
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
    uri: str,
    entry: TarEntry,
    samples: list[Sample],
    unreadable: list[Unreadable],
    locations: dict[str, Location],
) -> None:
    uri = f"{uri}#{entry.name}" if entry.name else uri
    if entry.fault:
        unreadable.append(Unreadable(uri=uri, source=file.source, reason=entry.fault, permanent=True))
        return
    fields: dict[str, Any] = {"split": file.spec.split, **entry.fields}
    if file.spec.split is not None:
        fields["split"] = file.spec.split  # what the user says on the command line comes first
    samples.append(Sample(key=entry.digest, uri=uri, source=file.source, **fields))
    locations.setdefault(entry.digest, Location(path=file.path, offset=entry.offset, size=entry.size))
