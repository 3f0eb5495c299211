"""Feature quality as files: JSON, and a page of Markdown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from fovcache.errors import UsageError
from fovcache.store.storage import LocalStorage

from ..tables.page import escaped, markdown_table
from .result import RESULT_FILE, Quality
from .tables import sentences, shown_tables

PAGE_FILE = "quality.md"


def check_folder(folder: Path) -> None:
    """Raise UsageError for what is no folder, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file, expected a folder or a name that is free")


def write_quality(quality: Quality, folder: Path) -> None:
    """Write RESULT_FILE and PAGE_FILE into `folder`, which is made; each whole or not at all.

    Raises EnvironmentFailure.
    """
    storage = LocalStorage(folder)
    text = json.dumps(quality.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    storage.put(PAGE_FILE, [page(quality).encode()])
    storage.put(RESULT_FILE, [text.encode()])
    with contextlib.suppress(OSError):
        (folder / LocalStorage.TEMPORARY).rmdir()


def page(quality: Quality) -> str:
    """The tables, what they are of, and what each number is."""
    return "\n".join(_lines(quality))


def _lines(quality: Quality) -> Iterator[str]:
    yield f"# Feature quality of {escaped(quality.encoder)}\n"
    yield from (f"- {escaped(sentence)}" for sentence in sentences(quality))
    yield from (f"- warning: {escaped(warning)}" for warning in quality.warnings)
    yield ""
    for table in shown_tables(quality):
        yield from markdown_table(table)
    for title, facts in (("What the numbers are", quality.definitions), ("Environment", quality.environment)):
        yield f"## {title}\n"
        yield from (f"- {escaped(name)}: {escaped(str(value))}" for name, value in facts.items())
        yield ""
