"""Controlled training for people, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovcache.console import Output
    from fovcache.probes.train.result import TrainSuite


def print_training(output: Output, suite: TrainSuite) -> None:
    """The tables, what they are of, and what went wrong."""
    from fovcache.probes.train.suite.tables import sentences, shown_tables

    for table in shown_tables(suite):
        output.table(table.title, table.columns, table.rows)
        output.line("")
    for sentence in sentences(suite):
        output.line(sentence)
    for warning in suite.warnings:
        output.line(f"warning: {warning}")


def print_plans(output: Output, suite: TrainSuite, num_seeds: int, jobs: int) -> None:
    """What runs will take, and what each trains."""
    from fovcache.probes.train.suite.tables import arms_table, parameters_table, plan_sentences, plans_table

    for table in (plans_table(suite), arms_table(suite), parameters_table(suite)):
        if table.rows:
            output.table(table.title, table.columns, table.rows)
            output.line("")
    for sentence in plan_sentences(suite, num_seeds, jobs):
        output.line(sentence)
