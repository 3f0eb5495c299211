"""A build's report for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .console import Output, human_bytes, human_seconds

if TYPE_CHECKING:
    from .builder.report import BuildReport
    from .derived.after_build import DerivedReport

_MOST_FEATURES = 40
"""That are listed: a LoRA has 128 matrices."""


def print_build(output: Output, report: BuildReport) -> None:
    """The report of a build as tables."""
    rate = f", {report.samples_per_s:.0f} samples/s" if report.computed else ""
    output.line(
        f"dataset {report.dataset_name} ({report.dataset[:12]}): {report.samples} samples; {report.computed} computed, "
        f"{report.reused} reused, {report.failed} failed in {human_seconds(report.seconds)}{rate}"
    )
    output.line(f"written {human_bytes(report.bytes_written)}; encoder loaded in {human_seconds(report.load_seconds)}")
    shown_features = report.features[:_MOST_FEATURES]
    rows = [(row["encoder"], row["layer"], row["pool"], row["dtype"], row["digest"][:12]) for row in shown_features]
    num = len(report.features)
    title = f"features{f' ({_MOST_FEATURES} of {num}; all in --json)' if num > _MOST_FEATURES else ''}"
    output.table(title, ("encoder", "layer", "pool", "dtype", "digest"), rows)
    if report.stages:
        columns = ("stage", "resource", ">workers", ">n", ">busy s", ">starved s", ">blocked s", ">idle s", ">busy")
        output.table("where the time went, added over workers", columns, [_stage_row(stage) for stage in report.stages])
    if report.failures:
        shown = [
            (failure.uri, failure.stage, failure.reason, "permanent" if failure.permanent else "transient")
            for failure in report.failures[:20]
        ]
        title = f"failed samples{f' (20 of {report.failed}; all in --json)' if report.failed > 20 else ''}"
        output.table(title, ("uri", "stage", "reason", "kind"), shown)


def print_derived(output: Output, derived: Sequence[DerivedReport]) -> None:
    """What was derived after a build, a row for each representation of each feature."""
    if not derived:
        return
    rows = [
        (each.encoder, each.layer, each.representation, each.samples, each.computed, each.failed, f"{each.seconds:.2f}")
        for each in derived
    ]
    columns = ("encoder", "layer", "representation", ">samples", ">computed", ">failed", ">seconds")
    output.table("derived", columns, rows)


def _stage_row(stage: Mapping[str, Any]) -> tuple[object, ...]:
    seconds = (f"{stage[name]:.2f}" for name in ("busy_s", "starved_s", "blocked_s", "idle_s"))
    return stage["name"], stage["resource"], stage["workers"], stage["n"], *seconds, f"{stage['busy']:.0%}"
