"""Rows of several shapes make no table: which samples have which, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from fovcache.errors import SelectionError

from .layer_sets import CachedLayer

_RANK_AXIS = {".lora.down.weight": 0, ".lora.up.weight": 1}
_MAX_SHOWN = 8


def check_one_shape(layer: CachedLayer, counts: Mapping[tuple[int, ...], int], dataset: str) -> None:
    """Raise SelectionError unless the rows of a layer have one shape; `counts` are samples by shape."""
    if len(counts) < 2:
        return
    name = layer.feature.layer
    axis = next((axis for suffix, axis in _RANK_AXIS.items() if name.endswith(suffix)), None)
    if layer.recipe["input"].get("kind") == "matrices" and axis is not None:
        ranks = [
            f"{num} of rank {shape[axis]}" for shape, num in sorted(counts.items(), key=lambda each: each[0][axis])
        ]
        raise SelectionError(
            f"the LoRAs of dataset {dataset!r} have {len(ranks)} ranks: {_list(ranks)}; matrices of several ranks make "
            "no table. Build a dataset of each rank, or take the layers **.delta, which do not depend on it "
            "(`fovcache build … --layers '**.delta'` adds them)"
        )
    shapes = [f"{num} of {list(shape)}" for shape, num in counts.items()]
    raise SelectionError(
        f"the rows of layer {name!r} in dataset {dataset!r} have {len(shapes)} shapes: {_list(shapes)}; they make no "
        "table. Build with --size or with --pool mean"
    )


def _list(texts: list[str]) -> str:
    return ", ".join(texts[:_MAX_SHOWN]) + (f" and {len(texts) - _MAX_SHOWN} more" if len(texts) > _MAX_SHOWN else "")
