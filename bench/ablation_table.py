"""An ablation for people, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovcache.console import Output
    from fovcache.probes.result import Ablation


def print_ablation(output: Output, ablation: Ablation) -> None:
    """The tables, what they are of, and what went wrong."""
    from fovcache.probes.tables import sentences, shown_tables

    for table in shown_tables(ablation, intervals=False):
        output.table(table.title, table.columns, table.rows)
        output.line("")
    for sentence in sentences(ablation):
        output.line(sentence)
    for warning in ablation.warnings:
        output.line(f"warning: {warning}")
