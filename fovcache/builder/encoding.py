"""Encoding a block: reading its samples, cutting batches at fixed slots, pooling, casting.

A row's bits depend on the size of the batch that it was computed in, so batches are cut at multiples of
the batch size inside the block, and a sample that failed keeps its slot, filled with a placeholder.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from ..errors import EncoderError, EnvironmentFailure, LayerError, SampleError
from ..extract.extractor import Extractor, InputSpec, Item, Session
from ..extract.pooling import STORE_DTYPE, pool
from ..extract.taps import is_out_of_memory
from ..keys.digest import bytes_digest
from ..keys.recipe import Feature
from ..sources.sample import Location
from ..store.manifest import Failure
from .clock import StageClock

logger = logging.getLogger(__name__)

MAX_AHEAD_BYTES = 1 << 30
"""Decoded samples that wait for the encoder take at most about this."""


@dataclass(slots=True)
class EncodedGroup:
    """Rows of equal shapes."""

    keys: list[str] = field(default_factory=list)
    """The samples, in block order."""
    rows: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    """By feature digest, one CPU tensor [n, …] for each batch, in the feature's storage dtype."""


@dataclass(slots=True)
class EncodedBlock:
    """What a block's samples came to."""

    groups: dict[tuple[tuple[int, ...], ...], EncodedGroup] = field(default_factory=dict)
    """By the shapes of the features' rows; nearly always one."""
    failures: list[Failure] = field(default_factory=list)
    """Samples without a row."""


class SampleReader:
    """Reads samples ahead on a thread pool, in order. Decoders release the GIL, so threads are enough."""

    def __init__(
        self,
        spec: InputSpec,
        locations: Mapping[str, Location],
        clock: StageClock,
        *,
        num_threads: int,
        num_ahead: int,
    ) -> None:
        self._spec = spec
        self._locations = locations
        self._clock = clock
        self._num_ahead = num_ahead
        self._item_bytes = 0  # of the largest so far
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="fovcache-read")

    def stream(self, keys: Iterable[str]) -> Iterator[Future[Item]]:
        """A future for each key, which raises SampleError; what is read ahead is bounded in items and bytes."""
        ahead: deque[Future[Item]] = deque()
        for key in keys:
            ahead.append(self._pool.submit(self.read, key))
            while len(ahead) > min(self._num_ahead, MAX_AHEAD_BYTES // max(1, self._item_bytes)) + 1:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def close(self) -> None:
        """Stop reading; what was read ahead is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, key: str) -> Item:
        """A sample's input, read now. Raises SampleError."""
        location = self._locations[key]
        with self._clock.stage("fetch"):
            try:
                data = location.read()
            except OSError as error:
                reason = f"cannot read {location.name}: {error.strerror or error}"
                raise SampleError("fetch", reason, permanent=False) from error
            if bytes_digest(data) != key:
                reason = f"{location.name} changed since it was scanned"
                raise SampleError("fetch", reason, permanent=False)
        with self._clock.stage("decode"):
            item = self._spec.read(data, location.name)
        self._item_bytes = max(self._item_bytes, getattr(item, "nbytes", len(data)))
        return item


class BatchEncoder:
    """Runs an extractor over batches and makes rows of features of its layers.

    When a batch does not fit in memory it is cut in two, and so are all later ones; one item that does not
    fit is an EnvironmentFailure.
    """

    def __init__(
        self,
        extractor: Extractor,
        spec: InputSpec,
        features: Sequence[Feature],
        *,
        device: torch.device,
        compute_dtype: str,
        batch_size: int,
        clock: StageClock,
    ) -> None:
        self.batch_size = batch_size
        self.features = tuple(features)
        self._extractor = extractor
        self._spec = spec
        self._device = device
        self._clock = clock
        layers = list(dict.fromkeys(feature.layer for feature in features))
        self._session: Session = extractor.session(layers, device, compute_dtype)
        self._shapes: dict[tuple[tuple[int, ...], str], tuple[int, ...]] = {}

    def rows(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`{feature digest: CPU tensor [items, …]}` of items of equal shape."""
        limit = self.batch_size
        parts = []
        start = 0
        while start < len(items):
            try:
                parts.append(self._forward(items[start : start + limit]))
                start += limit
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                limit = self._shrink(min(limit, len(items) - start), error)
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _shrink(self, size: int, error: Exception) -> int:
        if size <= 1:
            raise EnvironmentFailure(
                f"one sample does not fit in the memory of {self._device}: choose a smaller --size, "
                "a lower --compute-dtype or another --device"
            ) from error
        self.batch_size = size // 2
        logger.warning("out of memory on %s with batches of %d: going on with %d", self._device, size, self.batch_size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.batch_size

    def _forward(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        with self._clock.stage("copy"):
            batch = self._spec.collate(items, self._device)
        with self._clock.stage("encode"):
            outputs = self._session.encode(batch)
            return {feature.digest: self._row(feature, outputs[feature.layer], items) for feature in self.features}

    def _row(self, feature: Feature, output: torch.Tensor, items: Sequence[Item]) -> torch.Tensor:
        pooled = pool(output, feature.pool, self._extractor.tokens, feature.layer)
        rows = pooled.to(STORE_DTYPE[feature.dtype]).to("cpu").contiguous()
        per_sample = self._spec.rows_per_sample
        if per_sample > 1:
            rows = rows.view(len(items), per_sample, *rows.shape[1:])
        seen = (self._spec.shape(items[0]), feature.digest)
        shape = tuple(rows.shape[1:])
        if self._shapes.setdefault(seen, shape) != shape:
            raise LayerError(
                f"layer {feature.layer!r} returned rows of shape {shape} after {self._shapes[seen]} for inputs of one "
                "shape; a feature's shape must depend on its input's shape alone"
            )
        return rows

    def close(self) -> None:
        """Let the extractor go."""
        close = getattr(self._session, "close", None)
        if close is not None:
            close()


def encode_block(
    keys: Sequence[str],
    futures: Iterator[Future[Item]],
    encoder: BatchEncoder,
    spec: InputSpec,
    *,
    slot: int,
    on_rows: Callable[[int], None],
) -> EncodedBlock:
    """Encode the samples of a block, taking one future for each. `slot` is the batch size that the build began with."""
    block = EncodedBlock()
    for start in range(0, len(keys), slot):
        chunk = keys[start : start + slot]
        _encode_slot(chunk, [next(futures) for _ in chunk], encoder, spec, block)
        on_rows(len(chunk))
    return block


def _encode_slot(
    keys: Sequence[str],
    futures: Sequence[Future[Item]],
    encoder: BatchEncoder,
    spec: InputSpec,
    block: EncodedBlock,
) -> None:
    items: list[Item | None] = []
    for key, future in zip(keys, futures, strict=True):
        try:
            items.append(future.result())
        except SampleError as error:
            items.append(None)
            block.failures.append(Failure(key=key, stage=error.stage, reason=error.reason, permanent=error.permanent))
    shapes = [spec.shape(item) if item is not None else None for item in items]
    for shape in dict.fromkeys(shape for shape in shapes if shape is not None):
        members = [n for n, own in enumerate(shapes) if own == shape or (own is None and len(set(shapes)) == 2)]
        batch = [items[n] if items[n] is not None else spec.placeholder(shape) for n in members]
        rows = encoder.rows(batch)
        finite = _finite(rows)
        kept = [at for at, n in enumerate(members) if items[n] is not None and finite[at]]
        for at, n in enumerate(members):
            if items[n] is not None and not finite[at]:
                reason = f"the encoder returned {_what_is_not_finite(rows, at, encoder.features)}"
                block.failures.append(Failure(key=keys[n], stage="encode", reason=reason, permanent=True))
        if kept:
            _add_rows(block, [keys[members[at]] for at in kept], rows, kept)


def _add_rows(block: EncodedBlock, keys: list[str], rows: Mapping[str, torch.Tensor], kept: list[int]) -> None:
    shapes = tuple(tuple(value.shape[1:]) for value in rows.values())
    group = block.groups.setdefault(shapes, EncodedGroup())
    group.keys += keys
    for digest, value in rows.items():
        part = value if len(kept) == len(value) else value[kept]
        group.rows.setdefault(digest, []).append(part)


def _finite(rows: Mapping[str, torch.Tensor]) -> list[bool]:
    finite = torch.stack([torch.isfinite(value).flatten(1).all(dim=1) for value in rows.values()]).all(dim=0)
    return finite.tolist()


def _what_is_not_finite(rows: Mapping[str, torch.Tensor], at: int, features: Sequence[Feature]) -> str:
    for feature in features:
        row = rows[feature.digest][at]
        if torch.isnan(row).any():
            return f"NaN at layer {feature.layer}"
        if torch.isinf(row).any():
            return f"infinity at layer {feature.layer} as {feature.dtype}"
    raise EncoderError("a row was called not finite, and is")
