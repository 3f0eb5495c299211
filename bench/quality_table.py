"""Feature quality for the command: measured, written, and printed for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovcache.builder.progress import OnProgress
    from fovcache.console import Output
    from fovcache.probes.quality.result import Quality


def measure_quality(cache: str, out: Path | None, options: Mapping[str, Any], on_progress: OnProgress) -> Quality:
    """Look at the layers of a cache as the command's options say, and write it into `out` where there is one."""
    from fovcache.builder.request import pick_device
    from fovcache.options import globs
    from fovcache.probes.quality.page import check_folder, write_quality
    from fovcache.probes.quality.request import QualityRequest
    from fovcache.probes.quality.run import run_quality

    from .profiler.environment import environment

    names = ("dataset", "split", "encoder", "weights", "pool", "store_dtype", "recipe", "max_samples", "seed", "device")
    request = QualityRequest(
        layers=globs(options["layers"]) or ("**",),
        each_token=options["tokens"],
        **{name: options[name] for name in names},
    )
    if out is not None:
        check_folder(out)
    quality = run_quality(cache, request, on_progress, environment=environment(pick_device(request.device)))
    if out is not None:
        write_quality(quality, out)
    return quality


def print_quality(output: Output, quality: Quality) -> None:
    """The tables, what they are of, and what went wrong."""
    from fovcache.probes.quality.tables import sentences, shown_tables

    for table in shown_tables(quality):
        output.table(table.title, table.columns, table.rows)
        output.line("")
    for sentence in sentences(quality):
        output.line(sentence)
    for warning in quality.warnings:
        output.line(f"warning: {warning}")
