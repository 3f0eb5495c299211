"""What the templates of an ablation need: the ablation, its figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fovcache.probes.result import Ablation

from . import ablation_captions as captions
from .ablation_tables import ablation_tables
from .forest import draw_forest
from .heat_map import draw_heat_map
from .names import listed, shown
from .numbers import count
from .picture import Draw, Picture, Words, draw_picture
from .table import Table

FIGURES: tuple[tuple[str, Draw[Ablation], Words[Ablation], Words[Ablation]], ...] = (
    ("forest", draw_forest, captions.forest_caption, captions.forest_alt),
    ("heat_map", draw_heat_map, captions.heat_map_caption, captions.heat_map_alt),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationView:
    """An ablation on a page."""

    ablation: Ablation
    """The ablation."""
    file: str
    """The name of its file."""
    prefix: str
    """What the ids of its elements begin with."""
    pictures: Mapping[str, Picture]
    """By the figure's name; those that there are numbers for."""
    tables: Mapping[str, Table]
    """By name; empty ones too."""
    data: str
    """What it was run on, in sentences."""


def ablation_view(ablation: Ablation, *, file: str, number: int) -> AblationView:
    """An ablation with its figures drawn; the first's are `forest` …, a second's `forest-2` …"""
    prefix = f"ablation-{number}-"
    files = {figure: figure if number == 1 else f"{figure}-{number}" for figure, *_ in FIGURES}
    drawn = {
        figure: draw_picture(ablation, files[figure], draw, caption, alt) for figure, draw, caption, alt in FIGURES
    }
    return AblationView(
        ablation=ablation,
        file=file,
        prefix=prefix,
        pictures={figure: picture for figure, picture in drawn.items() if picture},
        tables=ablation_tables(ablation, prefix),
        data=_data(ablation),
    )


def _data(ablation: Ablation) -> str:
    counts = ablation.class_counts
    sizes = f" of {count(min(counts))} to {count(max(counts))} samples" if counts else ""
    text = (
        f"Dataset {shown(ablation.dataset)}: {count(ablation.num_samples)} samples, {count(len(ablation.classes))} "
        f"classes{sizes} ({listed(ablation.classes, 20)})."
    )
    if ablation.num_missing:
        text += f" {count(ablation.num_missing)} samples lack a feature and are left out."
    return text
