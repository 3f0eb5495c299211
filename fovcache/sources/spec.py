"""What a user writes as a SOURCE: `[SPLIT=]PATH`, where PATH may be a glob."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError

_SPLIT = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """One SOURCE of a build, expanded."""

    text: str
    """As it was given."""
    absolute: str
    """The same with an absolute path, to find it again from another folder."""
    split: str | None
    """The split its samples belong to."""
    root: Path
    """Absolute; relative uris start here."""
    paths: tuple[Path, ...]
    """The folders and files it names, sorted, absolute."""


def parse_source(text: str) -> SourceSpec:
    """Expand a SOURCE. Raises SourceError when it names nothing that exists."""
    match = _SPLIT.fullmatch(text)
    split, pattern = (match[1], match[2]) if match and not Path(text).exists() else (None, text)
    path = Path(pattern).expanduser().absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SourceError(f"source {text!r}: its path is not UTF-8, as the cache's records are; rename it") from None
    absolute = f"{split}={path}" if split else str(path)
    if path.exists():
        root = path if path.is_dir() else path.parent
        return SourceSpec(text=text, absolute=absolute, split=split, root=root, paths=(path,))
    if glob.has_magic(pattern):
        found = sorted(Path(name) for name in glob.iglob(str(path), recursive=True))
        if not found:
            raise SourceError(f"source {text!r} matches no file")
        parents = {entry.parent for entry in found}
        root = min(parents, key=lambda parent: len(parent.parts))
        while not all(parent.is_relative_to(root) for parent in parents):
            root = root.parent
        return SourceSpec(text=text, absolute=absolute, split=split, root=root, paths=tuple(found))
    raise SourceError(
        f"source {text!r} does not exist; expected a folder, a .tar shard, a file or a glob, as in train=DIR"
    )
