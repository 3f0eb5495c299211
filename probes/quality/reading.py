"""Cached rows as vectors: as they are, or the mean of a row's tokens, places and frames, or each of these.

Axes: n samples, T tokens (of all frames; places, for a map), D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fovcache.derived.matrices import has_frames, matrices
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.rows import empty_host

_PART_BYTES = 64 << 20
"""Stored bytes that are read at a time."""


def matrix_shape(features: FeatureSet, recipe: Mapping[str, Any]) -> tuple[int, int]:
    """(T, D) of a row. Raises SelectionError for rows of several shapes, UsageError for rows without channels."""
    row = torch.empty((1, *features.row_shape), device="meta")
    _, num_tokens, num_channels = matrices(row, has_frames=has_frames(recipe)).shape
    return num_tokens, num_channels


def read_vectors(features: FeatureSet, recipe: Mapping[str, Any], *, each_token: bool) -> torch.Tensor:
    """float32 [n, D], or [n·T, D] of each token, a sample's in a row; on the CPU. Means are made in float64."""
    num_tokens, num_channels = matrix_shape(features, recipe)
    num_rows = num_tokens if each_token else 1
    x = empty_host((len(features), num_rows, num_channels), torch.float32)
    step = max(1, _PART_BYTES // max(1, features.rows.row_bytes))
    for begin in range(0, len(features), step):
        part = empty_host((min(step, len(features) - begin), *features.row_shape), features.dtype)
        features.rows.read_all(part, begin)
        matrix_nTD = matrices(part, has_frames=has_frames(recipe))
        if not each_token and num_tokens > 1:
            matrix_nTD = matrix_nTD.mean(1, keepdim=True, dtype=torch.float64)
        x[begin : begin + step] = matrix_nTD
    return x.reshape(len(features) * num_rows, num_channels)
