"""Encoding slots: pooling, casting, and what of it is a row or a failure."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import EncoderError, EnvironmentFailure, LayerError, SampleError
from ..extract.extractor import Extractor, InputSpec, Item, Session
from ..extract.pooling import STORE_DTYPE, pool
from ..extract.taps import is_out_of_memory
from ..keys.recipe import Feature
from ..store.manifest import Failure
from .copier import Copier
from .units import Slot, Work

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EncodedGroup:
    """Rows of equal shapes."""

    keys: list[str] = field(default_factory=list)
    """The samples, in block order."""
    rows: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    """By feature digest, one CPU tensor [n, …] for each batch, in the feature's storage dtype."""


@dataclass(slots=True)
class EncodedBlock:
    """What a block's samples, or those of one of its slots, came to."""

    work: Work
    """The block."""
    groups: dict[tuple[tuple[int, ...], ...], EncodedGroup] = field(default_factory=dict)
    """By the shapes of the features' rows; nearly always one."""
    failures: list[Failure] = field(default_factory=list)
    """Samples without a row."""

    def add(self, other: EncodedBlock) -> None:
        """Take in what a later slot came to."""
        for shapes, group in other.groups.items():
            mine = self.groups.setdefault(shapes, EncodedGroup())
            mine.keys += group.keys
            for digest, parts in group.rows.items():
                mine.rows.setdefault(digest, []).extend(parts)
        self.failures += other.failures


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
    ) -> None:
        self.batch_size = batch_size
        self.features = tuple(features)
        self._extractor = extractor
        self._spec = spec
        self._device = device
        self._copier = Copier(device)
        layers = list(dict.fromkeys(feature.layer for feature in features))
        self._session: Session = extractor.session(layers, device, compute_dtype)
        self._shapes: dict[tuple[tuple[int, ...], str], tuple[int, ...]] = {}

    def rows(self, items: Sequence[Item], *, to: str = "cpu") -> dict[str, torch.Tensor]:
        """`{feature digest: tensor [items, …]}` of items of equal shape, on the device `to`."""
        limit = self.batch_size
        parts = []
        start = 0
        while start < len(items):
            try:
                parts.append(self._forward(items[start : start + limit], to))
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

    def _forward(self, items: Sequence[Item], to: str) -> dict[str, torch.Tensor]:
        outputs = self.encode(self.copy(items))
        return {feature.digest: self._row(feature, outputs[feature.layer], items, to) for feature in self.features}

    def copy(self, items: Sequence[Item]) -> torch.Tensor:
        """Items of equal shape as one batch on the device."""
        return self._copier(self._spec.collate(items))

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [rows, …]}` of a copied batch, unpooled, on the device."""
        return self._session.encode(self._spec.prepare(batch))

    def _row(self, feature: Feature, output: torch.Tensor, items: Sequence[Item], to: str) -> torch.Tensor:
        pooled = pool(output, feature.pool, self._extractor.tokens, feature.layer)
        rows = pooled.to(STORE_DTYPE[feature.dtype]).to(to).contiguous()
        per_sample = self._spec.rows_of(items[0])
        if per_sample is not None:
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


def encode_slot(slot: Slot, encoder: BatchEncoder, spec: InputSpec) -> EncodedBlock:
    """Encode one batch. Samples of unequal shapes are encoded apart; failed ones keep their places."""
    block = EncodedBlock(slot.work)
    items, keys = slot.items, slot.keys
    for key, item in zip(keys, items, strict=True):
        if isinstance(item, SampleError):
            block.failures.append(Failure(key=key, stage=item.stage, reason=item.reason, permanent=item.permanent))
    shapes = [None if isinstance(item, SampleError) else spec.shape(item) for item in items]
    for shape in dict.fromkeys(shape for shape in shapes if shape is not None):
        members = [n for n, own in enumerate(shapes) if own == shape or (own is None and len(set(shapes)) == 2)]
        batch = [spec.placeholder(shape) if isinstance(items[n], SampleError) else items[n] for n in members]
        rows = encoder.rows(batch)
        finite = _finite(rows)
        kept = [at for at, n in enumerate(members) if shapes[n] is not None and finite[at]]
        for at, n in enumerate(members):
            if shapes[n] is not None and not finite[at]:
                reason = f"the encoder returned {_what_is_not_finite(rows, at, encoder.features)}"
                block.failures.append(Failure(key=keys[n], stage="encode", reason=reason, permanent=True))
        if kept:
            _add_rows(block, [keys[members[at]] for at in kept], rows, kept)
    return block


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
