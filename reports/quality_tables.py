"""The tables of feature quality: ranks and spread of each layer, beside its random twin; how alike layers are."""

from __future__ import annotations

from collections.abc import Callable

from fovcache.probes.quality.result import LayerQuality, Numbers, Quality

from . import numbers
from .names import shown
from .table import ABSENT, Cell, Table, count, digest, table, text

MAX_COMPARED = 32
"""Layers of the table of CKA; the result's file has all."""


def quality_tables(quality: Quality, prefix: str = "") -> dict[str, Table]:
    """By name: `ranks`, `spread`, `cka`, `features`. Their ids begin with `prefix`."""
    return {
        "ranks": _ranks(quality, f"{prefix}ranks"),
        "spread": _spread(quality, f"{prefix}spread"),
        "cka": _cka(quality, f"{prefix}cka"),
        "features": _features(quality, f"{prefix}features"),
    }


def _ranks(quality: Quality, id: str) -> Table:
    caption = (
        "Ranks of N vectors of D numbers. Variance rank: in how many directions the variance lies; of Gaussian: that "
        "as a share of what as many vectors without a preferred direction have. In small letters the twin with random "
        "weights."
    )
    columns = ("layer", "<verdict", "N", "D", "variance rank", "of Gaussian", "participation ratio", "largest share",
               "effective rank", "RankMe")  # fmt: skip
    rows = (
        [
            text(each.layer),
            text(each.verdict),
            count(each.numbers.num_vectors),
            count(each.numbers.num_dimensions),
            _beside(each, lambda found: found.variance_rank, _rank),
            _beside(each, lambda found: found.gaussian_share, numbers.percent),
            _beside(each, lambda found: found.participation_ratio, _rank),
            _beside(each, lambda found: found.largest_share, numbers.percent),
            _beside(each, lambda found: found.effective_rank, _rank),
            _beside(each, lambda found: found.rankme, _rank),
        ]
        for each in quality.layers
    )
    return table(id, caption, columns, rows)


def _spread(quality: Quality, id: str) -> Table:
    caption = (
        "How large and how even: variance of a dimension and how many are constant; the mean cosine between vectors as "
        "they are; isotropy and uniformity of the centred vectors at unit length. In small letters the twin."
    )
    columns = ("layer", "variance", "constant", "mean cosine", "isotropy", "uniformity", "CKA with the twin")
    rows = (
        [
            text(each.layer),
            _beside(each, lambda found: found.mean_variance, numbers.digits),
            _beside(each, lambda found: found.num_constant, numbers.count),
            _beside(each, lambda found: found.mean_cosine, _signed),
            _beside(each, lambda found: found.isotropy, _rank),
            _beside(each, lambda found: found.uniformity, _signed),
            _number(each.cka_with_twin),
        ]
        for each in quality.layers
    )
    return table(id, caption, columns, rows)


def _cka(quality: Quality, id: str) -> Table:
    """Empty of one layer."""
    compared = quality.layers[-MAX_COMPARED:] if len(quality.layers) > 1 else ()
    first = len(quality.layers) - len(compared)
    caption = "Debiased CKA between layers: 0 for unrelated ones, 1 for equal ones but for rotation, size and offset."
    if compared and first:
        caption += f" The last {len(compared)} layers of {numbers.count(len(quality.layers))}."
    rows = (
        [text(each.layer), *(_number(value) for value in quality.cka[first + row][first:])]
        for row, each in enumerate(compared)
    )
    return table(id, caption, ("layer", *(shown(each.layer, 40) for each in compared)), rows)


def _features(quality: Quality, id: str) -> Table:
    columns = ("layer", "<row shape", "averaged", "<feature")
    rows = (
        [
            text(each.layer),
            Cell(text=" × ".join(map(str, each.row_shape))),
            count(each.num_averaged),
            digest(each.feature),
        ]
        for each in quality.layers
    )
    caption = "Cached features; averaged: tokens, places or frames of a sample that one vector is the mean of."
    return table(id, caption, columns, rows)


def _beside(layer: LayerQuality, number: Callable[[Numbers], float | None], form: Callable[..., str]) -> Cell:
    """A layer's number, and in small letters its twin's."""
    own, other = number(layer.numbers), number(layer.twin) if layer.twin else None
    note = "" if other is None else f"twin {form(other)}"
    return Cell(text=numbers.ABSENT, note=note) if own is None else Cell(text=form(own), value=own, note=note)


def _rank(value: float) -> str:
    return numbers.digits(value)


def _signed(value: float) -> str:
    return numbers.digits(value).replace("-", "−")


def _number(value: float | None) -> Cell:
    return ABSENT if value is None else Cell(text=f"{value:.3f}".replace("-", "−"), value=value)
