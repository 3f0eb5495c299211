"""Computing the blocks of a plan on the overlapped pipeline: fetch → decode → encode → write."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from .. import __version__
from ..errors import SampleError
from ..extract.extractor import Item
from ..keys.digest import Document
from ..pipeline.pipeline import Pipeline
from ..pipeline.stage import Failed, Stage
from ..sources.sample import Located
from ..store.layout import manifest_name
from ..store.manifest import Manifest, publish_manifest
from ..store.shard import Shard, write_shard
from ..store.storage import LocalStorage
from .downloads import Downloads
from .encoding import BatchEncoder, EncodedBlock, encode_slot
from .numerics import decoder_id, numerics_id
from .reading import decode_stage, fetch, fetch_stage, read_item
from .request import BuildOptions, Resolved, pick_device
from .tally import Tally
from .units import Place, Slot, Unit, Work, units_of

MAX_ROWS_PER_BLOCK = 65536
MAX_DECODED_BYTES = 1 << 30
"""Decoded samples that wait for the encoder take at most about this."""
_PROBED_SAMPLES = 64
_ROWS_UNKNOWN = 1024
"""Samples in a block when none of the first _PROBED_SAMPLES can be read, so that their rows' size is unknown."""
_SHOW_S = 0.2


class BlockRun:
    """Computes blocks: reads ahead, encodes, writes, and opens the encoder at the first of them."""

    def __init__(
        self,
        storage: LocalStorage,
        options: BuildOptions,
        tally: Tally,
        *,
        sources: Sequence[str],
        locations: Mapping[str, Located],
        downloads: Downloads | None,
    ) -> None:
        """`sources` are recorded with the blocks; `locations` may grow while it runs; `downloads` hear of each sample
        whose bytes are no longer needed."""
        self._storage = storage
        self._options = options
        self._tally = tally
        self._sources = list(sources)
        self._locations = locations
        self._downloads = downloads
        self._device = pick_device(options.device)
        self._encoders: dict[str, BatchEncoder] = {}  # by recipe
        self._encoding = threading.RLock()  # the planner of samples that are found later asks for the size of a row
        self._shown_s = 0.0
        self._pipeline = Pipeline(self._stages())

    def slot_size(self, resolved: Resolved) -> int:
        """Samples in a batch."""
        return self._options.batch_on(self._device, resolved.spec)

    def rows_per_block(self, resolved: Resolved, keys: Sequence[str], features: tuple[str, ...]) -> int:
        """How many samples make a shard of `features` of the size asked for, from the first that can be encoded."""
        if self._options.rows_per_block is not None:
            return self._options.rows_per_block
        slot = self.slot_size(resolved)
        with self._encoding:
            encoder = self._encoder(resolved, features)
            item = self._probe(resolved, keys)
            if item is None:
                return slot * max(1, _ROWS_UNKNOWN // slot)
            row_bytes = sum(row.nbytes // 2 for row in encoder.rows([item, item]).values())
        rows = min(MAX_ROWS_PER_BLOCK, max(1, self._options.shard_bytes // row_bytes))
        return max(slot, rows - rows % slot) if rows >= slot else rows

    def _probe(self, resolved: Resolved, keys: Sequence[str]) -> Item | None:
        """An item to see the size of a row by; without decoding where all have one shape."""
        shape = getattr(resolved.spec, "fixed_shape", None)
        if shape is not None:
            return resolved.spec.placeholder(shape)
        for key in keys[:_PROBED_SAMPLES]:
            with contextlib.suppress(SampleError):
                return read_item(resolved.spec, self._locations[key])
        return None

    def compute(self, batches: Iterable[Sequence[Sequence[Work]]]) -> set[str]:
        """Compute and publish blocks, each encoder's in their order; the samples that got rows from us.

        A batch holds for each encoder its blocks; where they want the same samples, those are decoded once.
        """
        computed: set[str] = set()
        try:
            for published in self._pipeline.run(self._units(batches)):
                computed.update(published)
        finally:
            fetched = self._downloads.stages if self._downloads is not None else ()
            self._tally.stages = (*fetched, *(stage for stage in self._pipeline.stats().stages if stage.n))
        return computed

    def _units(self, batches: Iterable[Sequence[Sequence[Work]]]) -> Iterator[Unit]:
        for chains in batches:
            yield from units_of([self._unfinished(works) for works in chains], self._locations)

    def _unfinished(self, works: Iterable[Work]) -> Iterator[Work]:
        """Asked of each block when its turn comes."""
        for work in works:
            if self._storage.exists(manifest_name(work.resolved.recipe.digest, work.block.id)):
                self._done([self._locations[key] for key in work.block.keys])  # another builder was faster
            else:
                yield work

    def _stages(self) -> list[Stage]:
        threads = self._options.threads()
        return [
            fetch_stage(threads, self._fetch),
            decode_stage(threads, self._options.watchdog_s, self._device),
            Stage(
                id="encode",
                name="encode",
                resource="cpu" if self._device.type == "cpu" else "gpu",
                run=self._encode,
                regroup=self._slots,
                max_queued=2 * self._options.rows_on(self._device) + threads,
                max_queued_bytes=MAX_DECODED_BYTES,
                in_caller=True,
            ),
            Stage(
                id="write",
                name="write",
                resource="disk",
                run=self._publish,
                regroup=_blocks,
                in_step=True,  # so that a killed build redoes one block and no part of the next
            ),
        ]

    def _fetch(self, unit: Unit) -> Unit:
        if self._downloads is not None:
            self._downloads.here(unit.location)
        return fetch(unit)

    def _done(self, locations: Sequence[Located]) -> None:
        if self._downloads is not None:
            self._downloads.done(locations)

    def _slots(self, units: Iterator[Unit | Failed]) -> Iterator[Slot]:
        """Batches of decoded samples, of one encoder each; what failed keeps its place."""
        filling: dict[Place, Slot] = {}
        for outcome in units:
            if isinstance(outcome, Failed):
                unit: Unit = outcome.item  # a thread that was left behind may still write into it
                items: Sequence[Sequence[Item | SampleError]] = [[outcome.error] * len(unit.keys)] * len(unit.places)
            else:
                unit, items = outcome, outcome.items
            for place, own in zip(unit.places, items, strict=True):
                self._done(unit.locations)  # it was asked for once for each encoder
                slot = filling.setdefault(place, Slot(work=place.work))
                slot.keys += unit.keys
                slot.items += own
                if len(slot.keys) == place.num_samples:
                    yield filling.pop(place)
            del outcome, unit, items, own

    def _encode(self, slot: Slot) -> EncodedBlock:
        with self._encoding:
            encoder = self._encoder(slot.work.resolved, slot.work.block.features)
            encoded = encode_slot(slot, encoder, slot.work.resolved.spec)
        self._tally.batch_size = encoder.batch_size
        self._tally.encoded(len(slot.keys), self._busy_shares())
        return encoded

    def _busy_shares(self) -> str:
        """`fetch 3 % · decode 97 % · …`, at most a few times a second."""
        now = time.monotonic()
        if now - self._shown_s < _SHOW_S:
            return ""
        self._shown_s = now
        return " · ".join(f"{stage.id} {stage.busy_share:.0%}" for stage in self._pipeline.stats().stages)

    def _publish(self, encoded: EncodedBlock) -> list[str]:
        work, recipe = encoded.work, encoded.work.resolved.recipe.digest
        shards = _write_groups(self._storage, recipe, work.block.id, encoded)
        manifest = Manifest(
            recipe=recipe,
            block=work.block.id,
            attempt=work.block.attempt,
            features=work.block.features,
            shards=shards,
            failures=tuple(encoded.failures),
            provenance=self._provenance(work),
        )
        if not publish_manifest(self._storage, manifest):
            return []
        self._tally.bytes_written += sum(shard.size_bytes for shard in shards)
        return [key for group in encoded.groups.values() for key in group.keys]

    def _provenance(self, work: Work) -> Document:
        """What computes, for which dataset, and how to ask for the same again."""
        return {
            **_software(work.resolved, self._device),
            "request": work.resolved.request.document(),
            "sources": self._sources,
            "dataset": work.dataset,
            "batch_size": work.slot_size,
            "rows_per_block": work.block.capacity,
        }

    def _encoder(self, resolved: Resolved, digests: tuple[str, ...]) -> BatchEncoder:
        recipe = resolved.recipe.digest
        encoder = self._encoders.get(recipe)
        if encoder is None or {feature.digest for feature in encoder.features} != set(digests):
            if encoder is not None:
                encoder.close()  # one set of taps on the module at a time
            with self._tally.loading():
                self._encoders[recipe] = encoder = BatchEncoder(
                    resolved.extractor,
                    resolved.spec,
                    [feature for feature in resolved.features if feature.digest in digests],
                    device=self._device,
                    compute_dtype=resolved.request.compute_dtype,
                    batch_size=self.slot_size(resolved),
                )
        return encoder

    def _close_encoders(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()

    def close(self) -> None:
        """Stop reading and let the encoder go."""
        self._pipeline.close()
        self._close_encoders()


def _blocks(slots: Iterator[EncodedBlock]) -> Iterator[EncodedBlock]:
    """Whole blocks, made of their slots; those of several encoders come in turn."""
    blocks: dict[Work, EncodedBlock] = {}
    num_slots: Counter[Work] = Counter()
    for encoded in slots:
        work = encoded.work
        if work in blocks:
            blocks[work].add(encoded)
        else:
            blocks[work] = encoded
        num_slots[work] += 1
        if num_slots[work] == work.num_slots:
            yield blocks.pop(work)
            del num_slots[work]
        del encoded


def _write_groups(storage: LocalStorage, recipe: str, block: str, encoded: EncodedBlock) -> tuple[Shard, ...]:
    """Publish a block's rows: one shard for each set of row shapes, in the order of their first rows."""
    shards = []
    for group in encoded.groups.values():
        rows = {digest: torch.cat(parts) for digest, parts in sorted(group.rows.items())}
        shards.append(write_shard(storage, recipe=recipe, block=block, keys=group.keys, features=rows))
    return tuple(shards)


def _software(resolved: Resolved, device: torch.device) -> Document:
    software = resolved.spec.software()
    is_exact = all(feature.is_integer for feature in resolved.features)
    return {
        "fovcache": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "numerics": {"decoder": decoder_id(software)} if is_exact else numerics_id(device, software),
        "software": software,
        "torch": torch.__version__,
    }
