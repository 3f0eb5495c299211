"""A feature set: the rows of one feature for the samples of one dataset, in the dataset's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import SelectionError, UsageError
from ..keys.recipe import Feature
from ..sources.sample import Sample
from ..store.dataset import SampleTable
from ..store.shard import keys_hex
from .resident import load_rows
from .rows import Rows

if TYPE_CHECKING:
    from .loader import Loader


class FeatureSet:
    """Rows of one feature, with the samples that they belong to.

    Get one from `Cache.features`. Samples of the dataset that have no row (they failed) are left out and
    counted in `num_failed`.
    """

    def __init__(
        self, *, feature: Feature, rows: Rows, table: SampleTable, positions: np.ndarray, num_failed: int
    ) -> None:
        self.feature = feature
        """The feature: recipe, layer, pooling, storage dtype."""
        self.rows = rows
        """Where the rows lie."""
        self.num_failed = num_failed
        """Samples of the dataset (and split) without a row."""
        self._table = table
        self._positions = positions

    def __repr__(self) -> str:
        return f"FeatureSet({self.feature.layer!r}, shape={self.shape if len(self.rows.shapes) == 1 else 'various'})"

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row. Raises SelectionError when rows have more than one."""
        if len(self.rows.shapes) != 1:
            shown = ", ".join(str(shape) for shape in self.rows.shapes[:5])
            advice = "take `padded()`" if self.feature.is_integer else "build with --size or with --pool mean"
            raise SelectionError(
                f"the rows of layer {self.feature.layer!r} have {len(self.rows.shapes)} shapes ({shown}), so they make "
                f"no one tensor; {advice}"
            )
        return tuple(self.rows.shapes[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """`(samples, …)`."""
        return (len(self), *self.row_shape)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that rows are stored in."""
        return self.rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.rows.row_bytes

    @property
    def key_array(self) -> np.ndarray:
        """The samples' keys, uint8 [samples, 32]."""
        keys: np.ndarray = self._table.keys[self._positions]
        return keys

    @property
    def dataset(self) -> str:
        """The digest of the samples' dataset."""
        return self._table.digest

    @property
    def positions(self) -> np.ndarray:
        """Where the samples stand in their dataset, int64 [samples]."""
        return self._positions

    @property
    def keys(self) -> list[str]:
        """The samples' keys, hexadecimal."""
        return keys_hex(self.key_array)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples, one a row."""
        return self._table.samples(self._positions)

    @property
    def uris(self) -> list[str]:
        """Where the samples stand in their sources."""
        return [uri or "" for uri in self._table.texts("uri", self._positions)]

    @property
    def captions(self) -> list[str | None]:
        """The samples' captions."""
        return self._table.texts("caption", self._positions)

    @property
    def groups(self) -> list[str | None]:
        """The samples' groups."""
        return self._table.texts("group", self._positions)

    @property
    def splits(self) -> list[str | None]:
        """The samples' splits."""
        return self._table.texts("split", self._positions)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """For string labels, the names that the numbers in `labels` stand for, sorted; else None."""
        return tuple(self._table.categories("label")[1]) or None

    @cached_property
    def labels(self) -> torch.Tensor | None:
        """int64 [samples], or None when no sample has a label.

        Integer labels keep their values; strings are numbered as in `classes`. Raises SelectionError when
        only some samples have one, or when integers and strings are mixed.
        """
        found = self._table.labels(self._positions)
        return None if found is None else torch.from_numpy(found)

    def subset(self, positions: Sequence[int]) -> FeatureSet:
        """The rows at `positions`, in that order."""
        return FeatureSet(
            feature=self.feature,
            rows=self.rows.subset(np.asarray(positions, np.int64)),
            table=self._table,
            positions=self._positions[np.asarray(positions, np.int64)],
            num_failed=self.num_failed,
        )

    def with_rows(self, feature: Feature, rows: Rows, kept: np.ndarray) -> FeatureSet:
        """Another feature of the same samples: those at `kept`, int64 [m], have `rows`, and the others none."""
        return FeatureSet(
            feature=feature,
            rows=rows,
            table=self._table,
            positions=self._positions[kept],
            num_failed=self.num_failed + len(self) - len(kept),
        )

    def tensors(self, device: str | torch.device = "cpu") -> tuple[torch.Tensor, torch.Tensor | None]:
        """All rows [samples, …] in the stored dtype, and labels int64 [samples] or None, on `device`."""
        target = torch.device(device)
        x = load_rows(self.rows, self.shape, target)
        return x, None if self.labels is None else self.labels.to(target)

    def padded(self, length: int | None = None, fill: int = -1) -> torch.Tensor:
        """Token ids of all samples, int64 [samples, longest] on the CPU, `fill` after each one's end.

        With `length` the longest is at most so long and longer rows lose their ends, with the end token:
        `(features.lengths > length).sum()` counts these. Raises SelectionError for rows of anything else.
        """
        if length is not None and length < 1:
            raise UsageError(f"length {length} is out of range; expected at least 1")
        # By numpy: torch would start threads for what one of them has done before they meet.
        parts = [(positions, part.numpy()) for positions, part in self._ids()]
        longest = max((int(np.count_nonzero(part >= 0, axis=1).max()) for _, part in parts), default=0)
        width = longest if length is None else min(longest, length)
        ids = np.full((len(self), width), fill, np.int64)
        for positions, part in parts:
            own = part[:, :width]
            ids[positions, : own.shape[1]] = np.where(own < 0, fill, own)
        return torch.from_numpy(ids)

    @property
    def lengths(self) -> torch.Tensor:
        """How many token ids each sample has, the end token included, int64 [samples]. Raises as `padded`."""
        lengths = np.zeros(len(self), np.int64)
        for positions, part in self._ids():
            lengths[positions] = np.count_nonzero(part.numpy() >= 0, axis=1)
        return torch.from_numpy(lengths)

    def _ids(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """As `Rows.by_shape`."""
        if not self.feature.is_integer or any(len(shape) != 1 for shape in self.rows.shapes):
            raise SelectionError(
                f"the rows of layer {self.feature.layer!r} are {self.feature.dtype}, and only token ids can be padded"
            )
        return self.rows.by_shape()

    def loader(self, batch_size: int, **options: Any) -> Loader:
        """Batches `(x, y)`; `options` are those of `Loader`: shuffle, seed, device, residency, drop_last."""
        from .loader import Loader

        return Loader({"x": self}, batch_size, as_tuple=True, **options)
