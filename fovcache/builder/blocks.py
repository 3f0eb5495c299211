"""Computing the blocks of a plan: read ahead, encode, write, publish."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import torch

from .. import __version__
from ..errors import SampleError
from ..keys.digest import Document
from ..sources.scan import Scan
from ..store.layout import manifest_name
from ..store.manifest import Manifest, publish_manifest
from ..store.shard import Shard, write_shard
from ..store.storage import LocalStorage
from .encoding import BatchEncoder, EncodedBlock, SampleReader, encode_block
from .numerics import numerics_id
from .plan import Block
from .request import BuildOptions, Resolved, pick_device
from .tally import Tally

MAX_ROWS_PER_BLOCK = 65536
_PROBED_SAMPLES = 64
_ROWS_UNKNOWN = 1024
"""Samples in a block when none of the first _PROBED_SAMPLES can be read, so that their rows' size is unknown."""


class BlockRun:
    """Computes blocks: reads ahead, encodes, writes, and opens the encoder at the first of them."""

    def __init__(
        self,
        storage: LocalStorage,
        resolved: Resolved,
        scan: Scan,
        options: BuildOptions,
        tally: Tally,
        *,
        dataset: str,
    ) -> None:
        """`dataset` is the digest of the dataset that the blocks are computed for."""
        self._storage = storage
        self._resolved = resolved
        self._options = options
        self._tally = tally
        self._origin = {"sources": [spec.absolute for spec in scan.sources], "dataset": dataset}
        self._device = pick_device(options.device)
        self._slot = options.batch_on(self._device)
        self._reader = SampleReader(
            resolved.spec,
            scan.locations,
            tally.clock,
            num_threads=options.threads(),
            num_ahead=2 * self._slot + options.threads(),
        )
        self._encoders: dict[tuple[str, ...], BatchEncoder] = {}

    def rows_per_block(self, keys: Sequence[str], features: tuple[str, ...]) -> int:
        """How many samples make a shard of `features` of the size asked for, from the first that can be encoded."""
        if self._options.rows_per_block is not None:
            return self._options.rows_per_block
        encoder = self._encoder(features)
        for key in keys[:_PROBED_SAMPLES]:
            try:
                item = self._reader.read(key)
            except SampleError:
                continue
            row_bytes = sum(row.nbytes // 2 for row in encoder.rows([item, item]).values())
            rows = min(MAX_ROWS_PER_BLOCK, max(1, self._options.shard_bytes // row_bytes))
            return max(self._slot, rows - rows % self._slot) if rows >= self._slot else rows
        return self._slot * max(1, _ROWS_UNKNOWN // self._slot)

    def compute(self, blocks: Sequence[Block]) -> int:
        """Compute and publish blocks; how many samples got rows from us."""
        num_rows = 0
        futures = self._reader.stream(key for block in blocks for key in block.keys)
        for block in blocks:
            if self._storage.exists(manifest_name(self._resolved.recipe.digest, block.id)):
                for _ in block.keys:  # another builder was faster
                    next(futures)
                continue
            encoder = self._encoder(block.features)
            encoded = encode_block(
                block.keys, futures, encoder, self._resolved.spec, slot=self._slot, on_rows=self._tally.encoded
            )
            num_rows += self._publish(block, encoded)
            self._tally.batch_size = encoder.batch_size
        return num_rows

    def _publish(self, block: Block, encoded: EncodedBlock) -> int:
        recipe = self._resolved.recipe.digest
        with self._tally.clock.stage("write"):
            shards = _write_groups(self._storage, recipe, block.id, encoded)
            manifest = Manifest(
                recipe=recipe,
                block=block.id,
                attempt=block.attempt,
                features=block.features,
                shards=shards,
                failures=tuple(encoded.failures),
                provenance=self._provenance(block),
            )
            if not publish_manifest(self._storage, manifest):
                return 0
        self._tally.bytes_written += sum(shard.size_bytes for shard in shards)
        return sum(shard.num_rows for shard in shards)

    def _provenance(self, block: Block) -> Document:
        own = _provenance(self._resolved, self._device)
        return {**own, **self._origin, "batch_size": self._slot, "rows_per_block": block.capacity}

    def _encoder(self, digests: tuple[str, ...]) -> BatchEncoder:
        if digests not in self._encoders:
            self._close_encoders()  # one set of taps on the module at a time
            features = [feature for feature in self._resolved.features if feature.digest in digests]
            with self._tally.loading():
                self._encoders[digests] = BatchEncoder(
                    self._resolved.extractor,
                    self._resolved.spec,
                    features,
                    device=self._device,
                    compute_dtype=self._resolved.request.compute_dtype,
                    batch_size=self._slot,
                    clock=self._tally.clock,
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


def _write_groups(storage: LocalStorage, recipe: str, block: str, encoded: EncodedBlock) -> tuple[Shard, ...]:
    """Publish a block's rows: one shard for each set of row shapes, in the order of their first rows."""
    shards = []
    for group in encoded.groups.values():
        rows = {digest: torch.cat(parts) for digest, parts in sorted(group.rows.items())}
        shards.append(write_shard(storage, recipe=recipe, block=block, keys=group.keys, features=rows))
    return tuple(shards)


def _provenance(resolved: Resolved, device: torch.device) -> Document:
    """What computes: versions, numerics, and how to ask for the same again."""
    software = resolved.spec.software()
    return {
        "fovcache": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "numerics": numerics_id(device, software),
        "software": software,
        "torch": torch.__version__,
        "request": resolved.request.document(),
    }
