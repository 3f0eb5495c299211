"""Repairing: bringing back what `verify` finds damaged, and nothing else.

A damaged block is removed and computed again from its sources, cut as it was, so that on the same machine its
shard has the same bits. What cannot be brought back is named with the reason; running the original `fovcache
build` again always completes a cache.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..builder.captions import captions_of, located
from ..builder.downloads import Downloads
from ..builder.finding import by_kind, find_samples
from ..builder.progress import OnProgress, silent
from ..builder.request import BuildOptions, EncoderRequest, recorded_limits, resolve
from ..builder.run import recompute
from ..derived.derivation import Derivation
from ..errors import DamageError, FovcacheError
from ..keys.digest import Document
from ..keys.recipe import SCHEMA
from ..sources.sample import Located
from ..sources.scan import Scan
from ..sources.spec import parse_source
from ..store import layout
from ..store.dataset import Dataset, SampleTable, publish_dataset, read_table
from ..store.documents import put_keyed, read_loosely, sealed
from ..store.lease import hold_lease, sweep_dead
from ..store.manifest import manifest_names, read_manifest
from ..store.marker import marker_bytes
from ..store.refs import read_ref
from ..store.shard import keys_hex
from ..store.storage import LocalStorage
from .derivations import compute_again, find_derivation
from .recompute import dataset_of, known_sources
from .verify import Damage, verify

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_BLOCK_FOLDERS = (layout.MANIFESTS + "/", layout.SHARDS + "/")
_DOCUMENT_FOLDERS = (layout.RECIPES + "/", layout.FEATURES + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What `repair` did."""

    damaged: tuple[Damage, ...]
    """What was found."""
    repaired: tuple[str, ...]
    """Files that are whole again, or gone where they were only a plan or nothing led to them."""
    unrepaired: tuple[Damage, ...]
    """What could not be brought back, and why."""
    recomputed: int
    """Samples that were encoded again."""

    @property
    def exit_status(self) -> int:
        """0, or 1 when something is still damaged."""
        return 1 if self.unrepaired else 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def repair(storage: LocalStorage, *, device: str = "auto", on_progress: OnProgress = silent) -> RepairReport:
    """Verify, and mend what is damaged."""
    return _Repair(storage, device, on_progress).run()


class _Repair:
    def __init__(self, storage: LocalStorage, device: str, on_progress: OnProgress) -> None:
        self.storage = storage
        self.device = device
        self.on_progress = on_progress
        self.reasons: dict[str, str] = {}
        self.manifest_of: dict[str, str] = {}
        """For each file of a dropped block, the block's manifest."""
        self.recut: set[str] = set()
        """Manifests of dropped blocks whose rows are back in other blocks."""
        self.derived: dict[str, Derivation] = {}
        """Damaged recipes of derived features."""
        self.num_recomputed = 0

    def run(self) -> RepairReport:
        before = verify(self.storage, self.on_progress)
        damaged = {item.file: item for item in before.damaged}
        if damaged:
            sweep_dead(self.storage)
            with hold_lease(self.storage, work="repair"):
                self._mend(damaged)
        after = {item.file: item for item in verify(self.storage).damaged}
        unrepaired = tuple(
            Damage(file=name, problem=f"{item.problem}; {self._reason(name)}") for name, item in after.items()
        ) + tuple(
            Damage(file=name, problem=f"{damaged[name].problem}; it was removed, but {self._reason(name)}")
            for name in damaged
            if name not in after and self._is_gone(name)
        )
        still = {item.file for item in unrepaired}
        return RepairReport(
            damaged=before.damaged,
            repaired=tuple(name for name in damaged if name not in still),
            unrepaired=unrepaired,
            recomputed=self.num_recomputed,
        )

    def _mend(self, damaged: dict[str, Damage]) -> None:
        if layout.MARKER in damaged:
            self.storage.put(layout.MARKER, [marker_bytes()])
        for name in damaged:
            if name.startswith(layout.PLANS):
                self.storage.delete(name)
            elif name.startswith(layout.REFS):
                self._reseal_ref(name)
        for name in damaged:
            if name.startswith(layout.DATASETS):
                self._rescan_dataset(name)
        recipes = sorted({name.split("/")[1] for name in damaged if name.startswith(_BLOCK_FOLDERS)})
        found = {recipe: find_derivation(self.storage, recipe) for recipe in recipes}
        self.derived = {recipe: derivation for recipe, derivation in found.items() if derivation is not None}
        for recipe in recipes:
            if recipe not in self.derived:
                self._restore_blocks(recipe, damaged)
        for recipe, derivation in self.derived.items():  # their inputs are whole now, as far as they can be
            self._derive_blocks(recipe, derivation, damaged)
        if any(name.startswith(_DOCUMENT_FOLDERS) for name in damaged):
            self._restore_documents(damaged)

    def _is_gone(self, name: str) -> bool:
        """Whether a damaged file's block was removed and did not come back."""
        manifest = self.manifest_of.get(name)
        return manifest is not None and manifest not in self.recut and not self.storage.exists(manifest)

    def _reason(self, name: str) -> str:
        reason = self.reasons.get(name) or next((text for key, text in self.reasons.items() if key in name), "")
        is_derived = any(recipe in name for recipe in self.derived)
        advice = "derive it again" if is_derived else "run the original `fovcache build` again"
        return f"not repaired: {reason or 'what it held is not known any more'}; {advice}"

    def _reseal_ref(self, name: str) -> None:
        """A ref's name and dataset stand in its file's name too, so one flipped byte loses nothing that matters."""
        _, ref_name, file = name.split("/")
        created, _, prefix = file.removesuffix(".json").partition("-")
        found = [d for d in map(layout.stem, self.storage.list(layout.DATASETS)) if d.startswith(prefix)]
        if len(found) != 1:
            self.reasons[name] = f"the dataset {prefix}… that it names is gone"
            return
        fixed = {
            "kind": "ref",
            "schema": SCHEMA,
            "name": ref_name,
            "dataset": found[0],
            "created_ns": str(int(created)),
        }
        document = read_loosely(self.storage, name)
        told = {field: [str(text) for text in _list(document.get(field))] for field in ("sources", "roots", "suffixes")}
        if not told["sources"] or not all(Path(root).exists() for root in told["roots"]):
            told = next(self._places(found[0]), {field: [] for field in told})
        self.storage.put(name, [sealed({**fixed, **told})])

    def _places(self, dataset: str) -> Iterator[dict[str, list[str]]]:
        """Sources, roots and suffixes of a dataset, as its refs know them and then as blocks computed for it do."""
        for ref in _readable(self.storage, layout.REFS, read_ref):
            if ref.dataset == dataset and ref.sources:
                yield {"sources": [*ref.sources], "roots": [*ref.roots], "suffixes": [*ref.suffixes]}
        seen = set()
        for manifest in _readable(self.storage, layout.MANIFESTS, read_manifest):
            order = _order(manifest.provenance)
            if order["dataset"] == dataset and (identity := json.dumps(order, sort_keys=True)) not in seen:
                seen.add(identity)
                with contextlib.suppress(FovcacheError, KeyError, TypeError):
                    roots = [str(parse_source(text).root) for text in order["sources"]]
                    suffixes = sorted(resolve(EncoderRequest.from_document(order["request"])).suffixes)
                    yield {"sources": order["sources"], "roots": roots, "suffixes": suffixes}

    def _rescan_dataset(self, name: str) -> None:
        """Make a dataset anew from where its samples came from, if they are still the same."""
        self.reasons[name] = "nothing says where its samples came from"
        for place in self._places(layout.stem(name)):
            try:
                with contextlib.ExitStack() as stack:
                    scan, downloads = self._scan(place["sources"], frozenset(place["suffixes"]), stack)
                    if downloads is not None:
                        downloads.learn(scan.pending)
            except FovcacheError as error:
                self.reasons[name] = str(error)
                continue
            dataset = Dataset.of(scan)
            if dataset.digest == layout.stem(name):
                self.storage.delete(name)
                publish_dataset(self.storage, dataset)
                return
            self.reasons[name] = "its sources have changed since"

    def _restore_blocks(self, recipe: str, damaged: dict[str, Damage]) -> None:
        """Drop a recipe's damaged blocks, then compute them again as their builds cut them.

        All builds of the recipe are asked: a damaged provenance may be wrong, and they may hold the same samples. What
        no build cuts as it was (some samples may be gone) is computed as far as it can be, in other blocks.
        """
        lost, orders = self._drop_blocks(recipe, damaged)
        for only in (frozenset(layout.stem(name) for name in lost), None):
            for order, provenance in orders.items():
                missing = {name for name in lost if not self.storage.exists(name)}
                mine = {name for name in missing if lost[name] == order}
                if not missing or (only is None and not mine):
                    continue
                try:
                    is_whole = self._recompute(recipe, provenance, only)
                except (FovcacheError, OSError, KeyError, TypeError, AttributeError) as error:
                    self.reasons.setdefault(recipe, str(error))
                    continue
                if only is None and is_whole:
                    self.recut |= mine

    def _derive_blocks(self, recipe: str, derivation: Derivation, damaged: dict[str, Damage]) -> None:
        """Drop a derived feature's damaged blocks, then compute them again from its input."""
        lost, _ = self._drop_blocks(recipe, damaged)
        blocks = frozenset(layout.stem(name) for name in lost)
        try:
            self.num_recomputed += compute_again(
                self.storage, derivation, blocks, device=self.device, on_progress=self.on_progress
            )
            # Where a block is still missing:
            self.reasons[recipe] = "the rows that it was computed from are gone, which `fovcache build` brings back"
        except (FovcacheError, OSError) as error:
            self.reasons[recipe] = str(error)

    def _drop_blocks(self, recipe: str, damaged: dict[str, Damage]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """The manifests of damaged blocks, which are removed, each with its order; and all orders of the recipe.

        Orders come in the order of their builds, since a later build's blocks lack what an earlier one's held; those
        that only a damaged manifest tells of come last.
        """
        lost: dict[str, str] = {}
        orders: list[tuple[bool, str, float, str, dict[str, Any]]] = []
        for name in list(manifest_names(self.storage, recipe)):
            document = read_loosely(self.storage, name)
            shards = [layout.shard_name(recipe, str(s.get("digest"))) for s in _dicts(document.get("shards"))]
            provenance = document.get("provenance")
            provenance = provenance if isinstance(provenance, dict) else {}
            order = json.dumps(_order(provenance), sort_keys=True)
            if provenance:
                written = str(provenance.get("created")), self.storage.modified_s(name)
                orders.append((name in damaged, *written, order, provenance))
            if name not in damaged and not any(shard in damaged for shard in shards):
                continue
            lost[name] = order
            for file in (name, *shards):
                self.manifest_of[file] = name
                self.storage.delete(file)
        for name in damaged:
            if name.startswith(f"{layout.SHARDS}/{recipe}/"):
                self.storage.delete(name)  # no manifest speaks of it any more
        orders.sort(key=lambda item: item[:4])
        return lost, {order: provenance for *_, order, provenance in orders}

    def _recompute(self, recipe: str, provenance: dict[str, Any], only: frozenset[str] | None) -> bool:
        """Compute what a build was asked for and now lacks rows; whether all its samples were there."""
        order = _order(provenance)
        if "extractor" in order["request"]:
            raise DamageError("what it was derived from cannot be read any more")
        resolution = resolve(EncoderRequest.from_document(order["request"]), recorded_limits(provenance))
        resolved = resolution.by_recipe(recipe)
        if resolved is None:
            raise DamageError(f"{order['request']['encoder']} is not what it was when the block was computed")
        with contextlib.ExitStack() as stack:
            dataset = order["dataset"] or dataset_of(self.storage, order["sources"]) or ""
            downloads, sources = None, order["sources"]
            table: SampleTable | None = None
            with contextlib.suppress(DamageError, FileNotFoundError):
                table = read_table(self.storage, dataset)
            locations: Mapping[str, Located]
            if resolution.is_of_captions and table is not None:
                locations = captions_of(table)
                mine = list(locations)
            else:
                scan, downloads = self._scan(known_sources(self.storage, order), resolution.suffixes, stack)
                if downloads is not None:
                    downloads.learn(scan.pending)
                locations, sources = located(scan.found(), resolution), [spec.absolute for spec in scan.sources]
                mine = [key for known, keys in by_kind(scan.found(), resolution) if known is resolved for key in keys]
            if table is not None:
                keys = keys_hex(table.row_keys(resolved.recipe.document))
            else:
                logger.warning(
                    "the dataset of the damaged block is unknown; its sources' present samples are taken for it"
                )
                keys = mine
            gone = sum(key not in locations for key in keys)
            if gone:
                self.reasons[recipe] = f"{gone} samples are no longer in their sources"
            options = BuildOptions(
                device=self.device, batch_size=order["batch_size"], rows_per_block=order["rows_per_block"]
            )
            present = set(mine)
            self.num_recomputed += recompute(
                self.storage,
                resolved,
                locations,
                [key for key in keys if key in present],
                options,
                sources=sources,
                dataset=order["dataset"],
                only=only,
                downloads=downloads,
                on_progress=self.on_progress,
            )
        return not gone

    def _scan(
        self, sources: Sequence[str], suffixes: frozenset[str], stack: contextlib.ExitStack
    ) -> tuple[Scan, Downloads | None]:
        """The samples as they are now, whatever is remembered of files; of URLs their servers are asked."""
        options = BuildOptions(allow_file_urls=True)  # the build was allowed to, and bytes must be those of known keys
        return find_samples(sources, suffixes, options, stack, storage=self.storage, trust_files=False)

    def _restore_documents(self, damaged: dict[str, Damage]) -> None:
        """Recipe and feature documents follow from the requests in the manifests; one that none leads to goes."""
        manifests = list(_readable(self.storage, layout.MANIFESTS, read_manifest))
        needed = {layout.recipe_name(manifest.recipe) for manifest in manifests}
        needed |= {layout.feature_name(feature) for manifest in manifests for feature in manifest.features}
        for name in damaged.keys() - needed:
            if name.startswith(_DOCUMENT_FOLDERS):
                self.storage.delete(name)
        requests = {json.dumps(_order(m.provenance)["request"], sort_keys=True): m.provenance for m in manifests}
        for provenance in requests.values():
            try:
                documents = _documents(_order(provenance)["request"])
            except (FovcacheError, KeyError, TypeError) as error:
                self.reasons[layout.RECIPES] = self.reasons[layout.FEATURES] = str(error)
                continue
            for name in documents.keys() & damaged.keys():
                self.storage.delete(name)
                put_keyed(self.storage, name, documents[name])


def _documents(request: Mapping[str, Any]) -> dict[str, Document]:
    """The recipe and feature documents that follow from a request, by file."""
    derivation = Derivation.from_document(request)
    if derivation is not None:
        recipes, features = [derivation.recipe], [derivation.feature]
    else:
        resolution = resolve(EncoderRequest.from_document(request))
        recipes = [each.recipe for each in resolution.each]
        features = [feature for each in resolution.each for feature in each.features]
    documents = {layout.recipe_name(recipe.digest): recipe.document for recipe in recipes}
    return documents | {layout.feature_name(feature.digest): feature.document for feature in features}


def _order(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a block's provenance says of how to compute it again."""
    return {name: provenance.get(name) for name in ("request", "sources", "dataset", "batch_size", "rows_per_block")}


def _readable(storage: LocalStorage, folder: str, read: Callable[[LocalStorage, str], _T]) -> Iterator[_T]:
    for name in list(storage.list(folder)):
        try:
            yield read(storage, name)
        except (DamageError, FileNotFoundError):
            continue


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]
