"""What a profile came to: the numbers that are printed, written as JSON, drawn and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError
from fovcache.typed_json import revive


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """One stage run serially: nothing beside it, the device synchronised at its end. Times are per sample."""

    id: str
    """Stable: `fetch decode vae_encode encode copy forward backward optimise load write`."""
    name: str
    """What people know it by."""
    resource: str
    """`network`, `disk`, `cpu`, `gpu`."""
    n: int
    """Samples that it was measured on; those that failed in it are not among them."""
    num_units: int
    """Independent measurements: samples, or batches for a stage that takes whole batches."""
    failed: int
    """Samples that failed in it."""
    failed_s: float
    """Seconds that those took, in `total_s` too."""
    total_s: float
    """Seconds, of all samples, failed ones included."""
    mean_s: float
    """Seconds a sample."""
    median_s: float
    """Seconds a sample."""
    p10_s: float
    """Seconds a sample; the 10th percentile of the units."""
    p90_s: float
    """Seconds a sample; the 90th percentile of the units."""
    ci95_s: tuple[float, float]
    """95 % interval of `mean_s`, by `Profile.ci_method`."""
    share: float
    """`total_s` as a fraction of the serial wall time."""
    cpu_s: float
    """Core-seconds a sample, of all threads and child processes, while it ran alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialRun:
    """All stages one at a time."""

    s_per_sample: float
    """Wall seconds for each sample that came through."""
    samples_per_hour: float
    """3600 / s_per_sample."""
    unattributed_share: float
    """The part of the wall time that no stage had; with the stages' shares it makes 1."""
    wall_s: float
    """By a clock of its own."""
    n: int
    """Samples that came through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappedRun:
    """All stages at the same time, the device never synchronised."""

    s_per_sample: float
    """Wall seconds for each sample that came through, in the steady state."""
    samples_per_hour: float
    """3600 / s_per_sample."""
    ci95_s: tuple[float, float]
    """95 % interval of `s_per_sample`."""
    busy: dict[str, float]
    """By resource: the part of its capacity that was in use, 0 to 1.

    `network`, `disk`: of the threads' time; `cpu`: of the cores' time, by this process and its children; `gpu`: of the
    device's, by events, pauses within a step included; in its place `step` where the CPU is the device.
    """
    stall: float
    """The part of the wall time in which the device had nothing to do while the training thread waited for input."""
    wall_s: float
    """Of the steady state."""
    n: int
    """Samples in it."""
    device_s: dict[str, float]
    """By stage of the step: its seconds a sample on the device, by events."""
    num_workers: dict[str, int]
    """By input stage: its threads; 0 in the training thread."""
    stage_busy: dict[str, float] = field(default_factory=dict)
    """By input stage: the part of its threads' time in which they worked, 0 to 1."""
    host_wait: float = 0.0
    """The part of the wall time in which the training thread waited for input, whatever the device did: what host
    timing would call the wait for data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What `--verify` measured of a prediction."""

    s_per_sample: float
    """Wall seconds a sample, overlapped."""
    samples_per_hour: float
    """3600 / s_per_sample."""
    error: float
    """Predicted s_per_sample / measured s_per_sample − 1."""
    n: int
    """Samples."""
    again_s: float | None = None
    """Of the pipeline as it is: `s_per_sample` once more, after all other runs; tells whether the machine changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A change, and the throughput that it would have."""

    id: str
    """`overlap`, `fetch_workers`, `decode_workers`, `cached_latents`, `cached_features`, `cached_all`, `batch`."""
    change: str
    """In words: `decode on 8 threads`."""
    s_per_sample: float
    """Predicted wall seconds a sample, overlapped."""
    samples_per_hour: float
    """3600 / s_per_sample."""
    speedup: float
    """Against the pipeline as it is, both as predicted."""
    ceiling: float | None = None
    """Amdahl's: the speedup of the serial pipeline if what is cached took no time at all; None where nothing is."""
    limited_by: str = ""
    """The resource or stage that bounds it then."""
    bytes_on_disk: int | None = None
    """For all samples of the source; None where nothing is stored."""
    command: str = ""
    """The command that applies it."""
    apply: dict[str, int] = field(default_factory=dict)
    """The same for programs: `workers` of the stage, or `batch_size`."""
    measured: Measured | None = None
    """What `--verify` measured."""
    not_measured: str = ""
    """Why `--verify` could not measure it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """The stage that causes the wait; never the one that waits."""

    stage: str
    """Its id."""
    resource: str
    """What it uses up."""
    kind: str
    """`input` above 20 % stall, `device` below 5 %, `mixed` between the two."""
    reason: str
    """In words, with its numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What measuring costs."""

    serial_share: float
    """Of the serial wall time: clocks and synchronising."""
    overlapped_share: float
    """Of the overlapped wall time: clocks, events, and the thread that watches devices."""
    how: str
    """How it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One call of a stage in the overlapped run, for the timeline."""

    stage: str
    """The stage's id."""
    lane: str
    """The thread, or `device`."""
    start_s: float
    """Since the steady state began."""
    end_s: float
    """Since the steady state began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What ended a profile early."""

    stage: str
    """The stage that raised, hung, or let nothing through; `source` for the source."""
    reason: str
    """What happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All of it. What a fault left unmeasured is None or empty."""

    environment: dict[str, Any]
    """Machine, versions, device, settings."""
    settings: dict[str, Any]
    """What was profiled: source, encoder, VAE, model, frames, batch size."""
    warmup_dropped: int
    """Samples before the measured ones, of both runs together."""
    stages: tuple[StageTimes, ...]
    """In pipeline order."""
    serial: SerialRun | None = None
    """One stage at a time."""
    overlapped: OverlappedRun | None = None
    """As it would train."""
    predicted: tuple[WhatIf, ...] = ()
    """The overlap bound first, then what changes would bring."""
    bottleneck: Bottleneck | None = None
    """What to mend first."""
    advice: tuple[str, ...] = ()
    """Plain sentences, each with its number and command."""
    overhead: Overhead | None = None
    """What measuring cost."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Bytes: host and device, peaks, headroom."""
    gpu: dict[str, Any] = field(default_factory=dict)
    """NVML's: kernel-active share, power, clocks; or `{"absent": why}`."""
    host: dict[str, Any] = field(default_factory=dict)
    """psutil's: CPU, I/O."""
    timeline: tuple[Span, ...] = ()
    """A bounded part of the overlapped run."""
    failures: tuple[dict[str, Any], ...] = ()
    """`{uri, stage, reason, n}` of samples that failed."""
    recordings: dict[str, Any] = field(default_factory=dict)
    """`trace` and `flame`, where they were asked for and made: their files and what is in them."""
    fault: Fault | None = None
    """What ended it early."""
    warnings: tuple[str, ...] = ()
    """What a user should know."""
    ci_method: str = "Student's t over units"
    """How the intervals were made."""

    @property
    def exit_status(self) -> int:
        """0, or 1 when samples failed or something ended it early."""
        return 1 if self.fault or self.failures else 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it: what-ifs by id; the bottleneck as its stage's id, with all of it as `verdict`."""
        document = asdict(self)
        document["predicted"] = {entry["id"]: entry for entry in document["predicted"]}
        document["verdict"] = document["bottleneck"]
        document["bottleneck"] = self.bottleneck.stage if self.bottleneck is not None else None
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Profile:
        """The inverse of `document`. Raises UsageError for what is no profile."""
        try:
            values = {**document, "bottleneck": document["verdict"]}
            values["predicted"] = list(document["predicted"].values())
            del values["verdict"]
            profile: Profile = revive(cls, values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"not the JSON of a profile: {error}; `fovbench profile --json FILE` writes one"
            ) from error
        return profile


def read_profile(path: Path) -> Profile:
    """The profile in a file that `--json` wrote. Raises UsageError."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as a profile: {error}") from error
    return Profile.from_document(document)
