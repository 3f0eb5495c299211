"""WebDataset-style tar shards: `NAME.jpg` is the input, `NAME.cls`, `NAME.txt`, `NAME.json` its annotations.

Members are read in place and never unpacked. An archive is hostile until shown otherwise: only plain files
with relative names inside the archive count, and every other member is reported, not followed.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import SourceError
from ..keys.digest import bytes_digest
from .fields import ANNOTATIONS, MAX_TEXT_BYTES, check_annotation, check_label

_ENDINGS = (".cls", ".txt", ".json")
_DAMAGED = (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError, MemoryError, RecursionError)
"""What tarfile raises on headers that lie: of a size beyond any memory, or a thousand deep."""


@dataclass(kw_only=True)
class TarEntry:
    """One sample of a shard, or something in it that could not become one."""

    name: str
    """The input member's name, or the name of what is at fault."""
    offset: int = 0
    """Where the input's bytes start in the archive."""
    size: int = 0
    """How many they are."""
    digest: str = ""
    """BLAKE3 of the input's bytes; empty for a fault."""
    fields: dict[str, Any] = field(default_factory=dict)
    """label, caption, group, split, as far as annotated."""
    fault: str = ""
    """Why it could not become a sample."""


def read_tar(path: Path, suffixes: frozenset[str]) -> list[TarEntry]:
    """The entries of a shard in archive order. `suffixes` are the endings of inputs, with the dot.

    Raises SourceError when the file is not a plain tar at all. An archive that ends early gives its whole
    samples and one fault.
    """
    entries: list[TarEntry] = []
    groups: dict[str, dict[str, tarfile.TarInfo]] = {}
    with path.open("rb") as file:
        for member, fault in _members(path, file):
            if fault or member is None:
                entries.append(TarEntry(name=member.name if member else "", fault=fault))
                continue
            base, suffix = _split_name(member.name)
            if suffix not in suffixes and suffix not in _ENDINGS:
                continue
            parts = groups.setdefault(base, {})
            if suffix in parts:
                entries.append(TarEntry(name=member.name, fault="the archive holds this name twice"))
            else:
                parts[suffix] = member
        for base, parts in groups.items():
            entries.append(_entry(base, parts, suffixes, file))
    return entries


def _members(path: Path, file: Any) -> Iterator[tuple[tarfile.TarInfo | None, str]]:
    """Members with '' for good ones, or why they are refused; a truncated end is one more fault."""
    end = path.stat().st_size
    try:
        archive = tarfile.open(fileobj=file, mode="r:", errorlevel=1)  # noqa: SIM115 - closed with its file
    except _DAMAGED as error:
        raise SourceError(
            f"{path} is not a plain tar archive ({_said(error)}); compressed archives must be unpacked"
        ) from error
    while True:
        try:
            member = archive.next()
        except (*_DAMAGED, OSError) as error:
            yield None, f"the archive is damaged or ends early: {_said(error)}"
            return
        if member is None:
            if fault := _end_fault(file, archive.offset, end):
                yield None, fault
            return
        if member.size < 0:  # the next header would be an earlier one, for ever
            yield member, "refused: its size is negative"
            return
        if member.isdir() or PurePosixPath(member.name).name.startswith("."):  # hidden, as in folders
            continue
        fault = _member_fault(member)
        if not fault and member.offset_data + member.size > end:
            yield member, "the archive ends inside this member"
            return
        yield member, fault


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _end_fault(file: Any, offset: int, end: int) -> str:
    """What is wrong where reading stopped, or '': a block of zeros must stand there, and nothing but zeros after it."""
    file.seek(min(offset, end))
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        return "the archive is damaged or ends early: its end-of-archive marker is missing"
    while block := file.read(1 << 20):
        if block.count(0) != len(block):
            return "the archive is damaged: more data follows its end-of-archive marker"
    return ""


def _member_fault(member: tarfile.TarInfo) -> str:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        return "refused: its name leads out of the archive"
    if "\0" in member.name or "\n" in member.name or "\\" in member.name:
        return "refused: its name has characters that no plain file name has"
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "not a plain file"
        return f"refused: it is {kind}"
    return ""


def _split_name(name: str) -> tuple[str, str]:
    """`a/b.c.jpg` → (`a/b.c`, `.jpg`)."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix), suffix.lower()


def _entry(base: str, parts: dict[str, tarfile.TarInfo], suffixes: frozenset[str], file: Any) -> TarEntry:
    inputs = [member for suffix, member in parts.items() if suffix in suffixes]
    if len(inputs) != 1:
        found = ", ".join(sorted(parts))
        return TarEntry(name=base, fault=f"expected one input beside its annotations, found {found}")
    member = inputs[0]
    try:
        fields = _fields({suffix: _read(file, parts[suffix]) for suffix in _ENDINGS if suffix in parts})
    except ValueError as error:
        return TarEntry(name=member.name, fault=f"annotation: {error}")
    data = _read(file, member)
    return TarEntry(
        name=member.name,
        offset=member.offset_data,
        size=member.size,
        digest=bytes_digest(data),
        fields=fields,
    )


def _read(file: Any, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    data: bytes = file.read(member.size)
    return data


def _fields(annotations: dict[str, bytes]) -> dict[str, Any]:
    """label, caption, group and split; `.cls` and `.txt` come before the same in `.json`. Raises ValueError."""
    fields: dict[str, Any] = {}
    for suffix, data in annotations.items():
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError(f"{suffix} has {len(data)} bytes, at most {MAX_TEXT_BYTES} are read")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{suffix} is not UTF-8") from None
        if suffix == ".cls":
            fields["label"] = parse_class(text)
        elif suffix == ".txt":
            fields["caption"] = text
        else:
            fields = {**_json_fields(text), **fields}
    return fields


def parse_class(text: str) -> int:
    """The integer of a `.cls` file. Raises ValueError."""
    try:
        label = int(text.strip())
    except ValueError:
        raise ValueError(f".cls holds {text.strip()[:40]!r}, expected a whole number") from None
    return check_label(label)


def _json_fields(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(".json is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError(f".json holds a {type(document).__name__}, expected an object with named fields")
    fields = {name: document[name] for name in ANNOTATIONS if document.get(name) is not None}
    try:
        return {name: check_annotation(name, value) for name, value in fields.items()}
    except ValueError as error:
        raise ValueError(f".json: {error}") from None
