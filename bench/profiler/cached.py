"""Rows out of a cache in the place of frozen encoders, for what-ifs that are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from fovcache.cache import Cache
from fovcache.errors import UsageError
from fovcache.loaders.feature_set import FeatureSet

_GATHER_BYTES = 64 << 20
_MAX_GATHER_ROWS = 4096
_NUM_GATHERS = 7


class CachedRows:
    """The features of some encoders for the same samples, resident on the device."""

    def __init__(self, cache: Cache, features: Sequence[dict[str, str]], device: torch.device) -> None:
        """`features` as a build's report lists them. Raises UsageError where samples are stills and clips, mixed."""
        self._rows: dict[str, dict[str, torch.Tensor]] = {}
        self._row_of: dict[str, int] = {}
        self.size_bytes = 0
        """Of all rows, as stored."""
        for feature in features:
            encoder = feature["encoder"]
            found = _the_one(cache, feature)
            if self._row_of and list(self._row_of) != list(dict.fromkeys(found.keys)):
                raise UsageError("the samples are stills and clips, whose rows cannot stand in one batch")
            self._row_of = {key: row for row, key in reversed(list(enumerate(found.keys)))}
            self._row_of = {key: self._row_of[key] for key in found.keys}
            rows = found.tensors(device)[0]
            self.size_bytes += rows.nbytes
            self._rows.setdefault(encoder, {})[feature["layer"]] = rows
        self.keys = list(self._row_of)
        """The samples, in the dataset's order."""
        self._device = device

    def load(self, keys: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """By encoder and layer: rows [samples, …] as they are stored."""
        try:
            places = torch.tensor([self._row_of[key] for key in keys], device=self._device)
        except KeyError as error:
            raise UsageError(f"sample {str(error)[1:13]} is not in the cache: it has changed since") from None
        return {
            encoder: {layer: rows[places] for layer, rows in layers.items()} for encoder, layers in self._rows.items()
        }


def _the_one(cache: Cache, feature: dict[str, str]) -> FeatureSet:
    return cache.features(
        encoder=feature["encoder"], layer=feature["layer"], pool=feature["pool"], store_dtype=feature["dtype"]
    )


def gather_bytes_per_s(row_bytes: int, batch_size: int, device: torch.device) -> float:
    """How fast batches of cached rows are put together on the device, in stored bytes; the median of a few."""
    row = torch.zeros(max(1, row_bytes // 2), dtype=torch.bfloat16)
    num_rows = max(batch_size, min(_MAX_GATHER_ROWS, _GATHER_BYTES // max(1, row_bytes)))
    rows = row.expand(num_rows, -1).contiguous().to(device)
    places = torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[:batch_size].to(device)
    times_s = []
    for _ in range(_NUM_GATHERS):
        start = time.perf_counter()
        rows[places].float().sum().item()  # waits for the device
        times_s.append(time.perf_counter() - start)
    return batch_size * row_bytes / statistics.median(times_s)
