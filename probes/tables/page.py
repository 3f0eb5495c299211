"""An ablation as a page of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..result import Ablation, ArmComparison
from .ablation_tables import TextTable, sentences, shown_tables
from .answers_table import answers_table
from .arms_table import arm_sentences, arms_table

PAGE_FILE = "ablation.md"


def page(ablation: Ablation, arms: Sequence[ArmComparison] = ()) -> str:
    """The tables with intervals, what they are of, and what a reader should know."""
    return "\n".join(_lines(ablation, arms))


def _lines(ablation: Ablation, arms: Sequence[ArmComparison]) -> Iterator[str]:
    yield f"# Ablation {escaped(ablation.name)}\n"
    yield from (f"- {escaped(sentence)}" for sentence in sentences(ablation))
    yield from (f"- {escaped(sentence)}" for sentence in arm_sentences(arms))
    yield from (f"- warning: {escaped(warning)}" for warning in ablation.warnings)
    yield ""
    for table in (*shown_tables(ablation, intervals=True), answers_table(ablation), arms_table(arms)):
        if table.rows:
            yield from markdown_table(table)
    yield "## Environment\n"
    yield from (f"- {escaped(name)}: {escaped(str(value))}" for name, value in ablation.environment.items())
    yield ""


def markdown_table(table: TextTable) -> Iterator[str]:
    """Lines, with the title as a heading."""
    yield f"## {table.title}\n"
    yield _row([escaped(column.removeprefix(">")) for column in table.columns])
    yield _row(["---:" if column.startswith(">") else "---" for column in table.columns])
    yield from (_row([escaped(cell) for cell in row]) for row in table.rows)
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
