"""`fovbench profile`: measures a source's pipeline, says what it could be, and looks at it by other people's tools."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import available_cores
from fovcache.fetch.redact import redact

from .advice import advice
from .batch_scaling import batch_scaling
from .cached import gather_bytes_per_s
from .commands import commands
from .environment import cpu_limit_cores, environment
from .frozen import FrozenPipeline, ProfileRequest, opened
from .monitor import Monitor
from .predict import pipeline_model
from .profile import Measurement, measure, measure_overlapped
from .readings import Readings
from .recordings import Recorders
from .result import Overhead, OverlappedRun, Profile, WhatIf
from .summary import CI_METHOD
from .verdict import bottleneck
from .verify import Runnable, verified
from .what_if import Artefact, Caching, Options, what_ifs
from .workload import Workload

_WHAT = {"vae_encode": "VAE latents", "encode": "features"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What is done beside measuring, once everything is measured."""

    verify: bool = False
    """Measure the predictions that can be run here."""
    trace: Path | None = None
    """A folder for a trace of a few steps."""
    flame: Path | None = None
    """A file for sampled stacks."""


def run_profile(request: ProfileRequest, extras: Extras | None = None, *, on_progress: OnProgress = silent) -> Profile:
    """Profile a source. What a stage or a sample does wrong is in the profile; raises what makes it impossible."""
    extras = extras or Extras()
    with opened(request) as pipeline:
        workload = pipeline.workload()
        recorders = Recorders.of(extras.trace, extras.flame, pipeline.device)
        with Monitor(pipeline.device) as monitor:
            measured = measure(workload, **request.limits, on_progress=on_progress)
        readings = monitor.readings(*(measured.window_s or ()))
        profile = Profile(
            environment=environment(pipeline.device),
            settings=_settings(request, pipeline, workload),
            warmup_dropped=measured.warmup_dropped,
            stages=measured.stages,
            serial=measured.serial,
            overlapped=measured.overlapped,
            overhead=_overhead(measured, readings),
            memory=readings.memory,
            gpu=readings.gpu,
            host=readings.host,
            timeline=measured.timeline,
            failures=(*_unreadable(pipeline), *measured.failures),
            fault=measured.fault,
            ci_method=CI_METHOD,
        )
        if measured.fault is None:
            profile = _with_predictions(profile, measured, extras, pipeline, workload, on_progress)
            profile = recorders.run(profile, workload, on_progress)
    return replace(profile, advice=advice(profile))


def _with_predictions(
    profile: Profile,
    measured: Measurement,
    extras: Extras,
    pipeline: FrozenPipeline,
    workload: Workload,
    on_progress: OnProgress,
) -> Profile:
    assert measured.serial is not None
    on_progress(Progress(stage="predict", done=0, total=0))
    model = pipeline_model(
        workload,
        measured.stages,
        num_samples=measured.serial.n,
        num_cores=min(available_cores(), cpu_limit_cores() or math.inf),
        units_s=measured.units_s,
    )
    options = Options(
        caching=None if pipeline.request.is_cached else _caching(pipeline, workload),
        batch=batch_scaling(workload, pipeline.device),
        commands=commands(pipeline),
    )
    predicted = what_ifs(model, measured.stages, measured.overlapped, options)
    if extras.verify:
        runnables = _Runnables(pipeline, workload)
        predicted = verified(
            predicted,
            {entry.id: runnables.of(entry.id) for entry in predicted},
            show=lambda change: on_progress(Progress(stage=f"verify: {change}", done=0, total=0)),
        )
    run = measured.overlapped
    cause = bottleneck(model, run.stall, run.device_s) if run is not None else None
    return replace(profile, predicted=predicted, bottleneck=cause)


def _overhead(measured: Measurement, readings: Readings) -> Overhead | None:
    """The clocks' share, and the monitor's."""
    if measured.overhead is None:
        return None
    watching = readings.overhead["share_of_a_core"] / available_cores()
    return replace(
        measured.overhead,
        serial_share=measured.overhead.serial_share + watching,
        overlapped_share=measured.overhead.overlapped_share + watching,
        how=f"{measured.overhead.how}; and the CPU time of the thread that watches the machine",
    )


def _caching(pipeline: FrozenPipeline, workload: Workload) -> Caching:
    row_bytes = pipeline.step.row_bytes
    artefacts = tuple(
        Artefact(
            stage=stage,
            what=f"{_WHAT[stage]} of {' and '.join(sorted(names))}",
            bytes_per_sample=sum(row_bytes[name] for name in names),
        )
        for stage, names in pipeline.kinds().items()
    )
    return Caching(
        artefacts=artefacts,
        num_samples=pipeline.stream.num_listed,
        read_bytes_per_s=gather_bytes_per_s(sum(row_bytes.values()), workload.batch_size, pipeline.device),
    )


class _Runnables:
    """Runs the pipeline changed as a what-if says."""

    def __init__(self, pipeline: FrozenPipeline, workload: Workload) -> None:
        self._pipeline = pipeline
        self._workload = workload

    def of(self, entry_id: str) -> Runnable:
        """By a what-if's id."""
        kinds = self._pipeline.kinds()
        cached = {
            "cached_latents": kinds.get("vae_encode", frozenset()),
            "cached_features": kinds.get("encode", frozenset()),
            "cached_all": frozenset(self._pipeline.names),
        }
        changes: dict[str, Callable[[WhatIf], Workload]] = {
            "overlap": lambda entry: self._workload,
            "fetch_workers": lambda entry: self._workload.with_workers({"fetch": entry.apply["workers"]}),
            "decode_workers": lambda entry: self._workload.with_workers({"decode": entry.apply["workers"]}),
            "batch": lambda entry: self._workload.with_batch_size(entry.apply["batch_size"]),
        } | {name: lambda entry: self._pipeline.workload(cached[entry.id]) for name in cached}
        change = changes.get(entry_id)
        return "nothing here can run it" if change is None else lambda entry: self._measured(change(entry))

    def _measured(self, workload: Workload) -> OverlappedRun:
        return measure_overlapped(workload, **self._pipeline.request.limits)


def _settings(request: ProfileRequest, pipeline: FrozenPipeline, workload: Workload) -> dict[str, Any]:
    encoders, options = request.encoders, request.options
    return {
        "sources": [redact(source) for source in request.sources],
        "samples_in_source": pipeline.stream.num_listed,
        "distinct_samples": pipeline.stream.num_distinct,
        "encoders": pipeline.names,
        "weights": {name or "all": _named(weights) for name, weights in encoders.weights.items()},
        "features": [
            f"{resolution.extractor.name} {feature.layer} ({feature.pool}, {feature.dtype})"
            for resolution in pipeline.resolutions
            for feature in resolution.each[-1].features
        ],
        **{name: value for name, value in encoders.common.items() if value is not None},
        "model": _named(request.model),
        **pipeline.trainee.settings(),
        "is_cached": request.is_cached,
        "batch_size": workload.batch_size,
        "threads": workload.num_workers,
        "device": str(pipeline.device),
        "isolate_decode": options.isolate_decode,
    }


def _named(given: str) -> str:
    """Of a file or folder its name alone: where it lies is of this machine."""
    return given if given.startswith("random:") or not Path(given).exists() else Path(given).name


def _unreadable(pipeline: FrozenPipeline) -> list[dict[str, Any]]:
    return [{"uri": item.uri, "stage": "fetch", "reason": item.reason, "n": 1} for item in pipeline.stream.unreadable]
