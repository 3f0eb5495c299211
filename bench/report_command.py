"""Writing reports for the command: of a folder of results, or of one profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovcache import reports
    from fovcache.console import Output

    from .profiler.result import Profile


def write_folder_report(
    folder: Path, out: Path, cache: Path | None, output: Output, cells: tuple[str, ...] = ()
) -> reports.ReportFiles:
    """Into `out`, of what a folder of results holds. Raises UsageError, EnvironmentFailure."""
    from fovcache import reports
    from fovcache.cache import open_cache
    from fovcache.errors import DamageError, UsageError, environment_failure
    from fovcache.maintain.inventory import cache_contents

    from .results_folder import check_cells, find_caches, find_results

    found = find_results(folder)
    check_cells(cells, found.ablations)
    paths, warnings = ([cache], []) if cache is not None else find_caches(folder, found.cached)
    caches = []
    for path in paths:
        try:
            caches.append(cache_contents(open_cache(path, create=False).storage))
        except (DamageError, UsageError) as error:
            if cache is not None:
                raise
            warnings.append(f"the cache {path} is left out: {error}")
    results = reports.Results(
        name=folder.resolve().name,
        profiles=found.profiles,
        builds=tuple(reports.Build.of(name, document) for name, document in found.builds.items()),
        caches=tuple(caches),
        ablations=found.ablations,
        arms=found.arms,
        qualities=found.qualities,
        trainings=found.trainings,
        cells=cells,
        warnings=(*found.warnings, *warnings),
    )
    for warning in results.warnings:
        output.line(f"warning: {warning}")
    try:
        return reports.write_results(results, out)
    except OSError as error:
        raise environment_failure(error, f"write the report into {out}") from error


def write_profile_report(profile: Profile, folder: Path, output: Output) -> None:
    """Into `folder`. Raises EnvironmentFailure."""
    from fovcache.errors import environment_failure
    from fovcache.reports import write_report

    try:
        files = write_report(profile, folder)
    except OSError as error:
        raise environment_failure(error, f"write the report into {folder}") from error
    output.line(str(files.html))
