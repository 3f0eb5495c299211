"""Building: from sources and an encoder to a dataset with features."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import EnvironmentFailure
from ..extract.clips import ClipInput
from ..sources.sample import Located, Sample
from ..sources.scan import Found, Scan
from ..store.dataset import Dataset, publish_dataset
from ..store.documents import put_keyed
from ..store.index import RecipeIndex, open_index
from ..store.layout import PLANS, feature_name, recipe_name
from ..store.lease import hold_lease, in_turn, sweep_dead
from ..store.manifest import Failure
from ..store.marker import ensure_marker
from ..store.refs import check_dataset_name, publish_ref, read_refs
from ..store.storage import LocalStorage
from .captions import check_captions, located, suffixes_of
from .downloads import Downloads
from .encoders import Encoders
from .finding import by_kind, find_samples
from .isolation import isolated
from .plan import Plan, Want, make_plans, open_plans, publish_plan, unfinished
from .progress import OnProgress, silent
from .report import BuildReport, feature_row, outcome
from .request import BuildOptions, EncoderRequest, Resolution, Resolved, dataset_name_of
from .tally import Tally
from .units import Work
from .wants import Standing, stand

if TYPE_CHECKING:
    from .blocks import BlockRun

logger = logging.getLogger(__name__)


def run_build(
    storage: LocalStorage,
    sources: Sequence[str],
    encoders: EncoderRequest | Encoders,
    options: BuildOptions,
    on_progress: OnProgress = silent,
) -> BuildReport:
    """Compute what the cache lacks of the features asked for, every sample decoded once, and name the dataset.

    Raises UsageError and its kin for what cannot be done as asked, EnvironmentFailure when the machine fails;
    the cache is valid whatever happens. An error in one sample is a row of the report.
    """
    return _Build(storage, options, on_progress).run(sources, encoders)


def recompute(
    storage: LocalStorage,
    resolved: Resolved,
    locations: Mapping[str, Located],
    keys: Sequence[str],
    options: BuildOptions,
    *,
    sources: Sequence[str],
    dataset: str | None,
    only: frozenset[str] | None = None,
    downloads: Downloads | None = None,
    on_progress: OnProgress = silent,
) -> int:
    """Compute what the samples `keys` of a dataset lack, naming no dataset; how many now have rows.

    This is how `repair` brings blocks back. `locations` has what is read, by key; `sources` are recorded; `only` are
    the ids of the blocks to compute, None for all; `downloads` bring what lies at URLs.
    """
    build = _Build(storage, options, on_progress)
    build.sources = list(sources)
    build.locations = dict(locations)
    build._downloads = downloads
    with build.at_work((resolved,)):
        build.open_indexes((resolved,))
        return len(build.compute(lambda: iter([[build.plan_again(resolved, keys, dataset, only)]])))


class _Build:
    def __init__(self, storage: LocalStorage, options: BuildOptions, on_progress: OnProgress) -> None:
        self.storage = storage
        self.options = options
        self.tally = Tally(on_progress)
        self.sources: list[str] = []
        self.locations: dict[str, Located] = {}
        self.indexes: dict[str, RecipeIndex] = {}
        self._run: BlockRun | None = None
        self._downloads: Downloads | None = None
        self._plans: dict[str, Plan] = {}
        self._temporary: set[str] = set()
        self._planned: set[tuple[str, str]] = set()
        self._dataset: tuple[Dataset, str] | None = None

    def run(self, sources: Sequence[str], encoders: EncoderRequest | Encoders) -> BuildReport:
        started = time.perf_counter()
        if self.options.dataset is not None:
            check_dataset_name(self.options.dataset)
        with contextlib.ExitStack() as stack:
            with self.tally.loading():
                resolutions = isolated(encoders.resolve(self.options.limits), self.options, stack)
            suffixes = suffixes_of(resolutions)
            each = [resolved for resolution in resolutions for resolved in resolution.each]
            ensure_marker(self.storage)
            scan = self._scan(sources, suffixes, stack)
            check_captions(scan, resolutions)
            self.sources = [spec.absolute for spec in scan.sources]
            with self.at_work(each):
                self.open_indexes(each)
                computed = self.compute(lambda: self._batches(scan, resolutions))
                for recipe in {recipe for recipe, _ in self._planned}:
                    self.indexes[recipe] = open_index(self.storage, recipe, save=True)
                used = [resolved for resolution in resolutions for resolved in _used(scan, resolution)]
                self._warn_of_samples(scan, used)
                failed = self._failed(scan, resolutions)
                reads_captions = any(resolution.is_of_captions for resolution in resolutions)
                num_computed, failures = outcome(scan, computed, failed, reads_captions=reads_captions)
                digest, name = self._publish_dataset(scan, suffixes)
        seconds = time.perf_counter() - started - self.tally.load_s
        num_samples = len(scan.samples) + len(scan.unreadable)
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
            recipes=tuple(resolved.recipe.digest for resolved in used),
            features=tuple(
                feature_row(feature, resolved.extractor.name) for resolved in used for feature in resolved.features
            ),
            stages=tuple(stage.document() for stage in self.tally.stages),
            failures=failures,
            batch_size=self.tally.batch_size,
            warnings=tuple(self.tally.warnings),
        )

    def _scan(self, sources: Sequence[str], suffixes: frozenset[str], stack: contextlib.ExitStack) -> Scan:
        """Hash the local files, and ask the servers of what is remembered of URLs."""
        scan, self._downloads = find_samples(
            sources,
            suffixes,
            self.options,
            stack,
            storage=self.storage,
            remember=True,
            on_progress=self.tally.on_progress,
        )
        if scan.num_ignored:
            self.tally.warn(f"{scan.num_ignored} files in the sources are of no kind that this encoder reads; left out")
        return scan

    def _warn_of_samples(self, scan: Scan, used: Sequence[Resolved]) -> None:
        given = [("--frames", each.request.frames) for each in used] + [("--fps", each.request.fps) for each in used]
        ignored = list(dict.fromkeys(name for name, value in given if value is not None))
        if ignored and not any(isinstance(resolved.spec, ClipInput) for resolved in used):
            self.tally.warn(f"{' and '.join(ignored)} says nothing of still images, and the sources hold no video")
        if shared := _keys_in_several_splits(scan.samples):
            self.tally.warn(f"{shared} samples have the same content in more than one split: a probe's test would leak")

    def open_indexes(self, each: Sequence[Resolved]) -> None:
        """What the cache has of each recipe; damaged blocks are dropped, to be computed again."""
        for resolved in each:
            index = open_index(self.storage, resolved.recipe.digest)
            for name in index.lost:
                self.tally.warn(f"{name} or its shard is damaged: its samples are computed again")
                self.storage.delete(name)
            self.indexes[resolved.recipe.digest] = index

    def _stand(self, resolved: Resolved, keys: Sequence[str], *, retry_failed: bool) -> Standing:
        features = [feature.digest for feature in resolved.features]
        software = resolved.spec.software()
        index = self.indexes[resolved.recipe.digest]
        return stand(index, keys, features, software=software, retry_failed=retry_failed)

    @contextlib.contextmanager
    def at_work(self, each: Sequence[Resolved]) -> Iterator[None]:
        """Clear away what killed builds left, then hold a lease; a cache that cannot be written is used without."""
        with contextlib.ExitStack() as stack:
            try:
                sweep_dead(self.storage)
                for resolved in each:
                    for name, plan in open_plans(self.storage, resolved.recipe.digest).items():
                        if not unfinished(self.storage, plan):
                            self.storage.delete(name)
                stack.enter_context(hold_lease(self.storage, work=each[0].recipe.digest))
            except EnvironmentFailure as error:
                logger.info("no lease is held: %s", error)
            yield

    def _batches(self, scan: Scan, resolutions: Sequence[Resolution]) -> Iterator[list[list[Work]]]:
        """Work on the samples that are here, then on those that are downloaded, wave by wave: a list an encoder."""
        remote = scan.remote
        local = (
            scan.found_at(place for place in scan.places.values() if not place.is_remote) if remote else scan.found()
        )
        dataset = None if remote else self._dataset_of(scan)[1]
        if not remote:
            yield [self._plan_found(local, resolution, dataset) for resolution in resolutions]
            return
        assert self._downloads is not None
        of_captions = [resolution for resolution in resolutions if resolution.is_of_captions]
        resolutions = [resolution for resolution in resolutions if not resolution.is_of_captions]
        yield [self._plan_found(local, resolution, dataset) for resolution in resolutions]
        needed = self._places_lacking_features(scan, resolutions)
        for wave in self._downloads.waves(remote, lambda place: place.where in needed):
            found = scan.found_at(wave)
            here = {key: location for key, location in found.locations.items() if location.place.path}
            new = {key: location for key, location in here.items() if key not in self.locations}
            chains = [self._plan_found(replace(found, locations=new), resolution, None) for resolution in resolutions]
            self._downloads.need([self.locations[key] for works in chains for work in works for key in work.block.keys])
            self._downloads.release_unneeded(wave)
            yield chains
        if of_captions:  # all at once: however the downloads come in waves, captions make few blocks
            dataset = self._dataset_of(scan)[1]
            yield [self._plan_found(scan.found(), resolution, dataset) for resolution in of_captions]

    def _places_lacking_features(self, scan: Scan, resolutions: Sequence[Resolution]) -> set[str]:
        """URLs that are known, unchanged, and hold samples to compute."""
        return {
            scan.locations[want.key].place.where
            for resolution in resolutions
            for resolved, keys in by_kind(scan.found(), resolution)
            for want in self._stand(resolved, keys, retry_failed=self.options.retry_failed).wants
        }

    def _plan_found(self, found: Found, resolution: Resolution, dataset: str | None) -> list[Work]:
        self.locations |= located(found, resolution)
        return [
            work for resolved, keys in by_kind(found, resolution) for work in self.plan(resolved, keys, dataset=dataset)
        ]

    def plan_again(
        self, resolved: Resolved, keys: Sequence[str], dataset: str | None, only: frozenset[str] | None
    ) -> list[Work]:
        """Work on what known samples lack; what lies at URLs is downloaded when its turn comes."""
        works = self.plan(resolved, keys, dataset=dataset, only=only)
        if self._downloads is not None:
            self._downloads.need([self.locations[key] for work in works for key in work.block.keys])
        return works

    def compute(self, batches: Callable[[], Iterator[list[list[Work]]]]) -> set[str]:
        """Compute what batches of work hold; the samples that now have rows. The first is planned before all else."""
        planned = batches()
        try:
            first = next(planned)
            if not any(first) and self._downloads is None:
                return set()
            return self._runner().compute(itertools.chain([first], planned))
        finally:
            if self._run is not None:
                self._run.close()
            for name, plan in self._plans.items():
                if not unfinished(self.storage, plan) or name in self._temporary:
                    self.storage.delete(name)

    def _runner(self) -> BlockRun:
        if self._run is None:
            with self.tally.loading():
                from .blocks import BlockRun

                self._run = BlockRun(
                    self.storage,
                    self.options,
                    self.tally,
                    sources=self.sources,
                    locations=self.locations,
                    downloads=self._downloads,
                )
        return self._run

    def plan(
        self, resolved: Resolved, keys: Sequence[str], *, dataset: str | None, only: frozenset[str] | None = None
    ) -> list[Work]:
        """Blocks of what samples lack, or `only` some of those blocks. What was planned before is not planned again."""
        recipe = resolved.recipe.digest
        retry_failed = self.options.retry_failed and only is None
        standing = self._stand(resolved, keys, retry_failed=retry_failed)
        wants = [want for want in standing.wants if (recipe, want.key) not in self._planned]
        if not wants:
            return []
        self._planned |= {(recipe, want.key) for want in wants}
        self._warn_if_weights_wander(resolved)
        before = set(self.storage.list(f"{PLANS}/{recipe}"))
        plans = self._plans_of(wants, resolved)
        if only is not None:
            self._temporary |= plans.keys() - before
        self._plans |= plans
        run = self._runner()
        blocks = [block for plan in plans.values() for block in unfinished(self.storage, plan)]
        blocks = [block for block in blocks if only is None or block.id in only]
        blocks = in_turn(self.storage, blocks, lambda block: block.id)
        self.tally.num_wanted += sum(len(block.keys) for block in blocks)
        size = run.slot_size(resolved)
        return [Work(resolved=resolved, block=block, slot_size=size, dataset=dataset) for block in blocks]

    def _plans_of(self, wants: Sequence[Want], resolved: Resolved) -> dict[str, Plan]:
        """Unfinished plans of the same wants first, then new ones for what they leave out."""
        recipe, run = resolved.recipe.digest, self._runner()
        wanted = {want.key: want.features for want in wants}
        plans: dict[str, Plan] = {}
        for name, plan in open_plans(self.storage, recipe).items():
            owed = [key for block in unfinished(self.storage, plan) for key in block.keys]
            if owed and all(wanted.get(key) == plan.features for key in owed):
                plans[name] = plan
                for key in owed:
                    del wanted[key]
        rest = [want for want in wants if want.key in wanted]
        lacks = dict.fromkeys(want.features for want in rest)
        groups = [[want for want in rest if want.features == features] for features in lacks]
        sizes = [run.rows_per_block(resolved, [want.key for want in group], group[0].features) for group in groups]
        # From here on the encoder has shown that it runs.
        put_keyed(self.storage, recipe_name(recipe), resolved.recipe.document)
        for feature in resolved.features:
            put_keyed(self.storage, feature_name(feature.digest), feature.document)
        for group, rows_per_block in zip(groups, sizes, strict=True):
            for plan in make_plans(recipe, group, rows_per_block):
                plans[publish_plan(self.storage, plan)] = plan
        return plans

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

    def _failed(self, scan: Scan, resolutions: Sequence[Resolution]) -> dict[str, Failure]:
        """Every sample without all its features, by key, with why: the first encoder's reason that there is."""
        failed: dict[str, Failure] = {}
        kinds = (kind for resolution in resolutions for kind in by_kind(scan.found(), resolution))
        for resolved, keys in kinds:
            recorded: dict[str, Failure] = {}
            standing = self._stand(resolved, keys, retry_failed=False)
            wanted = {want.key for want in standing.wants}
            recorded |= {
                key: Failure(key=key, stage="write", reason="it has no row", permanent=False) for key in wanted
            }
            recorded |= standing.failed
            manifests = self.indexes[resolved.recipe.digest].manifests
            for manifest in sorted(manifests, key=lambda manifest: manifest.attempt) if wanted else ():
                recorded |= {failure.key: failure for failure in manifest.failures if failure.key in wanted}
            failed = recorded | failed
        return failed

    def _dataset_of(self, scan: Scan) -> tuple[Dataset, str]:
        """What a scan holds, once all of it is known, and its digest: made once."""
        if self._dataset is None:
            dataset = Dataset.of(scan)
            self._dataset = dataset, dataset.digest
        return self._dataset

    def _publish_dataset(self, scan: Scan, suffixes: frozenset[str]) -> tuple[str, str]:
        name = self.options.dataset or dataset_name_of(scan.sources)
        dataset, digest = self._dataset_of(scan)
        newest = next((ref for ref in reversed(read_refs(self.storage, name))), None)
        roots = tuple(str(spec.root) for spec in scan.sources)
        texts = tuple(spec.absolute for spec in scan.sources)
        publish_dataset(self.storage, dataset)  # also when it has a name: what is there may be damaged
        if newest is None or (newest.dataset, newest.roots) != (digest, roots):
            publish_ref(self.storage, name=name, dataset=digest, sources=texts, roots=roots, suffixes=sorted(suffixes))
        return digest, name


def _used(scan: Scan, resolution: Resolution) -> list[Resolved]:
    """The recipes that the samples have, or the first where there is no sample."""
    return [resolved for resolved, _ in by_kind(scan.found(), resolution)] or [resolution.each[0]]


def _keys_in_several_splits(samples: Sequence[Sample]) -> int:
    splits: dict[str, str | None] = {}
    shared: set[str] = set()
    for sample in samples:
        if splits.setdefault(sample.key, sample.split) != sample.split:
            shared.add(sample.key)
    return len(shared)
