"""What the templates of an ablation need: the ablation, its figures and tables."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fovcache.probes.result import NO_CONTROL, Ablation, ArmComparison

from . import ablation_captions as captions
from .ablation_tables import ablation_tables
from .cells import name_of
from .confusion import draw_cell_confusion, draw_confusion
from .difference_forest import draw_arms, draw_differences
from .forest import draw_forest
from .heat_map import draw_heat_map
from .names import listed, shown
from .numbers import count
from .picture import Draw, Picture, Words, draw_picture
from .reliability import draw_reliability
from .table import Table

FIGURES: tuple[tuple[str, Draw[Ablation], Words[Ablation], Words[Ablation]], ...] = (
    ("forest", draw_forest, captions.forest_caption, captions.forest_alt),
    ("differences", draw_differences, captions.differences_caption, captions.differences_alt),
    ("heat_map", draw_heat_map, captions.heat_map_caption, captions.heat_map_alt),
    ("confusion", draw_confusion, captions.confusion_caption, captions.confusion_alt),
    ("reliability", draw_reliability, captions.reliability_caption, captions.reliability_alt),
)


ARMS = "arms"
"""The figure of differences between arms and the base."""
_BEFORE_ARMS = ("forest", "differences")
_MAX_VALUE = 60
OF_CELL = "confusion_of_"
"""What the names of the confusions of cells that were asked for begin with."""


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
    confusions: tuple[Picture, ...]
    """Of the cells that were asked for by name."""
    tables: Mapping[str, Table]
    """By name; empty ones too."""
    changes: tuple[str, ...]
    """What each arm changes, and what of it could not be compared."""
    data: str
    """What it was run on, in sentences."""


def ablation_view(
    ablation: Ablation, *, file: str, number: int, arms: Sequence[ArmComparison] = (), cells: Collection[str] = ()
) -> AblationView:
    """An ablation with its figures drawn; the first's are `forest` …, a second's `forest-2` …

    `cells` are those whose confusion is wanted too, named as by `cells.name_of`.
    """
    prefix = f"ablation-{number}-"
    files = {figure: figure if number == 1 else f"{figure}-{number}" for figure, *_ in FIGURES}
    drawn = {
        figure: draw_picture(ablation, files[figure], draw, caption, alt) for figure, draw, caption, alt in FIGURES
    }
    name = ARMS if number == 1 else f"{ARMS}-{number}"
    beside = {ARMS: draw_picture(arms, name, draw_arms, captions.arms_caption, captions.arms_alt)}
    drawn = {figure: drawn[figure] for figure in _BEFORE_ARMS if figure in drawn} | beside | drawn
    return AblationView(
        ablation=ablation,
        file=file,
        prefix=prefix,
        pictures={figure: picture for figure, picture in drawn.items() if picture},
        confusions=tuple(_confusions(ablation, cells, number)),
        tables=ablation_tables(ablation, prefix, arms),
        changes=tuple(sentence for arm in arms for sentence in _changes(arm)),
        data=_data(ablation),
    )


def _changes(arm: ArmComparison) -> Iterator[str]:
    to, base = (_value(value) for value in (arm.arm_value, arm.base_value))
    yield f"Arm {shown(arm.arm)}: {shown(arm.setting)} is {to} instead of {base}."
    yield from (f"Arm {shown(arm.arm)}: {shown(sentence, 300)}." for sentence in arm.unpaired)


def _value(value: object) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        return shown(value["kind"], _MAX_VALUE)  # what it has beside, a kind brings with it
    return "nothing" if value is None else shown(json.dumps(value, ensure_ascii=False), _MAX_VALUE)


def _confusions(ablation: Ablation, cells: Collection[str], number: int) -> Iterator[Picture]:
    names: set[str] = set()
    for cell in ablation.estimates:
        if cell.control != NO_CONTROL or name_of(cell) not in cells:
            continue
        name = f"{OF_CELL}{re.sub('[^A-Za-z0-9]+', '_', name_of(cell))[:80]}"
        while name in names:  # what tells them apart is none of these letters
            name += "_"
        names.add(name)
        picture = draw_picture(
            ablation,
            name if number == 1 else f"{name}-{number}",
            functools.partial(draw_cell_confusion, cell),
            functools.partial(captions.cell_confusion_caption, cell),
            functools.partial(captions.cell_confusion_alt, cell),
        )
        if picture is not None:
            yield picture


def _data(ablation: Ablation) -> str:
    counts = ablation.class_counts
    sizes = ""
    if counts:
        even = min(counts) == max(counts)
        sizes = f" of {count(min(counts))}{'' if even else f' to {count(max(counts))}'} samples"
    text = (
        f"Dataset {shown(ablation.dataset)}: {count(ablation.num_samples)} samples, {count(len(ablation.classes))} "
        f"classes{sizes} ({listed(ablation.classes, 20)})."
    )
    if ablation.num_missing:
        text += f" {count(ablation.num_missing)} samples lack a feature and are left out."
    return text
