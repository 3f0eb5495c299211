"""What the templates of feature quality need: the result, its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fovcache.probes.quality.result import Quality

from . import quality_captions as captions
from .layer_similarity import draw_layer_similarity
from .names import listed, shown
from .numbers import count
from .picture import Draw, Picture, Words, draw_picture
from .quality_tables import quality_tables
from .rank_bars import draw_rank_bars
from .table import Table

FIGURES: tuple[tuple[str, Draw[Quality], Words[Quality], Words[Quality]], ...] = (
    ("ranks", draw_rank_bars, captions.ranks_caption, captions.ranks_alt),
    ("similarity", draw_layer_similarity, captions.similarity_caption, captions.similarity_alt),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityView:
    """Feature quality on a page."""

    quality: Quality
    """The result."""
    file: str
    """The name of its file."""
    prefix: str
    """What the ids of its elements begin with."""
    pictures: Mapping[str, Picture]
    """By the figure's name; those that there are numbers for."""
    tables: Mapping[str, Table]
    """By name; empty ones too."""
    data: tuple[str, ...]
    """What it was run on, and what was found, in sentences."""


def quality_view(quality: Quality, *, file: str, number: int) -> QualityView:
    """Feature quality with its figures drawn; the first's are `ranks` …, a second's `ranks-2` …"""
    prefix = f"quality-{number}-"
    files = {figure: figure if number == 1 else f"{figure}-{number}" for figure, *_ in FIGURES}
    drawn = {figure: draw_picture(quality, files[figure], draw, caption, alt) for figure, draw, caption, alt in FIGURES}
    return QualityView(
        quality=quality,
        file=file,
        prefix=prefix,
        pictures={figure: picture for figure, picture in drawn.items() if picture},
        tables=quality_tables(quality, prefix),
        data=tuple(_data(quality)),
    )


def in_a_sentence(quality: Quality) -> str:
    """For the summary: verdicts with N."""
    vectors = max((each.numbers.num_vectors for each in quality.layers), default=0)
    return (
        f"Feature quality of {shown(quality.encoder, 40)}, {count(len(quality.layers))} layers, "
        f"{count(vectors)} vectors each: {quality.verdicts}{'' if quality.twin_weights else '; no random twin beside'}."
    )


def _data(quality: Quality) -> Iterator[str]:
    split = f", split {shown(quality.split)}" if quality.split else ""
    drawn = ""
    if quality.num_samples < quality.num_available:
        drawn = f", drawn by content from {count(quality.num_available)} (seed {quality.seed})"
    yield (
        f"Dataset {shown(quality.dataset)}{split}: {count(quality.num_samples)} samples{drawn}. Weights "
        f"{shown(quality.weights)}; pooling {shown(quality.pool)}; stored as {shown(quality.store_dtype)}. Vectors: "
        f"{shown(quality.vectors, 200)}."
    )
    for layers, kind, reason in quality.findings:
        yield f"{listed(layers)}: {kind}, since {shown(reason, 400)}."
    if quality.twin_weights:
        yield f"Beside it stands the same encoder with random weights ({shown(quality.twin_weights)})."
    elif quality.twin_advice:
        yield f"No twin stands beside it: {shown(quality.twin_advice, 1000)}"
