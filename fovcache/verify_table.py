"""What `verify` found, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import Output, human_bytes

if TYPE_CHECKING:
    from .maintain.verify import VerifyReport


def print_verify(output: Output, report: VerifyReport) -> None:
    """The report of a verification as lines, and as a table where samples were encoded again."""
    output.line(f"{report.files} files, {human_bytes(report.size_bytes)} of shards: {len(report.damaged)} damaged")
    if report.damaged:
        for item in report.damaged:  # lines, not a table: names are long, and a wrapped one cannot be searched for
            output.line(f"{item.file}: {item.problem.removeprefix(f'{item.file} is damaged: ')}")
        output.line("`fovcache repair` brings back what can be brought back")
    if report.recomputed is not None:
        rows = [
            (dtype, f"{value:.2e}", f"{report.recomputed['tolerance'][dtype]:.1e}")
            for dtype, value in report.recomputed["largest"].items()
        ]
        output.table(
            f"{report.recomputed['samples']} samples encoded again", ("dtype", ">largest difference", ">allowed"), rows
        )
        for text in report.recomputed["skipped"]:
            output.line(f"not recomputed: {text}")
