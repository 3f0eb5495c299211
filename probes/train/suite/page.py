"""Controlled training as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from ...tables.page import escaped, markdown_table
from ..result import TrainSuite
from .tables import sentences, shown_tables

PAGE_FILE = "train.md"


def page(suite: TrainSuite) -> str:
    """The tables, what they are of, and what a reader should know."""
    return "\n".join(_lines(suite))


def _lines(suite: TrainSuite) -> Iterator[str]:
    yield f"# Training {escaped(suite.name)}\n"
    yield from (f"- {escaped(sentence)}" for sentence in sentences(suite))
    yield from (f"- warning: {escaped(warning)}" for warning in suite.warnings)
    yield ""
    for table in shown_tables(suite):
        yield from markdown_table(table)
    for title, values in (
        ("Model", suite.model),
        ("Recipe", suite.settings),
        ("Data", suite.data),
        ("Environment", suite.environment),
    ):
        yield f"## {title}\n"
        yield from (f"- {escaped(str(name))}: {escaped(str(value))}" for name, value in values.items())
        yield ""
