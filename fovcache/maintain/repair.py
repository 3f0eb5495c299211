"""Repairing: bringing back what `verify` finds damaged, and nothing else.

A damaged block is removed and computed again from its sources, cut as it was, so that on the same machine its
shard has the same bits. What cannot be brought back is named with the reason; running the original `fovcache
build` again always completes a cache.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..build.progress import OnProgress, silent
from ..build.request import BuildOptions, EncoderRequest, resolve
from ..build.run import recompute
from ..errors import DamageError, FovcacheError
from ..keys.recipe import SCHEMA
from ..sources.scan import scan_sources
from ..store import layout
from ..store.dataset import Dataset, publish_dataset, read_dataset, read_ref
from ..store.documents import put_keyed, sealed
from ..store.manifest import manifest_names, read_manifest
from ..store.marker import marker_bytes
from ..store.memo import Memo
from ..store.storage import LocalStorage
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
    """Files that are whole again, or gone where they were only a plan."""
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
        self.num_recomputed = 0

    def run(self) -> RepairReport:
        before = verify(self.storage, self.on_progress)
        damaged = {item.file: item for item in before.damaged}
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
        for recipe in sorted({name.split("/")[1] for name in damaged if name.startswith(_BLOCK_FOLDERS)}):
            self._restore_blocks(recipe, damaged)
        if any(name.startswith(_DOCUMENT_FOLDERS) for name in damaged):
            self._restore_documents(damaged)
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

    def _is_gone(self, name: str) -> bool:
        """Whether a damaged block was removed and did not come back: its recipe could not be computed."""
        return name.startswith(_BLOCK_FOLDERS) and name.split("/")[1] in self.reasons

    def _reason(self, name: str) -> str:
        reason = self.reasons.get(name) or next((text for key, text in self.reasons.items() if key in name), "")
        advice = "run the original `fovcache build` again"
        return f"not repaired: {reason or 'what it held is not known any more'}; {advice}"

    def _reseal_ref(self, name: str) -> None:
        """A ref's name and dataset stand in its file's name too, so one flipped byte loses nothing that matters."""
        _, ref_name, file = name.split("/")
        created, _, prefix = file.removesuffix(".json").partition("-")
        found = [d for d in map(layout.stem, self.storage.list(layout.DATASETS)) if d.startswith(prefix)]
        document = _loose_json(self.storage, name) or {}
        roots = [root for root in document.get("roots", []) if Path(str(root)).exists()]
        sources = document.get("sources", []) if len(roots) == len(document.get("roots", [])) else []
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
        found_in = {"roots": roots, "sources": sources, "suffixes": document.get("suffixes", [])}
        self.storage.put(name, [sealed({**fixed, **found_in})])

    def _rescan_dataset(self, name: str) -> None:
        """Make a dataset anew from the sources that its ref names, if they still hold the same."""
        for ref in _readable(self.storage, layout.REFS, read_ref):
            if layout.dataset_name(ref.dataset) != name:
                continue
            try:
                scan = scan_sources(ref.sources, frozenset(ref.suffixes), Memo(None))
            except FovcacheError as error:
                self.reasons[name] = str(error)
                continue
            dataset = Dataset(samples=scan.samples, unreadable=scan.unreadable)
            if dataset.digest == ref.dataset:
                self.storage.delete(name)
                publish_dataset(self.storage, dataset)
                return
            self.reasons[name] = "its sources have changed since"

    def _restore_blocks(self, recipe: str, damaged: dict[str, Damage]) -> None:
        """Drop a recipe's damaged blocks, then compute again what their builds were asked for and now lacks rows."""
        lost, others = self._drop_blocks(recipe, damaged)
        known = [provenance for provenance in lost if provenance] or others
        orders = {json.dumps(_order(provenance), sort_keys=True): provenance for provenance in known}
        if lost and not orders:
            self.reasons[recipe] = "no manifest says how it was built"
        for provenance in orders.values():
            try:
                self._recompute(recipe, provenance)
            except (FovcacheError, OSError, KeyError, TypeError) as error:
                self.reasons[recipe] = str(error)

    def _drop_blocks(
        self, recipe: str, damaged: dict[str, Damage]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Provenances of damaged blocks, which are removed (empty where it cannot be read), and of whole ones."""
        lost: list[dict[str, Any]] = []
        whole: list[dict[str, Any]] = []
        for name in list(manifest_names(self.storage, recipe)):
            document = _loose_json(self.storage, name) or {}
            shards = [layout.shard_name(recipe, str(s.get("digest"))) for s in _dicts(document.get("shards"))]
            provenance = document.get("provenance")
            provenance = provenance if isinstance(provenance, dict) else {}
            if name not in damaged and not any(shard in damaged for shard in shards):
                whole.append(provenance)
                continue
            lost.append(provenance)
            for file in (name, *shards):
                self.storage.delete(file)
        for name in damaged:
            if name.startswith(f"{layout.SHARDS}/{recipe}/"):
                self.storage.delete(name)  # no manifest speaks of it any more
        return lost, whole

    def _recompute(self, recipe: str, provenance: dict[str, Any]) -> None:
        order = _order(provenance)
        resolved = resolve(EncoderRequest.from_document(order["request"]))
        if resolved.recipe.digest != recipe:
            raise DamageError(f"{order['request']['encoder']} is not what it was when the block was computed")
        scan = scan_sources(order["sources"], resolved.spec.suffixes(), Memo(None))
        keys = [sample.key for sample in scan.samples]
        try:
            keys = [sample.key for sample in read_dataset(self.storage, order["dataset"]).samples]
        except (DamageError, FileNotFoundError):
            logger.warning("the dataset of the damaged block is unknown; all that its sources hold now is computed")
        gone = sum(key not in scan.locations for key in keys)
        if gone:
            self.reasons[recipe] = f"{gone} samples are no longer in their sources"
        options = BuildOptions(
            device=self.device, batch_size=order["batch_size"], rows_per_block=order["rows_per_block"]
        )
        present = [key for key in keys if key in scan.locations]
        self.num_recomputed += recompute(
            self.storage,
            resolved,
            scan,
            present,
            options,
            dataset=order["dataset"],
            on_progress=self.on_progress,
        )

    def _restore_documents(self, damaged: dict[str, Damage]) -> None:
        """Recipe and feature documents follow from the requests in the manifests."""
        manifests = list(_readable(self.storage, layout.MANIFESTS, read_manifest))
        requests = {json.dumps(_order(m.provenance)["request"], sort_keys=True): m.provenance for m in manifests}
        for provenance in requests.values():
            try:
                resolved = resolve(EncoderRequest.from_document(_order(provenance)["request"]))
            except (FovcacheError, KeyError, TypeError) as error:
                self.reasons[layout.RECIPES] = self.reasons[layout.FEATURES] = str(error)
                continue
            documents = {layout.recipe_name(resolved.recipe.digest): resolved.recipe.document}
            documents |= {layout.feature_name(feature.digest): feature.document for feature in resolved.features}
            for name in documents.keys() & damaged.keys():
                self.storage.delete(name)
                put_keyed(self.storage, name, documents[name])


def _order(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a block's provenance says of how to compute it again."""
    return {name: provenance.get(name) for name in ("request", "sources", "dataset", "batch_size", "rows_per_block")}


def _readable(storage: LocalStorage, folder: str, read: Callable[[LocalStorage, str], _T]) -> Iterator[_T]:
    for name in list(storage.list(folder)):
        try:
            yield read(storage, name)
        except (DamageError, FileNotFoundError):
            continue


def _loose_json(storage: LocalStorage, name: str) -> dict[str, Any] | None:
    """What can be read of a damaged document. Nothing of it is trusted: keys are computed anew and compared."""
    try:
        document = json.loads(storage.read(name))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def restore_marker(folder: Path) -> None:
    """Give a cache whose marker file is damaged or gone its marker back, if it plainly is one.

    A folder counts as a cache when it holds manifests; the marker of a newer schema is left as it is.
    """
    marker = folder / layout.MARKER
    has_manifests = any((folder / layout.MANIFESTS).glob("*/*.json"))
    if not has_manifests or (marker.is_file() and marker.read_bytes() == marker_bytes()):
        return
    try:
        newer = int(json.loads(marker.read_bytes())["schema"]) > SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        newer = False
    if not newer:
        LocalStorage(folder).put(layout.MARKER, [marker_bytes()])
