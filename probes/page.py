"""An ablation as a page of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .result import Ablation
from .tables import TextTable, sentences, shown_tables

PAGE_FILE = "ablation.md"


def page(ablation: Ablation) -> str:
    """The tables with intervals, what they are of, and what a reader should know."""
    return "\n".join(_lines(ablation))


def _lines(ablation: Ablation) -> Iterator[str]:
    yield f"# Ablation {_escaped(ablation.name)}\n"
    yield from (f"- {_escaped(sentence)}" for sentence in sentences(ablation))
    yield from (f"- warning: {_escaped(warning)}" for warning in ablation.warnings)
    yield ""
    for table in shown_tables(ablation, intervals=True):
        yield from _table(table)
    yield "## Environment\n"
    yield from (f"- {_escaped(name)}: {_escaped(str(value))}" for name, value in ablation.environment.items())
    yield ""


def _table(table: TextTable) -> Iterator[str]:
    yield f"## {table.title}\n"
    yield _row([_escaped(column.removeprefix(">")) for column in table.columns])
    yield _row(["---:" if column.startswith(">") else "---" for column in table.columns])
    yield from (_row([_escaped(cell) for cell in row]) for row in table.rows)
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
