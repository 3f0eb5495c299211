"""Building: from sources and an encoder to a dataset with features."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import SampleError
from ..keys.digest import Document
from ..keys.recipe import Feature
from ..sources.sample import Sample
from ..sources.scan import Scan, scan_sources
from ..store.dataset import Dataset, check_dataset_name, publish_dataset, publish_ref, read_refs
from ..store.documents import put_keyed
from ..store.index import RecipeIndex, open_index
from ..store.layout import MEMO, feature_name, manifest_name, recipe_name
from ..store.lease import hold_lease, live_owners, sweep_dead
from ..store.manifest import Failure, Manifest, publish_manifest
from ..store.memo import Memo
from ..store.shard import Shard, write_shard
from ..store.storage import LocalStorage
from .clock import StageClock
from .plan import Block, Plan, make_plans, open_plans, publish_plan, unfinished
from .progress import OnProgress, Progress, silent
from .report import BuildReport, SampleFailure
from .request import BuildOptions, EncoderRequest, Resolved, dataset_name_of, pick_device, resolve
from .wants import Standing, stand

if TYPE_CHECKING:
    import torch

    from .encoding import BatchEncoder, EncodedBlock

logger = logging.getLogger(__name__)

MAX_ROWS_PER_BLOCK = 65536


def run_build(
    storage: LocalStorage,
    sources: Sequence[str],
    request: EncoderRequest,
    options: BuildOptions,
    on_progress: OnProgress = silent,
) -> BuildReport:
    """Compute what the cache lacks of the features asked for, and name the dataset.

    Raises UsageError and its kin for what cannot be done as asked, EnvironmentFailure when the machine fails;
    the cache is valid whatever happens. An error in one sample is a row of the report.
    """
    return _Build(storage, request, options, on_progress).run(sources)


def recompute(
    storage: LocalStorage,
    resolved: Resolved,
    scan: Scan,
    keys: Sequence[str],
    options: BuildOptions,
    *,
    dataset: str,
    on_progress: OnProgress = silent,
) -> int:
    """Compute what the samples `keys` of a dataset lack, naming no dataset; how many now have rows.

    This is how `repair` brings blocks back.
    """
    build = _Build(storage, resolved.request, options, on_progress)
    index = build._open_index(resolved)
    standing = build._stand(index, keys, resolved, retry_failed=False)
    return build._compute(standing, resolved, scan, dataset) if standing.wants else 0


@dataclass
class _Build:
    storage: LocalStorage
    request: EncoderRequest
    options: BuildOptions
    on_progress: OnProgress
    clock: StageClock = field(default_factory=StageClock)
    bytes_written: int = 0
    batch_size: int = 0
    num_done: int = 0
    num_wanted: int = 0
    load_s: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def run(self, sources: Sequence[str]) -> BuildReport:
        started = time.perf_counter()
        if self.options.dataset is not None:
            check_dataset_name(self.options.dataset)
        with self._loading():
            resolved = resolve(self.request)
        scan = self._scan(sources, resolved)
        dataset = Dataset(samples=scan.samples, unreadable=scan.unreadable)
        keys = [sample.key for sample in dataset.samples]
        index = self._open_index(resolved)
        standing = self._stand(index, keys, resolved, retry_failed=self.options.retry_failed)
        num_computed = 0
        if standing.wants:
            num_computed = self._compute(standing, resolved, scan, dataset.digest)
            index = open_index(self.storage, resolved.recipe.digest, save=True)
            standing = self._stand(index, keys, resolved, retry_failed=False)
        failures = _failures(dataset, standing, index)
        digest, name = self._publish_dataset(dataset, scan, resolved.spec.suffixes())
        seconds = time.perf_counter() - started - self.load_s
        num_samples = len(dataset.samples) + len(dataset.unreadable)
        return BuildReport(
            samples=num_samples,
            computed=num_computed,
            reused=num_samples - num_computed - len(failures),
            failed=len(failures),
            seconds=seconds,
            load_seconds=self.load_s,
            samples_per_s=num_computed / seconds,
            bytes_written=self.bytes_written,
            dataset=digest,
            dataset_name=name,
            recipes=(resolved.recipe.digest,),
            features=tuple(_feature_row(feature) for feature in resolved.features),
            stages=tuple(self.clock.stages()),
            failures=failures,
            batch_size=self.batch_size,
            warnings=tuple(self.warnings),
        )

    def _scan(self, sources: Sequence[str], resolved: Resolved) -> Scan:
        self.on_progress(Progress(stage="scan", done=0, total=0))
        memo = Memo(self.storage.path(MEMO), ignore=self.options.rehash)
        scan = scan_sources(sources, resolved.spec.suffixes(), memo, num_threads=self.options.threads())
        memo.save()
        if scan.num_ignored:
            self._warn(f"{scan.num_ignored} files in the sources are of no kind that this encoder reads; left out")
        if shared := _keys_in_several_splits(scan.samples):
            self._warn(f"{shared} samples have the same content in more than one split: a probe's test would leak")
        return scan

    def _open_index(self, resolved: Resolved) -> RecipeIndex:
        index = open_index(self.storage, resolved.recipe.digest)
        for name in index.lost:
            self._warn(f"{name} or its shard is damaged: its samples are computed again")
            self.storage.delete(name)
        return index

    def _stand(self, index: RecipeIndex, keys: Sequence[str], resolved: Resolved, *, retry_failed: bool) -> Standing:
        features = [feature.digest for feature in resolved.features]
        return stand(index, keys, features, software=resolved.spec.software(), retry_failed=retry_failed)

    def _compute(self, standing: Standing, resolved: Resolved, scan: Scan, dataset: str) -> int:
        """Compute all wants, block by block; how many samples now have rows."""
        sweep_dead(self.storage)
        with hold_lease(self.storage, work=resolved.recipe.digest):
            self._warn_if_weights_wander(resolved)
            run = _BlockRun(self, resolved, scan, dataset)
            try:
                plans = self._plans(standing, resolved, run)
                blocks = [block for plan in plans.values() for block in unfinished(self.storage, plan)]
                self.num_wanted = sum(len(block.keys) for block in blocks)
                num_rows = run.compute(self._in_turn(blocks))
            finally:
                run.close()
            for name, plan in plans.items():
                if not unfinished(self.storage, plan):
                    self.storage.delete(name)
        return num_rows

    def _plans(self, standing: Standing, resolved: Resolved, run: _BlockRun) -> dict[str, Plan]:
        """Unfinished plans of the same wants first, then new ones for what they leave out."""
        recipe = resolved.recipe.digest
        wanted = {want.key: want.features for want in standing.wants}
        plans: dict[str, Plan] = {}
        for name, plan in open_plans(self.storage, recipe).items():
            owed = [key for block in unfinished(self.storage, plan) for key in block.keys]
            if owed and all(wanted.get(key) == plan.features for key in owed):
                plans[name] = plan
                for key in owed:
                    del wanted[key]
        rest = [want for want in standing.wants if want.key in wanted]
        if rest:
            rows_per_block = run.rows_per_block([want.key for want in rest])
            put_keyed(self.storage, recipe_name(recipe), resolved.recipe.document)
            for feature in resolved.features:
                put_keyed(self.storage, feature_name(feature.digest), feature.document)
            for plan in make_plans(recipe, rest, rows_per_block):
                plans[publish_plan(self.storage, plan)] = plan
        return plans

    def _in_turn(self, blocks: list[Block]) -> list[Block]:
        """In order; beside another live builder in an order of our own, so that the two meet as late as can be."""
        if live_owners(self.storage) - {self.storage.owner}:
            return sorted(blocks, key=lambda block: hash((self.storage.owner, block.id)))
        return blocks

    def _warn_if_weights_wander(self, resolved: Resolved) -> None:
        """The same source with other weights each time never hits; say so instead of filling the disk."""
        from ..maintain.catalog import read_recipes

        mine = resolved.recipe.document["extractor"]
        for document in read_recipes(self.storage).values():
            other = document["extractor"]
            same_source = other.get("source") == mine.get("source") and other.get("name") == mine.get("name")
            if same_source and other.get("state") != mine.get("state"):
                self._warn(
                    "this encoder's source is in the cache with other weights or settings; if its factory draws random "
                    "weights, seed them or pass --weights random:0, else nothing is ever reused"
                )
                return

    def _publish_dataset(self, dataset: Dataset, scan: Scan, suffixes: frozenset[str]) -> tuple[str, str]:
        name = self.options.dataset or dataset_name_of(scan.sources)
        digest = dataset.digest
        newest = next((ref for ref in reversed(read_refs(self.storage, name))), None)
        roots = tuple(str(spec.root) for spec in scan.sources)
        texts = tuple(spec.absolute for spec in scan.sources)
        if newest is None or (newest.dataset, newest.roots) != (digest, roots):
            publish_dataset(self.storage, dataset)
            publish_ref(self.storage, name=name, dataset=digest, sources=texts, roots=roots, suffixes=sorted(suffixes))
        return digest, name

    def _loading(self) -> _Stopwatch:
        return _Stopwatch(self)

    def _warn(self, text: str) -> None:
        logger.warning(text)
        self.warnings.append(text)


class _Stopwatch:
    """Adds the time of a block of code to the build's loading time."""

    def __init__(self, build: _Build) -> None:
        self._build = build

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *args: object) -> None:
        self._build.load_s += time.perf_counter() - self._start


class _BlockRun:
    """Computes blocks: reads ahead, encodes, writes, and opens the encoder at the first of them."""

    def __init__(self, build: _Build, resolved: Resolved, scan: Scan, dataset: str) -> None:
        self._build = build
        self._resolved = resolved
        self._origin = {"sources": [spec.absolute for spec in scan.sources], "dataset": dataset}
        with build._loading():
            from .encoding import SampleReader

            self._device = pick_device(build.options.device)
        self._slot = build.options.batch_on(self._device)
        num_threads = build.options.threads()
        self._reader = SampleReader(
            resolved.spec,
            scan.locations,
            build.clock,
            num_threads=num_threads,
            num_ahead=2 * self._slot + num_threads,
        )
        self._encoders: dict[tuple[str, ...], BatchEncoder] = {}

    def rows_per_block(self, keys: Sequence[str]) -> int:
        """How many samples make a shard of the size asked for, from the first sample that can be encoded."""
        if self._build.options.rows_per_block is not None:
            return self._build.options.rows_per_block
        digests = tuple(sorted(feature.digest for feature in self._resolved.features))
        encoder = self._encoder(digests)
        for key in keys:
            try:
                item = self._reader.read(key)
            except SampleError:
                continue
            row_bytes = sum(row.nbytes // 2 for row in encoder.rows([item, item]).values())
            rows = min(MAX_ROWS_PER_BLOCK, max(1, self._build.options.shard_bytes // row_bytes))
            return max(self._slot, rows - rows % self._slot) if rows >= self._slot else rows
        return self._slot

    def compute(self, blocks: Sequence[Block]) -> int:
        """Compute and publish blocks; how many samples got rows from us."""
        from .encoding import encode_block

        num_rows = 0
        futures = self._reader.stream(key for block in blocks for key in block.keys)
        for block in blocks:
            if self._build.storage.exists(manifest_name(self._resolved.recipe.digest, block.id)):
                for _ in block.keys:  # another builder was faster
                    next(futures)
                continue
            encoder = self._encoder(block.features)
            encoded = encode_block(
                block.keys, futures, encoder, self._resolved.spec, slot=self._slot, on_rows=self._on_rows
            )
            num_rows += self._publish(block, encoded)
            self._build.batch_size = encoder.batch_size
        return num_rows

    def _publish(self, block: Block, encoded: EncodedBlock) -> int:
        build = self._build
        recipe = self._resolved.recipe.digest
        with build.clock.stage("write"):
            shards = write_groups(build.storage, recipe, block.id, encoded)
            manifest = Manifest(
                recipe=recipe,
                block=block.id,
                attempt=block.attempt,
                features=block.features,
                shards=shards,
                failures=tuple(encoded.failures),
                provenance=self._provenance(block),
            )
            if not publish_manifest(build.storage, manifest):
                return 0
        build.bytes_written += sum(shard.size_bytes for shard in shards)
        return sum(shard.num_rows for shard in shards)

    def _provenance(self, block: Block) -> Document:
        own = provenance(self._resolved, self._device)
        return {**own, **self._origin, "batch_size": self._slot, "rows_per_block": block.capacity}

    def _on_rows(self, count: int) -> None:
        build = self._build
        build.num_done += count
        build.on_progress(Progress(stage="encode", done=build.num_done, total=build.num_wanted))

    def _encoder(self, digests: tuple[str, ...]) -> BatchEncoder:
        from .encoding import BatchEncoder

        if digests not in self._encoders:
            self._close_encoders()  # one set of taps on the module at a time
            features = [feature for feature in self._resolved.features if feature.digest in digests]
            with self._build._loading():
                self._encoders[digests] = BatchEncoder(
                    self._resolved.extractor,
                    self._resolved.spec,
                    features,
                    device=self._device,
                    compute_dtype=self._resolved.request.compute_dtype,
                    batch_size=self._slot,
                    clock=self._build.clock,
                )
        return self._encoders[digests]

    def _close_encoders(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()

    def close(self) -> None:
        """Stop reading and let the encoder go."""
        self._reader.close()
        self._close_encoders()


def write_groups(storage: LocalStorage, recipe: str, block: str, encoded: EncodedBlock) -> tuple[Shard, ...]:
    """Publish a block's rows: one shard for each set of row shapes, in the order of their first rows."""
    import torch

    shards = []
    for group in encoded.groups.values():
        rows = {digest: torch.cat(parts) for digest, parts in sorted(group.rows.items())}
        shards.append(write_shard(storage, recipe=recipe, block=block, keys=group.keys, features=rows))
    return tuple(shards)


def provenance(resolved: Resolved, device: torch.device) -> Document:
    """What computes: versions, numerics, and how to ask for the same again."""
    import torch

    from .numerics import numerics_id

    software = resolved.spec.software()
    return {
        "fovcache": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "numerics": numerics_id(device, software),
        "software": software,
        "torch": torch.__version__,
        "request": resolved.request.document(),
    }


def _feature_row(feature: Feature) -> dict[str, str]:
    return {"digest": feature.digest, "layer": feature.layer, "pool": feature.pool, "dtype": feature.dtype}


def _failures(dataset: Dataset, standing: Standing, index: RecipeIndex) -> tuple[SampleFailure, ...]:
    """Every sample without all its features: those that failed now or before, and what could not be read."""
    wanted = {want.key for want in standing.wants}
    recorded = {key: Failure(key=key, stage="write", reason="it has no row", permanent=False) for key in wanted}
    recorded |= standing.failed
    for manifest in sorted(index.manifests, key=lambda manifest: manifest.attempt):
        recorded |= {failure.key: failure for failure in manifest.failures if failure.key in wanted}
    return tuple(
        SampleFailure(uri=item.uri, stage="fetch", reason=item.reason, permanent=item.permanent)
        for item in dataset.unreadable
    ) + tuple(
        SampleFailure(uri=sample.uri, stage=failure.stage, reason=failure.reason, permanent=failure.permanent)
        for sample in dataset.samples
        if (failure := recorded.get(sample.key)) is not None
    )


def _keys_in_several_splits(samples: Sequence[Sample]) -> int:
    splits: dict[str, str | None] = {}
    shared: set[str] = set()
    for sample in samples:
        if splits.setdefault(sample.key, sample.split) != sample.split:
            shared.add(sample.key)
    return len(shared)
