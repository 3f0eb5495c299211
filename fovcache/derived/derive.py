"""Deriving: computing a representation of every row of a feature, and keeping it as a feature of its own.

A block of a derived feature holds the rows of one shard of its input, all of them, and is computed in parts that are
cut at fixed rows. So the same blocks with the same bits come out whoever asks for which samples in which order, and a
run that was killed redoes one block and needs no plan.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import __version__
from ..builder.numerics import numerics_id
from ..builder.progress import OnProgress, Progress, silent
from ..builder.request import pick_device
from ..errors import DamageError, UsageError
from ..keys.digest import Document
from ..loaders.feature_set import FeatureSet
from ..loaders.select import rows_of
from ..store.documents import put_keyed, read_keyed
from ..store.index import IndexedShard, RecipeIndex, open_index
from ..store.layout import feature_name, manifest_name, recipe_name
from ..store.lease import hold_lease, in_turn, sweep_dead
from ..store.manifest import Failure, Manifest, block_id, publish_manifest
from ..store.shard import (
    Shard,
    ShardHeader,
    keys_hex,
    read_checked_keys,
    read_checked_rows,
    read_shard_header,
    write_shard,
)
from ..store.storage import LocalStorage
from .batches import compute_rows
from .derivation import Derivation
from .matrices import matrices
from .representation import Representation

logger = logging.getLogger(__name__)

_PART_BYTES = 64 << 20
"""Stored bytes that are read and computed at a time. Part of what fixes a row's last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What a derivation came to."""

    features: FeatureSet
    """The derived rows."""
    computed: int
    """Rows that were computed and published now."""
    bytes_written: int
    """Bytes of the shards that were written."""
    seconds: float
    """How long it took."""


def derive(
    storage: LocalStorage,
    features: FeatureSet,
    representation: Representation,
    *,
    device: str = "auto",
    on_progress: OnProgress = silent,
) -> Derived:
    """Compute what a cache lacks of a representation of `features`, and read it back; see `Cache.derive`."""
    started = time.perf_counter()
    if features.rows.storage.root.resolve() != storage.root.resolve():
        raise UsageError(
            f"these features are of the cache {features.rows.storage.root}, so they cannot be derived in {storage.root}"
        )
    feature = features.feature
    recipe = read_keyed(storage, recipe_name(feature.recipe), feature.recipe)
    derivation = Derivation.of(representation, feature, recipe)
    run = None
    index = open_index(storage, derivation.recipe.digest)
    if _lacking(features, index, derivation):
        with _at_work(storage, derivation.recipe.digest):
            index = open_index(storage, derivation.recipe.digest)
            for name in index.lost:
                logger.warning("%s or its shard is damaged: its rows are computed again", name)
                storage.delete(name)
            run = BlockDeriver(storage, derivation, representation, device=device, on_progress=on_progress)
            run.compute(_lacking(features, index, derivation))
            index = open_index(storage, derivation.recipe.digest, save=True)
    rows, found = rows_of(storage, index, derivation.feature, features.key_array, strict=False)
    return Derived(
        features=features.with_rows(derivation.feature, rows, found),
        computed=run.num_computed if run else 0,
        bytes_written=run.bytes_written if run else 0,
        seconds=time.perf_counter() - started,
    )


def _lacking(features: FeatureSet, index: RecipeIndex, derivation: Derivation) -> list[IndexedShard]:
    """The input's shards that hold samples without a derived row which did not fail either."""
    lacks = index.lookup(derivation.feature.digest, features.key_array)[0] < 0
    if not lacks.any():
        return []
    failed = {failure.key for manifest in index.manifests for failure in manifest.failures}
    keys = features.keys
    return features.rows.shards_at([at for at in np.flatnonzero(lacks).tolist() if keys[at] not in failed])


@contextlib.contextmanager
def _at_work(storage: LocalStorage, recipe: str) -> Iterator[None]:
    """Clear away what killed runs left, then hold a lease. Raises EnvironmentFailure where nothing can be written."""
    sweep_dead(storage)
    with hold_lease(storage, work=recipe):
        yield


class BlockDeriver:
    """Computes and publishes blocks of one derived feature, one for each shard of its input."""

    def __init__(
        self,
        storage: LocalStorage,
        derivation: Derivation,
        representation: Representation,
        *,
        device: str = "auto",
        on_progress: OnProgress = silent,
    ) -> None:
        self._storage = storage
        self._derivation = derivation
        self._representation = representation
        self._device = pick_device(device)
        self._on_progress = on_progress
        self.num_computed = 0
        """Rows that were published."""
        self.bytes_written = 0
        """Bytes of the shards that were written."""

    def compute(self, shards: Sequence[IndexedShard], only: frozenset[str] | None = None) -> None:
        """Compute the blocks of these shards of the input, or `only` those of these ids, unless they are there.

        Raises DamageError when a shard is not what was written: what is computed from it is not published.
        """
        if not shards:
            return
        numerics = _numerics_of(open_index(self._storage, shards[0].recipe))
        blocks = [self._block(shard) for shard in shards]
        blocks = [block for block in blocks if only is None or block.id in only]
        total = sum(len(block.keys) for block in blocks)
        done = 0
        for block in in_turn(self._storage, blocks, lambda block: block.id):
            if not self._storage.exists(manifest_name(self._derivation.recipe.digest, block.id)):
                self._publish(block, self._rows(block), numerics.get(block.shard.shard.digest, {}))
            done += len(block.keys)
            self._on_progress(Progress(stage="derive", done=done, total=total))

    def _block(self, shard: IndexedShard) -> _Block:
        with _named(shard):
            header = read_shard_header(self._storage, shard.name)
            keys = read_checked_keys(self._storage, shard.name, header)
        digest = block_id(self._derivation.recipe.digest, [self._derivation.feature.digest], keys.tobytes(), 0)
        return _Block(id=digest, shard=shard, header=header, keys=keys_hex(keys))

    def _rows(self, block: _Block) -> torch.Tensor:
        """CPU float32 [n, F] of a whole shard of the input."""
        info = block.header.tensors[self._derivation.input]
        rows_per_part = max(1, _PART_BYTES * len(block.keys) // max(1, info.size_bytes))
        with _named(block.shard):
            parts = [
                compute_rows(
                    self._representation, matrices(part, has_frames=self._derivation.has_frames), device=self._device
                )
                for part in read_checked_rows(
                    self._storage, block.shard.name, block.header, self._derivation.input, rows_per_part
                )
            ]
        return torch.cat(parts)

    def _publish(self, block: _Block, rows: torch.Tensor, input_numerics: Document) -> None:
        """The shard first, then its manifest: the first manifest of a block wins."""
        derivation = self._derivation
        recipe, feature = derivation.recipe.digest, derivation.feature.digest
        put_keyed(self._storage, recipe_name(recipe), derivation.recipe.document)
        put_keyed(self._storage, feature_name(feature), derivation.feature.document)
        finite = torch.isfinite(rows).all(dim=1)
        keys = [key for key, is_finite in zip(block.keys, finite.tolist(), strict=True) if is_finite]
        shards: tuple[Shard, ...] = ()
        if keys:
            kept = rows if len(keys) == len(rows) else rows[finite]
            shards = (
                write_shard(
                    self._storage, recipe=recipe, block=block.id, keys=keys, features={feature: kept.contiguous()}
                ),
            )
        manifest = Manifest(
            recipe=recipe,
            block=block.id,
            attempt=0,
            features=(feature,),
            shards=shards,
            failures=tuple(self._failure(block.keys[at], rows[at]) for at in torch.nonzero(~finite).flatten().tolist()),
            provenance={
                "fovcache": __version__,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "numerics": {**numerics_id(self._device, {}), "input": input_numerics},
                "software": {},
                "torch": torch.__version__,
                "request": derivation.document(),
                "sources": [],
                "dataset": None,
            },
        )
        if publish_manifest(self._storage, manifest):
            self.num_computed += len(keys)
            self.bytes_written += sum(shard.size_bytes for shard in shards)

    def _failure(self, key: str, row: torch.Tensor) -> Failure:
        what = "NaN" if torch.isnan(row).any() else "infinity"
        reason = f"{self._derivation.name} gave {what} for layer {self._derivation.layer}"
        return Failure(key=key, stage="encode", reason=reason, permanent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    id: str
    shard: IndexedShard
    """Of the input."""
    header: ShardHeader
    """Of that shard."""
    keys: list[str]


@contextlib.contextmanager
def _named(shard: IndexedShard) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DamageError(f"{shard.name} is missing; run `fovcache repair`, or open the features again") from error


def _numerics_of(index: RecipeIndex) -> dict[str, Document]:
    """What each shard of a recipe was computed under."""
    return {
        shard.digest: manifest.provenance.get("numerics", {})
        for manifest in index.manifests
        for shard in manifest.shards
    }
