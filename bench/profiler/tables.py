"""A profile as rows of text, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fovcache.console import human_bytes

from .result import Profile, StageTimes, WhatIf

_NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What `fovcache.console.Output.table` prints."""

    title: str
    """Above it."""
    columns: tuple[str, ...]
    """Their names; those that start with `>` are right-aligned."""
    rows: tuple[tuple[str, ...], ...]
    """As many cells each as there are columns."""


def tables(profile: Profile) -> tuple[Table, ...]:
    """The stages, serial beside overlapped, and what it could be; those of which anything was measured."""
    found = [stage_table(profile), run_table(profile), what_if_table(profile.predicted)]
    return tuple(table for table in found if table.rows)


def stage_table(profile: Profile) -> Table:
    """A row for each stage, one for the time that none had, and the sum of both."""
    rows = [_stage_row(stage) for stage in profile.stages]
    serial = profile.serial
    if serial is not None:
        rest = serial.unattributed_share
        rows.append(_row("unattributed", mean=millis(rest * serial.s_per_sample), share=f"{rest:.1%}"))
        share = sum(stage.share for stage in profile.stages) + rest
        rows.append(_row("total", n=str(serial.n), mean=millis(serial.s_per_sample), share=f"{share:.1%}"))
    return Table(
        title=f"Stages one at a time, ms a sample ({profile.warmup_dropped} warm-up samples dropped; 95 % intervals: "
        f"{profile.ci_method})",
        columns=(
            "stage",
            "resource",
            ">n",
            ">mean",
            ">95 % interval",
            ">median",
            ">p10",
            ">p90",
            ">core ms",
            ">share",
            ">failed",
        ),
        rows=tuple(rows),
    )


def run_table(profile: Profile) -> Table:
    """Serial beside overlapped."""
    rows: list[tuple[str, ...]] = []
    if profile.serial is not None:
        serial = profile.serial
        rows.append(("serial", str(serial.n), millis(serial.s_per_sample), "", rate(serial.samples_per_hour), "", ""))
    if profile.overlapped is not None:
        run = profile.overlapped
        busy = ", ".join(f"{resource} {share:.0%}" for resource, share in run.busy.items())
        rows.append(
            (
                "overlapped",
                str(run.n),
                millis(run.s_per_sample),
                interval(run.ci95_s),
                rate(run.samples_per_hour),
                f"{run.stall:.1%}",
                busy,
            )
        )
    columns = ("run", ">n", ">ms a sample", ">95 % interval", ">samples/h", ">waits for input", "busy")
    return Table(title="One at a time and overlapped", columns=columns, rows=tuple(rows))


def what_if_table(predicted: Sequence[WhatIf]) -> Table:
    """Each change, predicted beside measured."""
    columns = (
        "change",
        ">predicted/h",
        ">measured/h",
        ">time error",
        ">speed-up",
        ">at most",
        "limit then",
        ">on disk",
    )
    is_told = any(entry.not_measured for entry in predicted)
    rows = [_what_if_row(entry) + ((entry.not_measured,) if is_told else ()) for entry in predicted]
    return Table(
        title="What it could be, samples/h overlapped (at most: the serial pipeline's, if the cache took no time)",
        columns=(*columns, "not measured") if is_told else columns,
        rows=tuple(rows),
    )


def machine_lines(profile: Profile) -> tuple[str, ...]:
    """Memory at its peak, and what NVML says of the GPU, in sentences; what was not counted is left out."""
    return tuple(filter(None, (_memory_line(profile.memory), _gpu_line(profile.gpu))))


def millis(seconds: float) -> str:
    """Milliseconds with three digits that count: `0.123`, `1.23`, `12.3`, `1,234`."""
    value = seconds * 1e3
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def interval(ends_s: tuple[float, float]) -> str:
    """Milliseconds, `1.20 to 1.31`."""
    return f"{millis(max(0.0, ends_s[0]))} to {millis(ends_s[1])}"


def rate(samples_per_hour: float) -> str:
    """`6,400`."""
    return f"{samples_per_hour:,.0f}"


def times(factor: float) -> str:
    """With three digits that count: `1.25×`, `34.4×`, `3,437×`."""
    digits = 2 if factor < 10 else 1 if factor < 100 else 0
    return f"{factor:,.{digits}f}×"


def _memory_line(memory: Mapping[str, Any]) -> str:
    own, device = memory.get("host", {}).get("own_peak_bytes"), memory.get("device", {})
    peak = device.get("peak_allocated_bytes")
    said = [f"the process {human_bytes(own)} of {human_bytes(memory['host']['total_bytes'])}"] if own else []
    if isinstance(peak, int):
        said.append(f"the device {human_bytes(peak)} of {human_bytes(device['total_bytes'])}, by torch's allocator")
    return f"memory at its peak: {'; '.join(said)}" if said else ""


def _gpu_line(gpu: Mapping[str, Any]) -> str:
    if "absent" in gpu:
        return f"GPU: {gpu['absent']}"
    share = gpu.get("kernel_active_share", {}).get("mean")
    if share is None:
        return ""
    return f"GPU: any kernel ran {share:.0%} of the overlapped run, by NVML, which does not tell how full the GPU was"


def _stage_row(stage: StageTimes) -> tuple[str, ...]:
    return _row(
        stage.name,
        resource=stage.resource,
        n=str(stage.n),
        mean=millis(stage.mean_s),
        interval=interval(stage.ci95_s),
        median=millis(stage.median_s),
        p10=millis(stage.p10_s),
        p90=millis(stage.p90_s),
        cores=millis(stage.cpu_s),
        share=f"{stage.share:.1%}",
        failed=f"{stage.failed} ({millis(stage.failed_s)} ms)" if stage.failed else "0",
    )


def _row(
    name: str,
    *,
    resource: str = "",
    n: str = "",
    mean: str = "",
    interval: str = "",
    median: str = "",
    p10: str = "",
    p90: str = "",
    cores: str = "",
    share: str = "",
    failed: str = "",
) -> tuple[str, ...]:
    return (name, resource, n, mean, interval, median, p10, p90, cores, share, failed)


def _what_if_row(entry: WhatIf) -> tuple[str, ...]:
    measured = entry.measured
    return (
        entry.change,
        rate(entry.samples_per_hour),
        rate(measured.samples_per_hour) if measured else _NONE,
        f"{measured.error:+.1%}" if measured else _NONE,
        times(entry.speedup),
        times(entry.ceiling) if entry.ceiling is not None else _NONE,
        entry.limited_by,
        human_bytes(entry.bytes_on_disk) if entry.bytes_on_disk is not None else _NONE,
    )
