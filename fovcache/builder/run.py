"""Building: from sources and an encoder to a dataset with features."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import EnvironmentFailure
from ..keys.recipe import Feature
from ..sources.sample import Sample
from ..sources.scan import Scan, scan_sources
from ..store.dataset import Dataset, publish_dataset
from ..store.documents import put_keyed
from ..store.index import RecipeIndex, open_index
from ..store.layout import MEMO, PLANS, feature_name, recipe_name
from ..store.lease import hold_lease, live_owners, sweep_dead
from ..store.manifest import Failure
from ..store.marker import ensure_marker
from ..store.memo import Memo
from ..store.refs import check_dataset_name, publish_ref, read_refs
from ..store.storage import LocalStorage
from .plan import Block, Plan, make_plans, open_plans, publish_plan, unfinished
from .progress import OnProgress, Progress, silent
from .report import BuildReport, SampleFailure
from .request import BuildOptions, EncoderRequest, Resolved, dataset_name_of, resolve
from .tally import Tally
from .wants import Standing, stand

if TYPE_CHECKING:
    from .blocks import BlockRun

logger = logging.getLogger(__name__)


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
    only: frozenset[str] | None = None,
    on_progress: OnProgress = silent,
) -> int:
    """Compute what the samples `keys` of a dataset lack, naming no dataset; how many now have rows.

    This is how `repair` brings blocks back. `only` are the ids of the blocks to compute; None for all.
    """
    build = _Build(storage, resolved.request, options, on_progress)
    with build._at_work(resolved):
        index = build._open_index(resolved)
        standing = build._stand(index, keys, resolved, retry_failed=False)
        return build._compute(standing, resolved, scan, dataset, only) if standing.wants else 0


class _Build:
    def __init__(
        self, storage: LocalStorage, request: EncoderRequest, options: BuildOptions, on_progress: OnProgress
    ) -> None:
        self.storage = storage
        self.request = request
        self.options = options
        self.tally = Tally(on_progress)

    def run(self, sources: Sequence[str]) -> BuildReport:
        started = time.perf_counter()
        if self.options.dataset is not None:
            check_dataset_name(self.options.dataset)
        with self.tally.loading():
            resolved = resolve(self.request)
        ensure_marker(self.storage)
        scan = self._scan(sources, resolved)
        dataset = Dataset(samples=scan.samples, unreadable=scan.unreadable)
        keys = [sample.key for sample in dataset.samples]
        num_computed = 0
        with self._at_work(resolved):
            index = self._open_index(resolved)
            standing = self._stand(index, keys, resolved, retry_failed=self.options.retry_failed)
            if standing.wants:
                num_computed = self._compute(standing, resolved, scan, dataset.digest)
                index = open_index(self.storage, resolved.recipe.digest, save=True)
                standing = self._stand(index, keys, resolved, retry_failed=False)
            failures = _failures(dataset, standing, index)
            digest, name = self._publish_dataset(dataset, scan, resolved.spec.suffixes())
        seconds = time.perf_counter() - started - self.tally.load_s
        num_samples = len(dataset.samples) + len(dataset.unreadable)
        return BuildReport(
            samples=num_samples,
            computed=num_computed,
            reused=num_samples - num_computed - len(failures),
            failed=len(failures),
            seconds=seconds,
            load_seconds=self.tally.load_s,
            samples_per_s=num_computed / seconds,
            bytes_written=self.tally.bytes_written,
            dataset=digest,
            dataset_name=name,
            recipes=(resolved.recipe.digest,),
            features=tuple(_feature_row(feature) for feature in resolved.features),
            stages=tuple(self.tally.clock.stages()),
            failures=failures,
            batch_size=self.tally.batch_size,
            warnings=tuple(self.tally.warnings),
        )

    def _scan(self, sources: Sequence[str], resolved: Resolved) -> Scan:
        self.tally.on_progress(Progress(stage="scan", done=0, total=0))
        memo = Memo(self.storage.path(MEMO), ignore=self.options.rehash)
        scan = scan_sources(sources, resolved.spec.suffixes(), memo, num_threads=self.options.threads())
        memo.save()
        if scan.num_ignored:
            self.tally.warn(f"{scan.num_ignored} files in the sources are of no kind that this encoder reads; left out")
        if shared := _keys_in_several_splits(scan.samples):
            self.tally.warn(f"{shared} samples have the same content in more than one split: a probe's test would leak")
        return scan

    def _open_index(self, resolved: Resolved) -> RecipeIndex:
        index = open_index(self.storage, resolved.recipe.digest)
        for name in index.lost:
            self.tally.warn(f"{name} or its shard is damaged: its samples are computed again")
            self.storage.delete(name)
        return index

    def _stand(self, index: RecipeIndex, keys: Sequence[str], resolved: Resolved, *, retry_failed: bool) -> Standing:
        features = [feature.digest for feature in resolved.features]
        return stand(index, keys, features, software=resolved.spec.software(), retry_failed=retry_failed)

    @contextlib.contextmanager
    def _at_work(self, resolved: Resolved) -> Iterator[None]:
        """Clear away what killed builds left, then hold a lease; a cache that cannot be written is used without."""
        recipe = resolved.recipe.digest
        with contextlib.ExitStack() as stack:
            try:
                sweep_dead(self.storage)
                for name, plan in open_plans(self.storage, recipe).items():
                    if not unfinished(self.storage, plan):
                        self.storage.delete(name)
                stack.enter_context(hold_lease(self.storage, work=recipe))
            except EnvironmentFailure as error:
                logger.info("no lease is held: %s", error)
            yield

    def _compute(
        self, standing: Standing, resolved: Resolved, scan: Scan, dataset: str, only: frozenset[str] | None = None
    ) -> int:
        """Compute all wants, or of their blocks `only` those, block by block; how many samples now have rows."""
        others = set(self.storage.list(f"{PLANS}/{resolved.recipe.digest}"))
        self._warn_if_weights_wander(resolved)
        with self.tally.loading():
            from .blocks import BlockRun

            run = BlockRun(self.storage, resolved, scan, self.options, self.tally, dataset=dataset)
        try:
            plans = self._plans(standing, resolved, run)
            blocks = [block for plan in plans.values() for block in unfinished(self.storage, plan)]
            blocks = [block for block in blocks if only is None or block.id in only]
            self.tally.num_wanted = sum(len(block.keys) for block in blocks)
            num_rows = run.compute(self._in_turn(blocks))
        finally:
            run.close()
        for name, plan in plans.items():
            if not unfinished(self.storage, plan) or (only is not None and name not in others):
                self.storage.delete(name)
        return num_rows

    def _plans(self, standing: Standing, resolved: Resolved, run: BlockRun) -> dict[str, Plan]:
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
        lacks = dict.fromkeys(want.features for want in rest)
        groups = [[want for want in rest if want.features == features] for features in lacks]
        sizes = [run.rows_per_block([want.key for want in group], group[0].features) for group in groups]
        # From here on the encoder has shown that it runs.
        put_keyed(self.storage, recipe_name(recipe), resolved.recipe.document)
        for feature in resolved.features:
            put_keyed(self.storage, feature_name(feature.digest), feature.document)
        for group, rows_per_block in zip(groups, sizes, strict=True):
            for plan in make_plans(recipe, group, rows_per_block):
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
                self.tally.warn(
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
