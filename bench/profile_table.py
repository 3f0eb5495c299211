"""A profile for people, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovcache.console import Output

    from .profiler.result import Profile

_MAX_FAILURES = 10


def print_profile(output: Output, profile: Profile) -> None:
    """Tables, the bottleneck, the advice, and what went wrong."""
    from .profiler.tables import machine_lines, tables

    for table in tables(profile):
        output.table(table.title, table.columns, table.rows)
    if profile.bottleneck is not None:
        output.line(f"bottleneck: {profile.bottleneck.stage}: {profile.bottleneck.reason}")
    for sentence in profile.advice:
        output.line(f"- {sentence}")
    if profile.overhead is not None:
        shares = f"{profile.overhead.serial_share:.2%} of the serial and {profile.overhead.overlapped_share:.2%}"
        output.line(f"measuring took {shares} of the overlapped time ({profile.overhead.how})")
    for failure in profile.failures[:_MAX_FAILURES]:
        output.line(f"failed {failure['n']}×: {failure['uri']}: {failure['stage']}: {failure['reason']}")
    if len(profile.failures) > _MAX_FAILURES:
        output.line(f"and {len(profile.failures) - _MAX_FAILURES} more; all in --json")
    for line in machine_lines(profile):
        output.line(line)
    for what, made in profile.recordings.items():
        output.line(f"{what}: {made['file']}")
    for warning in profile.warnings:
        output.line(f"warning: {warning}")
    if profile.fault is not None:
        output.line(f"the profile ended early: {profile.fault.stage}: {profile.fault.reason}")
