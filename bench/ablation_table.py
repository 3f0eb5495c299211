"""An ablation for people, on the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovcache.console import Output
    from fovcache.probes.result import Ablation
    from fovcache.probes.suite import Suite


def print_suite(output: Output, suite: Suite) -> None:
    """The base, what arms change, and what went wrong in them."""
    from fovcache.probes.tables.ablation_tables import failures_table
    from fovcache.probes.tables.arms_table import arm_sentences, arms_table

    print_ablation(output, suite.base)
    failed = [replace(failures_table(each), title=f"Failed in arm {name}") for name, each in suite.arms.items()]
    for table in (arms_table(suite.comparisons), *failed):
        if table.rows:
            output.line("")
            output.table(table.title, table.columns, table.rows)
    for sentence in arm_sentences(suite.comparisons):
        output.line(sentence)


def print_ablation(output: Output, ablation: Ablation) -> None:
    """The tables, what they are of, and what went wrong."""
    from fovcache.probes.tables.ablation_tables import sentences, shown_tables

    for table in shown_tables(ablation, intervals=False):
        output.table(table.title, table.columns, table.rows)
        output.line("")
    for sentence in sentences(ablation):
        output.line(sentence)
    for warning in ablation.warnings:
        output.line(f"warning: {warning}")
