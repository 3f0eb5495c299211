"""What a user writes as a SOURCE: `[SPLIT=]PATH` or `[SPLIT=]URL`.

PATH may be a glob, and both may have brace ranges, as in `shard-{000..012}.tar`. A file that is named with the ending
of a manifest or a URL list is one; such files inside a folder are not looked at.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from ..errors import SourceError
from ..fetch.redact import redact
from .address import check_url, scheme_of, shown_uri
from .braces import expand_braces
from .manifest import MANIFEST_SUFFIXES, SPLIT
from .url_list import URL_LIST_SUFFIXES

Kind = Literal["files", "manifest", "url_list", "urls"]
"""Folders and files (tar shards too) · tables of samples · lists of URLs · URLs of files and tar shards."""

_PREFIXED = re.compile(rf"({SPLIT.pattern})=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """One SOURCE of a build, expanded."""

    text: str
    """As it was given; of a URL without its secrets."""
    absolute: str
    """The same with an absolute path, to find it again from another folder."""
    split: str | None
    """The split its samples belong to."""
    kind: Kind
    """What `paths` or `urls` are."""
    root: Path
    """Absolute; relative uris start here. The file system's root for URLs, whose uris are whole."""
    paths: tuple[Path, ...] = ()
    """The folders and files it names, absolute; sorted as far as a glob found them. Empty for URLs."""
    urls: tuple[str, ...] = ()
    """The URLs it names, whole: they may hold secrets."""

    @property
    def name(self) -> str:
        """What to call it: the last part of its path or URL that is its own, without the ending."""
        if self.urls:
            parts = urlsplit(self.urls[0])
            path = PurePosixPath(parts.path if len(self.urls) == 1 else parts.path.rpartition("/")[0])
            name = path.name or (parts.hostname or "")
        else:
            name = (self.paths[0] if len(self.paths) == 1 else self.root).name
        stem, suffix = os.path.splitext(name)
        return stem if suffix.lower() in {".tar", *MANIFEST_SUFFIXES, *URL_LIST_SUFFIXES} else name


def parse_source(text: str) -> SourceSpec:
    """Expand a SOURCE. Raises SourceError when it names nothing that can be read."""
    match = _PREFIXED.fullmatch(text)
    split, pattern = (match[1], match[2]) if match and not os.path.exists(text) else (None, text)
    prefix = f"{split}=" if split else ""
    if scheme_of(pattern) in ("http", "https"):
        return _url_source(split, prefix, pattern.strip())
    if "://" in pattern and not os.path.exists(pattern):
        shown, scheme = prefix + shown_uri(pattern), scheme_of(pattern)
        raise SourceError(f"source {shown!r}: {scheme}: is not read; expected a path or an http(s) URL")
    path = Path(pattern).expanduser().absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SourceError(f"source {text!r}: its path is not UTF-8, as the cache's records are; rename it") from None
    names = [str(path)] if os.path.exists(path) else expand_braces(str(path))
    paths = _found(text, names)
    is_folder = len(paths) == 1 and paths[0].is_dir()
    return SourceSpec(
        text=text,
        absolute=f"{prefix}{path}",
        split=split,
        kind="files" if is_folder else _kind_of_all(text, names),
        root=paths[0] if is_folder else _common_parent(paths),
        paths=paths,
    )


def _found(text: str, names: Sequence[str]) -> tuple[Path, ...]:
    """The paths and globs of a source as paths, all of which exist."""
    found: dict[Path, None] = {}
    for name in names:
        if os.path.exists(name):
            here = [Path(name)]
        elif glob.has_magic(name):
            here = sorted(map(Path, glob.iglob(name, recursive=True)))
        else:
            here = []
        if not here and len(names) > 1:
            raise SourceError(f"source {text!r}: {name} does not exist, which its braces stand for")
        found.update(dict.fromkeys(here))
    if not found and glob.has_magic(names[0]):
        raise SourceError(f"source {text!r} matches no file")
    if not found:
        raise SourceError(
            f"source {text!r} does not exist; expected a folder, a .tar shard, a manifest, a URL list, a file, a glob "
            "or a URL, as in train=DIR"
        )
    return tuple(found)


def _kind_of_all(text: str, names: Sequence[str]) -> Kind:
    kinds = {_kind(name) for name in names}
    if len(kinds) > 1:
        raise SourceError(f"source {text!r} names files of several kinds ({', '.join(sorted(kinds))}); give them apart")
    return kinds.pop()


def _kind(name: str) -> Kind:
    suffix = PurePosixPath(name).suffix.lower()
    return "manifest" if suffix in MANIFEST_SUFFIXES else "url_list" if suffix in URL_LIST_SUFFIXES else "files"


def _common_parent(paths: Sequence[Path]) -> Path:
    parents = {path.parent for path in paths}
    root = min(parents, key=lambda parent: len(parent.parts))
    while not all(parent.is_relative_to(root) for parent in parents):
        root = root.parent
    return root


def _url_source(split: str | None, prefix: str, pattern: str) -> SourceSpec:
    text = prefix + redact(pattern)
    urls = expand_braces(pattern)
    try:
        check_url(urls[0])
    except ValueError as error:
        raise SourceError(f"source {prefix + shown_uri(pattern)!r}: {error}") from None
    if "{" in urls[0] or "}" in urls[0]:
        expected = "expected {000..012} or {a,b}, none inside another"
        raise SourceError(f"source {text!r} has braces that are no range; {expected}")
    if _kind(urlsplit(urls[0]).path) != "files":
        raise SourceError(f"source {text!r}: manifests and URL lists are read from local files; download it first")
    return SourceSpec(text=text, absolute=text, split=split, kind="urls", root=Path("/"), urls=tuple(urls))
