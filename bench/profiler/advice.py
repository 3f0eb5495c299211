"""What to do about a profile, in plain sentences, each with its number and the command that applies it."""

from __future__ import annotations

from collections.abc import Iterator

from fovcache.console import human_bytes

from .predict import CORES, DEVICE, STEP
from .result import Measured, Profile, WhatIf
from .tables import millis, times

WORTH_IT = 1.05
"""A change that speeds up less than this is not proposed."""
MIN_SAMPLES = 20
"""With fewer, a row says little."""
MAX_UNATTRIBUTED = 0.05
"""Of the serial wall time."""
MAX_DRIFT = 0.1
"""Between two runs of the pipeline as it is."""
MAX_OVERHEAD = 0.05
"""Of the wall time, for measuring."""


def advice(profile: Profile) -> tuple[str, ...]:
    """First what helps, best first, or what is left where nothing does; then what makes the numbers doubtful."""
    return (*_what_helps(profile), *doubts(profile))


def measured_gain(entry: WhatIf, as_it_is: WhatIf | None) -> float | None:
    """How much faster it was; None where that was not measured, or the machine changed meanwhile."""
    before = as_it_is.measured if as_it_is is not None else None
    if entry.measured is None or before is None or drift(before) > MAX_DRIFT:
        return None
    return before.s_per_sample / entry.measured.s_per_sample


def drift(as_it_is: Measured) -> float:
    """How much slower or faster the pipeline as it is was after all other runs than before, as a fraction."""
    ratio = (as_it_is.again_s or as_it_is.s_per_sample) / as_it_is.s_per_sample
    return max(ratio, 1 / ratio) - 1


def _as_it_is(profile: Profile) -> WhatIf | None:
    return next((entry for entry in profile.predicted if entry.id == "overlap"), None)


def _what_helps(profile: Profile) -> Iterator[str]:
    as_it_is = _as_it_is(profile)
    changes = [entry for entry in profile.predicted if entry is not as_it_is]
    gains = {entry.id: measured_gain(entry, as_it_is) or entry.speedup for entry in changes}
    helpful = [entry for entry in changes if gains[entry.id] >= WORTH_IT]
    for entry in sorted(helpful, key=lambda entry: gains[entry.id], reverse=True):
        yield _proposal(entry, gains[entry.id], is_measured=measured_gain(entry, as_it_is) is not None)
    if changes and not helpful:
        yield _what_is_left(profile)


def _proposal(entry: WhatIf, factor: float, *, is_measured: bool) -> str:
    measured = entry.measured if is_measured else None
    hourly, how = (measured or entry).samples_per_hour, "measured" if measured else "predicted"
    disk = f" for {human_bytes(entry.bytes_on_disk)} on disk" if entry.bytes_on_disk is not None else ""
    limit = f"; the limit is then {_named(entry.limited_by)}" if entry.limited_by else ""
    command = f": {entry.command}" if entry.command else ""
    return f"{entry.change}: {times(factor)} as fast, {hourly:,.0f} samples/h ({how}){disk}{limit}{command}"


def _named(limited_by: str) -> str:
    return f"the {limited_by}" if limited_by in (CORES, DEVICE, STEP) else limited_by


def _what_is_left(profile: Profile) -> str:
    """Nothing helps: say what is in full use instead."""
    nothing = f"no change that was predicted helps by {WORTH_IT - 1:.0%}"
    run, limited_by = profile.overlapped, profile.predicted[0].limited_by
    if limited_by in (DEVICE, STEP) and run is not None:
        step = f" (most of it {profile.bottleneck.stage})" if profile.bottleneck else ""
        return (
            f"{nothing}: the training step is at work {1 - run.stall:.0%} of the time{step}; a faster device or a "
            "smaller encoder is what is left"
        )
    if limited_by == CORES:
        return f"{nothing}: the stages want all cores; more or faster cores, or smaller inputs, are what is left"
    return f"{nothing}: {limited_by or 'no stage'} is the limit, and more threads do not move it"


def doubts(profile: Profile) -> Iterator[str]:
    """Why what was measured may not be what it seems, in sentences."""
    as_it_is = _as_it_is(profile)
    before = as_it_is.measured if as_it_is is not None else None
    if before is not None and before.again_s is not None and drift(before) > MAX_DRIFT:
        yield (
            f"the pipeline as it is took {millis(before.s_per_sample)} ms a sample at first and "
            f"{millis(before.again_s)} ms after the other runs: the machine had something else to do, and what was "
            "measured of changes does not count; run it again when it is idle"
        )
    failed = [stage for stage in profile.stages if stage.failed]
    if failed and profile.serial is not None and profile.serial.wall_s > 0:
        num_failed = sum(stage.failed for stage in failed)
        share = sum(stage.failed_s for stage in failed) / profile.serial.wall_s
        where = ", ".join(f"{stage.failed} in {stage.id}" for stage in failed)
        yield (
            f"{num_failed} {'sample' if num_failed == 1 else 'samples'} failed ({where}) and took {share:.1%} of the "
            "serial time: see `failures`, and take them out of the source"
        )
    few = [stage for stage in profile.stages if stage.n < MIN_SAMPLES]
    if few:
        least = min(few, key=lambda stage: stage.n)
        yield f"only {least.n} samples were measured in {least.id}: the intervals are wide; --samples {2 * MIN_SAMPLES}"
    if profile.serial is not None and profile.serial.unattributed_share > MAX_UNATTRIBUTED:
        yield (
            f"{profile.serial.unattributed_share:.1%} of the serial time belongs to no stage (at most "
            f"{MAX_UNATTRIBUTED:.0%} is usual): the shares are too small by as much; the source may be slow to list"
        )
    if profile.overhead is not None:
        shares = {"serial": profile.overhead.serial_share, "overlapped": profile.overhead.overlapped_share}
        for run, share in shares.items():
            if share > MAX_OVERHEAD:
                yield (
                    f"measuring took {share:.1%} of the {run} time (at most {MAX_OVERHEAD:.0%} is usual): the stages "
                    "are very short; a larger --batch-size makes it less"
                )
