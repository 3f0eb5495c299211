"""The configuration of an ablation: what `fovbench ablate` reads, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fovcache.derived.representation import known_representations, resolve_representation
from fovcache.errors import UsageError, nearest
from fovcache.keys.recipe import POOLINGS, STORE_DTYPES

from .head import HEADS, RIDGE, make_head
from .splits import GIVEN, KINDS
from .toml_table import TomlTable, read_toml

DEFAULT_SEEDS = 5
SPLIT, INITIALISATION, ORDER = "split", "initialisation", "order"
SEEDED = (SPLIT, INITIALISATION, ORDER)
"""What a seed can decide: the last two of a head that is trained by steps."""
TOP_KEYS = ("cache", "dataset", "seeds", "seeds_vary", "representations", "single_layers", "device")
TABLE_KEYS = {
    "split": ("kind", "test", "validation", "group"),
    "controls": ("shuffled_labels", "random_layers"),
}
ENCODER_KEYS = ("encoder", "weights", "pool", "store_dtype", "recipe")
NOT_BY_DEFAULT = ("flat_vec",)
"""As many numbers as a layer has: only where it is asked for."""
_ALIAS = re.compile(r"[A-Za-z0-9_-]+")
_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationChoice:
    """A representation and what was chosen of it."""

    name: str
    """As `fovcache.derived.representation` knows it."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What is not at its default."""

    def __post_init__(self) -> None:
        resolve_representation(self.name, self.parameters)

    @property
    def label(self) -> str:
        """What results call it: `spectral`, or `spectral(method=exact)`."""
        shown = ", ".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}({shown})" if shown else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """Which features an alias stands for; what is None is not asked about."""

    encoder: str | None = None
    """Its name, or `PATH.py:FACTORY`."""
    weights: str | None = None
    """As builds were given them."""
    pool: str | None = None
    """`cls`, `mean` or `tokens`."""
    store_dtype: str | None = None
    """`bf16`, `fp16` or `fp32`."""
    recipe: str | None = None
    """The beginning of a recipe's digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """What is said about splits; None is settled by the dataset."""

    kind: str | None = None
    """`resplit`, or `given` for the dataset's own test split; None for the latter where there is one."""
    test: float | None = None
    """Share of the samples."""
    validation: float | None = None
    """Share of the samples."""
    group: bool | None = None
    """Whether a group is on one side; None for True where samples name groups."""

    def __post_init__(self) -> None:
        if self.kind == GIVEN and self.test is not None:
            raise UsageError('test is a share of a resplit, and with kind = "given" nothing reads it: leave it out')
        if (self.test or 0) + (self.validation or 0) >= 1:
            raise UsageError(f"test = {self.test} and validation = {self.validation} leave nothing to train on")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChoice:
    """What reads the labels out of the numbers."""

    kind: str = RIDGE
    """One of HEADS."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What is not at the head's own."""

    def __post_init__(self) -> None:
        make_head(self.kind, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChoice:
    """What is run beside each experiment."""

    shuffled_labels: bool = True
    """The same with labels that say nothing: it must come out at chance."""
    random_layers: bool = True
    """As many layers, drawn at random, for each experiment that does not take all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationConfig:
    """Everything that `fovbench ablate` is told."""

    name: str
    """Of the file, without its ending."""
    cache: str
    """The cache's folder, as it was given."""
    folder: Path = Path()
    """Where a relative `cache` starts."""
    dataset: str | None = None
    """Its name or digest; None for the only one there is."""
    seeds: tuple[int, ...] = tuple(range(DEFAULT_SEEDS))
    """One trial of each cell for each."""
    seeds_vary: tuple[str, ...] = SEEDED
    """What of SEEDED is another for each seed; the rest is as the first seed has it."""
    representations: tuple[RepresentationChoice, ...] = ()
    """Empty for all but those of NOT_BY_DEFAULT."""
    single_layers: bool = True
    """Also run each layer by itself: the heat map."""
    device: str = "auto"
    """Where representations are computed; heads run on the CPU. Decides nothing but the last bits."""
    encoders: Mapping[str, EncoderChoice] = field(default_factory=dict)
    """By alias; empty where the dataset has features of one encoder, pooling and dtype."""
    experiments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Layer globs by name, with `ALIAS:` in front where there are several encoders; empty for all layers of each."""
    split: SplitChoice = field(default_factory=SplitChoice)
    """How samples are divided."""
    head: HeadChoice = field(default_factory=HeadChoice)
    """What is fitted."""
    controls: ControlChoice = field(default_factory=ControlChoice)
    """What is run beside."""

    def __post_init__(self) -> None:
        if not self.representations:
            names = [name for name in known_representations() if name not in NOT_BY_DEFAULT]
            object.__setattr__(self, "representations", tuple(RepresentationChoice(name=name) for name in names))
        if not self.seeds:
            raise UsageError("there are no seeds, expected at least one")
        for what, values in (
            ("seeds", self.seeds),
            ("seeds_vary", self.seeds_vary),
            ("representations", tuple(each.label for each in self.representations)),
        ):
            twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
            if twice:
                raise UsageError(f"{what} holds {twice[0]!r} twice")
        for what in self.seeds_vary:
            if what not in SEEDED:
                raise UsageError(f"seeds_vary holds {what!r}{nearest(what, SEEDED)}")
        for alias in self.encoders:
            if not _ALIAS.fullmatch(alias):
                raise UsageError(f"encoder {alias!r}: an alias is made of letters, digits, '_' and '-'")
        for name, globs in self.experiments.items():
            if not name.strip() or not globs:
                raise UsageError(f"experiment {name!r} names no layers, expected a list of globs")

    @property
    def cache_path(self) -> Path:
        """The cache's folder."""
        return self.folder / self.cache


def read_config(path: Path) -> AblationConfig:
    """The configuration in a TOML file. Raises UsageError, each time in one line with the file's name."""
    top = read_toml(path, (*TOP_KEYS, "encoders", "experiments", "head", *TABLE_KEYS))
    try:
        return AblationConfig(
            name=path.stem,
            cache=top.required_text("cache"),
            folder=path.parent,
            dataset=top.text("dataset"),
            seeds=_seeds(top),
            seeds_vary=top.texts("seeds_vary", of=f"some of {', '.join(SEEDED)}") or SEEDED,
            representations=_representations(top),
            single_layers=top.flag("single_layers", True),
            device=top.text("device", "auto") or "auto",
            encoders=_encoders(top),
            experiments=_experiments(top),
            split=_split(top),
            head=_head(top),
            controls=_controls(top),
        )
    except UsageError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise UsageError(f"{path}: {error}") from None


def _seeds(top: TomlTable) -> tuple[int, ...]:
    value = top.raw("seeds")
    if value is None:
        return tuple(range(DEFAULT_SEEDS))
    if _is_whole(value, least=1):
        return tuple(range(value))
    if isinstance(value, list) and value and all(_is_whole(item, least=0) for item in value):
        return tuple(value)
    raise top.error(f"seeds = {value!r}, expected how many, at least 1, or a list of whole numbers from 0 on")


def _is_whole(value: Any, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MAX_SEED


def _representations(top: TomlTable) -> tuple[RepresentationChoice, ...]:
    return tuple(_representation(top, item) for item in top.array("representations", of="names") or ())


def _representation(top: TomlTable, item: Any) -> RepresentationChoice:
    values = {"name": item} if isinstance(item, str) else item
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise top.error(f'representations holds {item!r}, expected a name or {{name = "…", …}}')
    parameters = {key: value for key, value in values.items() if key != "name"}
    return RepresentationChoice(name=values["name"], parameters=parameters)


def _encoders(top: TomlTable) -> dict[str, EncoderChoice]:
    tables = top.table("encoders", None)
    return {} if tables is None else {alias: _encoder(tables, alias) for alias in tables.keys}


def _encoder(tables: TomlTable, alias: str) -> EncoderChoice:
    table = tables.table(alias, ENCODER_KEYS)
    assert table is not None
    return EncoderChoice(
        encoder=table.text("encoder"),
        weights=table.text("weights"),
        pool=table.text("pool", allowed=POOLINGS),
        store_dtype=table.text("store_dtype", allowed=STORE_DTYPES),
        recipe=table.text("recipe"),
    )


def _experiments(top: TomlTable) -> dict[str, tuple[str, ...]]:
    table = top.table("experiments", None)
    if table is None:
        return {}
    if not table.keys:
        raise table.error("there are no experiments; leave the table out for all layers")
    return {name: table.texts(name, of="layer globs") or () for name in table.keys}


def _split(top: TomlTable) -> SplitChoice:
    table = top.table("split", TABLE_KEYS["split"])
    if table is None:
        return SplitChoice()
    return table.make(
        SplitChoice,
        kind=table.text("kind", allowed=KINDS),
        test=table.share("test"),
        validation=table.share("validation"),
        group=table.optional_flag("group"),
    )


def _head(top: TomlTable) -> HeadChoice:
    table = top.table("head", None)
    if table is None:
        return HeadChoice()
    settings = {key: table.raw(key) for key in table.keys if key != "kind"}
    return table.make(HeadChoice, kind=table.text("kind", RIDGE, allowed=HEADS), settings=settings)


def _controls(top: TomlTable) -> ControlChoice:
    table = top.table("controls", TABLE_KEYS["controls"])
    if table is None:
        return ControlChoice()
    return ControlChoice(
        shuffled_labels=table.flag("shuffled_labels", True), random_layers=table.flag("random_layers", True)
    )
