"""Arms as a table and sentences of texts: what the command prints and its page holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..result import ArmComparison
from .ablation_tables import DIFFERENCE_COLUMNS, TextTable, difference_cells

_MOST_SHOWN = 60
"""Characters of a value; ARMS_FILE has all of it."""


def arms_table(comparisons: Sequence[ArmComparison]) -> TextTable:
    """One row for each paired difference of an arm and the base."""
    rows = [
        (comparison.arm, each.experiment, each.representation, *difference_cells(each))
        for comparison in comparisons
        for each in comparison.differences
    ]
    columns = ("arm", "experiment", "representation", *DIFFERENCE_COLUMNS)
    return TextTable(title="Arms less the base, paired", columns=columns, rows=tuple(rows))


def arm_sentences(comparisons: Sequence[ArmComparison]) -> Iterator[str]:
    """What each arm changes, and what could not be compared."""
    for each in comparisons:
        shown = f"{_shown(each.arm_value)} instead of {_shown(each.base_value)}"
        yield f"arm {each.arm}: {each.setting} = {shown}"
        yield from (f"arm {each.arm}: {sentence}" for sentence in each.unpaired)
    num = sum(each.p is not None for comparison in comparisons for each in comparison.differences)
    if num:
        yield f"the p of arms are corrected together, for {num} comparisons (Holm)"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"
