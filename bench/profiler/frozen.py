"""What `fovbench profile` measures: a model that trains on frozen encoders, over any source."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from fovcache.builder.encoders import Encoders
from fovcache.builder.isolation import isolated
from fovcache.builder.reading import decode_stage
from fovcache.builder.request import BuildOptions, Resolution, pick_device
from fovcache.builder.run import run_build
from fovcache.cache import Cache, open_cache
from fovcache.decode.clip import BACKENDS
from fovcache.errors import UsageError
from fovcache.fetch.fetcher import Fetcher
from fovcache.pipeline.stage import Stage
from fovcache.sources.scan import scan_sources
from fovcache.store.memo import Memo
from fovcache.store.url_memo import UrlMemo

from .cached import CachedRows
from .device import device_timer
from .profile import NUM_SAMPLES, TIMEOUT_S, WARMUP_BATCHES
from .samples import Item, SampleStream
from .trainee import LINEAR, OwnTrainee, Trainee
from .training import TrainingStep
from .workload import Workload

DEFAULT_BATCH_SIZE = 8
DEFAULT_FETCH_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """What is profiled."""

    sources: tuple[str, ...]
    """As for a build."""
    encoders: Encoders
    """The frozen encoders, VAEs among them."""
    vaes: frozenset[str] = frozenset()
    """Which of them are VAEs: their time has a row of its own."""
    model: str = LINEAR
    """What trains: LINEAR; the model of a configuration of `fovbench train`, `PATH.toml`; or `PATH.py:FACTORY` of a
    module that takes `{encoder: rows [samples, features]}` and returns its loss."""
    is_cached: bool = False
    """Whether all encoders' rows come out of a cache, which is built for it, instead of being computed."""
    num_samples: int = NUM_SAMPLES
    """Samples that are measured at least."""
    warmup_batches: int = WARMUP_BATCHES
    """Batches that are dropped before each run, at least."""
    timeout_s: float = TIMEOUT_S
    """A stage that takes longer on one item hangs."""
    fetch_workers: int | None = None
    """Threads that fetch; None for the number of downloads at a time, or of reads."""
    options: BuildOptions = field(default_factory=BuildOptions)
    """Device, batch size, threads that decode, limits, downloads."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.warmup_batches < 1:
            raise UsageError(
                f"a profile of {self.num_samples} samples after {self.warmup_batches} batches of warm-up; expected at "
                "least 1 of each"
            )

    @property
    def limits(self) -> dict[str, Any]:
        """How much is measured, and for how long a stage may take."""
        return {
            "num_samples": self.num_samples,
            "warmup_batches": self.warmup_batches,
            "timeout_s": self.timeout_s,
        }

    @property
    def batch_size(self) -> int:
        """Samples a step."""
        return self.options.batch_size or DEFAULT_BATCH_SIZE


class FrozenPipeline:
    """The stages of a profile, opened on a source. Close it to let downloads and models go."""

    def __init__(self, request: ProfileRequest) -> None:
        """Finds the first samples. Raises what a build does before it begins."""
        self.request = request
        self._stack = contextlib.ExitStack()
        self._built: tuple[Cache, tuple[dict[str, Any], ...]] | None = None
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        request, options = self.request, self.request.options
        self.resolutions = isolated(request.encoders.resolve(options.limits), options, self._stack)
        if of_captions := [each.extractor.name for each in self.resolutions if each.is_of_captions]:
            raise UsageError(f"{' and '.join(of_captions)} reads captions, which take hardly any time; leave it out")
        self.names = [resolution.extractor.name for resolution in self.resolutions]
        """Of the encoders, in order."""
        names = zip(request.encoders.encoders, self.names, strict=True)
        self._vaes = frozenset(name for asked, name in names if asked in request.vaes)
        self.device = pick_device(options.device)
        self.trainee = self._trainee()
        """Of all workloads."""
        scan = scan_sources(
            request.sources,
            self.resolutions[0].suffixes,
            Memo(None),
            num_threads=options.threads(),
            allow_file_urls=options.allow_file_urls,
            limit=request.num_samples,
        )
        fetcher = None
        if scan.remote:
            scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fovcache-")))
            fetcher = Fetcher(options.fetch, scratch, UrlMemo(None, ignore=True, read_only=True))
            self._stack.callback(fetcher.close)
        self._scan, self._fetcher = scan, fetcher
        self.stream = self._streamed(self.resolutions)
        self.step = self._training_step(self.resolutions, None)
        """Of the pipeline as it is."""

    def workload(self, cached: frozenset[str] | None = None) -> Workload:
        """The pipeline, with `cached` encoders' rows out of a cache, which is built for it; None for as it was asked
        for."""
        if cached is None:
            cached = frozenset(self.names if self.request.is_cached else ())
        if not cached:
            return self._workload(self.stream, self.step)
        rows = self._cached_rows(cached)
        left = [each for each in self.resolutions if each.extractor.name not in cached]
        step = self._training_step(left, rows)
        if left:
            return self._workload(self._streamed(left), step)
        return Workload(
            source=lambda: cycle(rows.keys),
            steps=step.stages(),
            batch_size=self.request.batch_size,
            device=device_timer(self.device),
            num_distinct=len(rows.keys),
        )

    def kinds(self) -> dict[str, frozenset[str]]:
        """By the id of a step's stage, the encoders that it runs."""
        vaes, others = self._vaes, frozenset(self.names) - self._vaes
        return {stage: names for stage, names in (("vae_encode", vaes), ("encode", others)) if names}

    def close(self) -> None:
        """Remove downloads and caches, and let the encoders go."""
        self._stack.close()

    def _workload(self, stream: SampleStream, step: TrainingStep) -> Workload:
        request = self.request
        decode = decode_stage(request.options.threads(), request.options.watchdog_s, self.device)
        fetch = Stage(
            id="fetch",
            name="download" if stream.is_remote else "read and check",
            resource="network" if stream.is_remote else "disk",
            run=stream.fetch,
            num_workers=self._fetch_workers(stream),
            size_of=_size,
        )
        what = "image decode" if stream.decoders == {"pillow"} else "ffmpeg extraction"
        what = what if stream.decoders & {"pillow", *BACKENDS} else "decode"
        name = f"{what} ({', '.join(sorted(stream.decoders))})"
        return Workload(
            source=lambda: iter(stream),
            inputs=(fetch, replace(decode, name=name, run=stream.decode, size_of=_size)),
            steps=step.stages(),
            batch_size=request.batch_size,
            device=device_timer(self.device),
            num_distinct=stream.num_distinct,
            uri_of=lambda item: item.uri,
        )

    def _fetch_workers(self, stream: SampleStream) -> int:
        default = self.request.options.fetch.concurrency if stream.is_remote else DEFAULT_FETCH_WORKERS
        return self.request.fetch_workers or default

    def _trainee(self) -> Trainee:
        model = self.request.model
        if not model.endswith(".toml"):
            return OwnTrainee(model, self.device)
        from .configured import ConfiguredTrainee

        return ConfiguredTrainee(Path(model), self.resolutions, self.device)

    def _streamed(self, resolutions: Sequence[Resolution]) -> SampleStream:
        return SampleStream(self._scan, resolutions, self._fetcher, self.request.num_samples)

    def _training_step(self, resolutions: Sequence[Resolution], cached: CachedRows | None) -> TrainingStep:
        step = TrainingStep(
            resolutions,
            vaes=self._vaes,
            trainee=self.trainee,
            device=self.device,
            batch_size=self.request.batch_size,
            cached=cached,
        )
        self._stack.callback(step.close)
        return step

    def _cached_rows(self, cached: frozenset[str]) -> CachedRows:
        """The rows of some encoders, built as `fovcache build` does; all encoders at once, the first time."""
        if self._built is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fovcache-"))
            cache = open_cache(folder)
            options = replace(self.request.options, limit=self.request.num_samples, batch_size=None)
            report = run_build(cache.storage, self.request.sources, self.request.encoders, options)
            if report.computed + report.reused == 0:
                raise UsageError("no sample could be cached")
            self._built = cache, report.features
        cache, features = self._built
        return CachedRows(cache, [each for each in features if each["encoder"] in cached], self.device)


def _size(item: Item) -> int:
    return item.size_bytes


@contextlib.contextmanager
def opened(request: ProfileRequest) -> Iterator[FrozenPipeline]:
    """A pipeline that is closed at the end."""
    pipeline = FrozenPipeline(request)
    try:
        yield pipeline
    finally:
        pipeline.close()
