"""Collecting garbage: what no dataset leads to, after a grace period, and never what a live builder wrote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..derived.derivation import input_of
from ..errors import DamageError, SelectionError, nearest
from ..keys.recipe import Feature
from ..store import layout
from ..store.dataset import read_table
from ..store.documents import read_keyed
from ..store.lease import live_work, sweep_dead
from ..store.manifest import Manifest, manifest_names, read_manifest
from ..store.refs import DatasetRef, read_ref
from ..store.shard import keys_hex, read_shard_keys
from ..store.storage import LocalStorage

DEFAULT_GRACE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageReport:
    """What `gc` removed, or would remove."""

    removed: tuple[str, ...]
    """Files, by name."""
    freed_bytes: int
    """Their size."""
    kept_young: int
    """Garbage that is within the grace period, or that a builder at work may count on."""
    dry_run: bool
    """Whether nothing was removed in fact."""

    @property
    def exit_status(self) -> int:
        """0."""
        return 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def collect_garbage(
    storage: LocalStorage,
    *,
    grace_s: float = DEFAULT_GRACE_S,
    drop: tuple[str, ...] = (),
    only_newest: bool = False,
    dry_run: bool = False,
) -> GarbageReport:
    """Remove what no dataset leads to. Roots are the datasets that names point to.

    `drop` names datasets to give up first; `only_newest` gives up all but the newest of each name. Raises
    SelectionError for a name that is not there, DamageError when a root, a manifest or a shard cannot be read;
    nothing is removed then.
    """
    run = _Collection(storage, grace_s, dry_run)
    if not dry_run:
        sweep_dead(storage)
    kept, given_up = run.choose_refs(drop, only_newest)
    live = {key for digest in {ref.dataset for ref in kept} for key in _dataset_keys(storage, digest)}
    manifests = run.read_manifests()
    # All that can be damaged has been read: from here on files go.
    run.sweep(kept, given_up, manifests, live)
    return GarbageReport(
        removed=tuple(run.removed), freed_bytes=run.freed_bytes, kept_young=run.kept_young, dry_run=dry_run
    )


def _dataset_keys(storage: LocalStorage, digest: str) -> list[str]:
    """Of the samples and of their captions."""
    try:
        table = read_table(storage, digest)
    except (DamageError, FileNotFoundError):
        raise _damaged(layout.dataset_name(digest)) from None
    return [*keys_hex(table.keys), *keys_hex(table.caption_keys)]


def _damaged(name: str) -> DamageError:
    return DamageError(f"{name} is damaged, so nothing is collected: run `fovcache repair` first")


class _Collection:
    def __init__(self, storage: LocalStorage, grace_s: float, dry_run: bool) -> None:
        self.storage = storage
        self.dry_run = dry_run
        self.young_s = time.time() - grace_s
        self.refs = frozenset(storage.list(layout.REFS))
        self.at_work = live_work(storage)
        self.removed: list[str] = []
        self.freed_bytes = 0
        self.kept_young = 0

    def choose_refs(self, drop: tuple[str, ...], only_newest: bool) -> tuple[list[DatasetRef], list[str]]:
        """The refs that stay, and the files of those that are given up."""
        refs = {}
        for name in sorted(self.refs):
            with contextlib.suppress(FileNotFoundError):  # another collection has given it up
                refs[name] = read_ref(self.storage, name)
        known = {ref.name for ref in refs.values()}
        for name in drop:
            if name not in known:
                raise SelectionError(f"the cache has no dataset {name!r}{nearest(name, sorted(known))}")
        newest = {ref.name: file for file, ref in sorted(refs.items(), key=lambda item: item[1].created_ns)}
        given_up = [f for f, ref in refs.items() if ref.name in drop or (only_newest and newest[ref.name] != f)]
        return [ref for file, ref in refs.items() if file not in given_up], given_up

    def read_manifests(self) -> list[tuple[str, Manifest, set[str]]]:
        """Every manifest with its file and the keys of its rows. Raises DamageError."""
        found = []
        for name in list(manifest_names(self.storage)):
            reading = name
            try:
                manifest = read_manifest(self.storage, name)
                keys: set[str] = set()
                for shard in manifest.shards:
                    reading = layout.shard_name(manifest.recipe, shard.digest)
                    keys.update(keys_hex(read_shard_keys(self.storage, reading)))
            except (DamageError, FileNotFoundError):
                if self.storage.exists(name):
                    raise _damaged(reading) from None
                continue  # another collection has removed it
            found.append((name, manifest, keys))
        return found

    def sweep(
        self,
        refs: list[DatasetRef],
        given_up: list[str],
        read: list[tuple[str, Manifest, set[str]]],
        live: set[str],
    ) -> None:
        """Remove, from the outside in: refs, manifests, then what no manifest names any more."""
        for name in given_up:
            self._remove(name)
        manifests = list(self._live_manifests(read, live))
        shards = {layout.shard_name(m.recipe, shard.digest) for m in manifests for shard in m.shards}
        recipes = {layout.recipe_name(manifest.recipe) for manifest in manifests}
        features = {layout.feature_name(feature) for manifest in manifests for feature in manifest.features}
        for document in list(self._inputs(recipes)):
            features.add(layout.feature_name(document.digest))
            recipes.add(layout.recipe_name(document.recipe))
        datasets = {layout.dataset_name(ref.dataset) for ref in refs}
        roots = {
            layout.SHARDS: shards,
            layout.DATASETS: datasets,
            layout.RECIPES: recipes,
            layout.FEATURES: features,
            layout.PLANS: set(),
        }
        for folder, kept in roots.items():
            for name in list(self.storage.list(folder)):
                if name not in kept:
                    self._remove_if_old(name)
        for name in list(self.storage.list(layout.INDEX)):
            if layout.recipe_name(layout.stem(name)) not in recipes:
                self._remove(name)

    def _inputs(self, recipes: set[str]) -> Iterator[Feature]:
        """The features that derived ones among these recipes are computed from: they say what those are of."""
        for name in recipes:
            with contextlib.suppress(FileNotFoundError, DamageError):
                digest = input_of(read_keyed(self.storage, name, layout.stem(name)))
                if digest is not None:
                    yield Feature.from_document(read_keyed(self.storage, layout.feature_name(digest), digest))

    def _live_manifests(self, read: list[tuple[str, Manifest, set[str]]], live: set[str]) -> Iterator[Manifest]:
        """Manifests that stay: young ones, and those with a row, or the last word on a failure, of a live sample."""
        last: dict[tuple[str, str], int] = {}
        for _, manifest, _ in read:
            for failure in manifest.failures:
                place = (manifest.recipe, failure.key)
                last[place] = max(last.get(place, 0), manifest.attempt)
        for name, manifest, row_keys in read:
            keys = row_keys | {f.key for f in manifest.failures if last[manifest.recipe, f.key] == manifest.attempt}
            if not live.isdisjoint(keys) or not self._remove_if_old(name):
                yield manifest

    def _remove_if_old(self, name: str) -> bool:
        try:
            old = not self._in_use(name) and self.storage.modified_s(name) <= self.young_s
        except FileNotFoundError:
            return True
        if old:
            self._remove(name)
        else:
            self.kept_young += 1
        return old

    def _in_use(self, name: str) -> bool:
        """Whether a builder may count on a file: it does not write again what it finds, and names it when it ends."""
        started_s, recipes = live_work(self.storage)
        started_s, recipes = min(started_s, self.at_work[0]), recipes | self.at_work[1]
        if not self.refs.issuperset(self.storage.list(layout.REFS)):
            return True  # a builder has ended since the roots were read
        folder, _, rest = name.partition("/")
        is_shared = folder in (layout.RECIPES, layout.FEATURES, layout.DATASETS) and bool(recipes)
        return is_shared or rest.partition("/")[0] in recipes or self.storage.modified_s(name) > started_s

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.freed_bytes += self.storage.size(name)
            self.removed.append(name)
        if not self.dry_run:
            self.storage.delete(name)
