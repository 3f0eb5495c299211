"""What changes would bring: more threads, cached latents or features, a larger batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fovcache.errors import UsageError

from .predict import PipelineModel, StageCost, predict
from .result import Measured, OverlappedRun, StageTimes, WhatIf

MAX_FETCH_WORKERS = 64
MAX_BATCH_GROWTH = 8
"""Step times and memory at two batch sizes are not trusted any farther than this."""
MEMORY_MARGIN = 0.1
"""This part of the memory stays free."""
_GOOD_ENOUGH = 1.02
_MIN_REST = 1e-6
_ENCODERS = {"vae_encode": "cached_latents", "encode": "cached_features"}
_FED_FROM_DISK = ("fetch", "decode", "copy")
_COMMANDS = {
    "fetch_workers": "fovbench profile … --fetch-workers {n}",
    "decode_workers": "fovbench profile … --workers {n}",
    "batch": "fovbench profile … --batch-size {n}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a frozen stage gives, kept on disk instead of computed."""

    stage: str
    """`vae_encode` or `encode`."""
    what: str
    """In words: `VAE latents`."""
    bytes_per_sample: int
    """On disk."""

    def __post_init__(self) -> None:
        if self.stage not in _ENCODERS:
            raise UsageError(f"stage {self.stage!r} gives nothing to cache; expected one of {', '.join(_ENCODERS)}")
        if self.bytes_per_sample < 0:
            raise UsageError(f"{self.what} take {self.bytes_per_sample} bytes a sample; expected at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """What could be cached, and what reading it costs."""

    artefacts: tuple[Artefact, ...]
    """One for each frozen stage."""
    num_samples: int
    """Of the whole source."""
    read_bytes_per_s: float | None = None
    """At which a cache is read, measured or given; None where reading costs nothing that counts."""
    is_resident: bool = True
    """Rows that fit in memory are gathered in the training thread; others are read beside it."""

    def __post_init__(self) -> None:
        if self.num_samples < 0 or (self.read_bytes_per_s is not None and not self.read_bytes_per_s > 0):
            raise UsageError(
                f"{self.num_samples} samples read at {self.read_bytes_per_s} bytes/s; expected ≥ 0 samples and > 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScaling:
    """A step at two batch sizes: what it takes is a fixed part and a part for each sample."""

    batch_sizes: tuple[int, int]
    """The one that is profiled, and another one."""
    step_s: tuple[float, float]
    """Seconds a step at each, all its stages together."""
    peak_bytes: tuple[int, int]
    """Of memory at each."""
    memory_bytes: int
    """There is that much for peaks."""

    def __post_init__(self) -> None:
        if self.batch_sizes[0] == self.batch_sizes[1] or min(self.batch_sizes) < 1 or not min(self.step_s) > 0:
            raise UsageError(
                f"batches of {self.batch_sizes} take {self.step_s} s; expected two sizes of at least 1, more than 0 s"
            )

    def step_s_at(self, batch_size: int) -> float:
        """Seconds a step."""
        fixed, each = _line(self.batch_sizes, self.step_s)
        return fixed + each * batch_size

    def peak_bytes_at(self, batch_size: int) -> float:
        """Bytes of memory."""
        fixed, each = _line(self.batch_sizes, self.peak_bytes)
        return fixed + each * batch_size

    def largest(self) -> int:
        """The profiled size, doubled as often as memory allows."""
        size = self.batch_sizes[0]
        while (
            size * 2 <= self.batch_sizes[0] * MAX_BATCH_GROWTH
            and self.peak_bytes_at(size * 2) <= (1 - MEMORY_MARGIN) * self.memory_bytes
        ):
            size *= 2
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What could be changed."""

    caching: Caching | None = None
    """None where nothing is frozen."""
    batch: BatchScaling | None = None
    """None where it was not measured."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """By the id of a WhatIf, the command that applies it; `{n}` is its threads or batch size."""
    max_fetch_workers: int = MAX_FETCH_WORKERS
    """No more are proposed."""


def what_ifs(
    model: PipelineModel, stages: Sequence[StageTimes], overlapped: OverlappedRun | None, options: Options
) -> tuple[WhatIf, ...]:
    """The pipeline as it is, then what each change would make of it; nothing where nothing takes any time.

    Speed-ups are against the pipeline as it is, as predicted too: against the measured one, what the prediction of that
    is wrong by would look like a gain of every change. A change that cannot be made (as many threads as cores already,
    no memory for a larger batch) is left out.
    """
    base_s = predict(model).s_per_sample
    if base_s == 0:
        return ()
    entries = [_as_it_is(model, overlapped, base_s)]
    for stage_id, most in (("fetch", options.max_fetch_workers), ("decode", int(model.num_cores))):
        if entry := _more_workers(model, stage_id, most, base_s, options.commands):
            entries.append(entry)
    if options.caching is not None:
        entries += _cached(model, stages, options.caching, base_s, options.commands)
    if options.batch is not None and (entry := _larger_batch(model, options.batch, base_s, options.commands)):
        entries.append(entry)
    return tuple(entries)


def with_cache(model: PipelineModel, cached: Sequence[Artefact], caching: Caching) -> PipelineModel:
    """The model when `cached` are read instead of computed.

    Fetch, decode and the copy of frames are only saved when no encoder is left that needs them. Features and latents
    are copied to the device too, which is left out: they are small beside frames.
    """
    ids = {artefact.stage for artefact in cached}
    if all(stage.id in ids for stage in model.stages if stage.id in _ENCODERS):
        ids.update(_FED_FROM_DISK)
    left = model.without(*ids)
    if caching.read_bytes_per_s is None:
        return left
    load_s = sum(artefact.bytes_per_sample for artefact in cached) / caching.read_bytes_per_s
    load = StageCost(id="load", name="load cached rows", resource="disk", wall_s=load_s, core_s=load_s)
    return left.with_step(load) if caching.is_resident else left.with_input(load)


def _as_it_is(model: PipelineModel, overlapped: OverlappedRun | None, base_s: float) -> WhatIf:
    threads = ", ".join(f"{stage.id} on {_threads(stage.num_workers)}" for stage in model.inputs)
    prediction = predict(model)
    return _entry(
        "overlap",
        f"as it is: {threads}" if threads else "as it is",
        model,
        base_s,
        measured=measured_of(overlapped, prediction.s_per_sample) if overlapped else None,
    )


def _more_workers(
    model: PipelineModel, stage_id: str, most: int, base_s: float, commands: Mapping[str, str]
) -> WhatIf | None:
    """As few threads as nearly all that can be gained needs."""
    stage = next((each for each in model.inputs if each.id == stage_id), None)
    if stage is None or stage.num_workers >= most or not model.is_prefetched:
        return None
    counts = [stage.num_workers * 2]
    while counts[-1] < most:
        counts.append(counts[-1] * 2)
    counts = [min(count, most) for count in counts]
    times_s = {count: predict(model.with_workers(stage_id, count)).s_per_sample for count in counts}
    num_workers = next(count for count in counts if times_s[count] <= min(times_s.values()) * _GOOD_ENOUGH)
    entry_id = f"{stage_id}_workers"
    return _entry(
        entry_id,
        f"{stage_id} on {_threads(num_workers)}",
        model.with_workers(stage_id, num_workers),
        base_s,
        most_s=predict(model).s_per_sample,  # threads that find no work take nothing from the others
        command=_command(entry_id, commands, num_workers),
        apply={"workers": num_workers},
    )


def _cached(
    model: PipelineModel, stages: Sequence[StageTimes], caching: Caching, base_s: float, commands: Mapping[str, str]
) -> list[WhatIf]:
    there = {stage.id for stage in model.stages}
    artefacts = [artefact for artefact in caching.artefacts if artefact.stage in there]
    choices = {_ENCODERS[artefact.stage]: [artefact] for artefact in artefacts}
    if len(artefacts) > 1:
        choices["cached_all"] = artefacts
    entries = []
    for entry_id, cached in choices.items():
        changed = with_cache(model, cached, caching)
        gone = there - {stage.id for stage in changed.stages}
        share = sum(stage.share for stage in stages if stage.id in gone)
        entries.append(
            _entry(
                entry_id,
                f"{' and '.join(artefact.what for artefact in cached)} from the cache",
                changed,
                base_s,
                ceiling=1 / max(1 - share, _MIN_REST),
                bytes_on_disk=caching.num_samples * sum(artefact.bytes_per_sample for artefact in cached),
                command=_command(entry_id, commands, 0),
            )
        )
    return entries


def _larger_batch(
    model: PipelineModel, scaling: BatchScaling, base_s: float, commands: Mapping[str, str]
) -> WhatIf | None:
    size, largest = scaling.batch_sizes[0], scaling.largest()
    if largest == size or model.batch_size != size:
        return None
    cost = (scaling.step_s_at(largest) / largest) / (scaling.step_s_at(size) / size)
    return _entry(
        "batch",
        f"batches of {largest}",
        model.with_batch_size(largest, cost=cost),
        base_s,
        command=_command("batch", commands, largest),
        apply={"batch_size": largest},
    )


def _entry(
    entry_id: str,
    change: str,
    model: PipelineModel,
    base_s: float,
    *,
    most_s: float = float("inf"),
    ceiling: float | None = None,
    bytes_on_disk: int | None = None,
    command: str = "",
    apply: dict[str, int] | None = None,
    measured: Measured | None = None,
) -> WhatIf:
    prediction = predict(model)
    s_per_sample = max(min(prediction.s_per_sample, most_s), base_s * _MIN_REST)  # nothing is infinitely fast
    return WhatIf(
        id=entry_id,
        change=change,
        s_per_sample=s_per_sample,
        samples_per_hour=3600 / s_per_sample,
        speedup=base_s / s_per_sample,
        ceiling=ceiling,
        limited_by=prediction.limited_by,
        bytes_on_disk=bytes_on_disk,
        command=command,
        apply=apply or {},
        measured=measured,
    )


def measured_of(run: OverlappedRun, predicted_s: float) -> Measured:
    """A measured run beside its prediction."""
    return Measured(
        s_per_sample=run.s_per_sample,
        samples_per_hour=run.samples_per_hour,
        error=predicted_s / run.s_per_sample - 1,
        n=run.n,
    )


def _command(entry_id: str, commands: Mapping[str, str], count: int) -> str:
    return commands.get(entry_id, _COMMANDS.get(entry_id, "")).replace("{n}", str(count))


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _line(x: tuple[int, int], y: tuple[float, float]) -> tuple[float, float]:
    """Through two points, neither part below 0: what noise makes negative is all of the other kind."""
    each = max(0.0, (y[1] - y[0]) / (x[1] - x[0]))
    fixed = max(0.0, y[0] - each * x[0])
    return (fixed, each) if fixed else (0.0, y[0] / x[0])
