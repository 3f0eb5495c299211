"""Sources in a configuration: relative paths start where the configuration stands."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fovcache.sources.manifest import SPLIT

_PREFIXED = re.compile(rf"({SPLIT.pattern})=(.+)", re.DOTALL)


def absolute_source(source: str, folder: Path) -> str:
    """A SOURCE as `fovcache build` takes it, whatever the working folder is."""
    if "://" in source:
        return source
    match = _PREFIXED.fullmatch(source)
    if match and not (folder / source).exists():
        return f"{match[1]}={folder.absolute() / match[2]}"
    return os.fspath(folder.absolute() / source)
