"""Predictions beside measurements: the changed pipelines are run here, where they can be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from fovcache.errors import FovcacheError

from .result import OverlappedRun, WhatIf
from .what_if import measured_of

logger = logging.getLogger(__name__)

Runnable: TypeAlias = Callable[[WhatIf], OverlappedRun] | str
"""Runs the pipeline changed as `WhatIf.apply` says, overlapped; or why that cannot be done here."""


def verified(
    predicted: Sequence[WhatIf],
    runnables: Mapping[str, Runnable],
    *,
    show: Callable[[str], object] = lambda change: None,
) -> tuple[WhatIf, ...]:
    """The predictions with `measured` or `not_measured` filled in; `runnables` by their ids.

    What is measured already stays; the pipeline as it is (`overlap`) is run once more at the end, as `again_s`. A run
    that raises a FovcacheError is not measured, for that reason, and the next one goes on; any other error is raised.
    `show` is called with each change before it is run.
    """
    done = [entry if entry.measured else _verified(entry, runnables.get(entry.id), show) for entry in predicted]
    runnable = runnables.get("overlap")
    return tuple(_again(entry, runnable, show) if entry.id == "overlap" else entry for entry in done)


def _verified(entry: WhatIf, runnable: Runnable | None, show: Callable[[str], object]) -> WhatIf:
    if runnable is None:
        return replace(entry, not_measured="nothing here can run it")
    if isinstance(runnable, str):
        return replace(entry, not_measured=runnable)
    show(entry.change)
    try:
        run = runnable(entry)
    except FovcacheError as error:
        logger.debug("%s was not measured", entry.id, exc_info=error)
        return replace(entry, not_measured=str(error))
    if run.n == 0:
        return replace(entry, not_measured="no sample came through")
    return replace(entry, measured=measured_of(run, entry.s_per_sample))


def _again(entry: WhatIf, runnable: Runnable | None, show: Callable[[str], object]) -> WhatIf:
    measured = _verified(replace(entry, measured=None), runnable, show).measured if callable(runnable) else None
    if entry.measured is None or measured is None:
        return entry
    return replace(entry, measured=replace(entry.measured, again_s=measured.s_per_sample))
