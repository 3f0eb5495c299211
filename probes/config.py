"""The configuration of an ablation: what `fovbench ablate` reads, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fovcache.derived.representation import known_representations
from fovcache.errors import UsageError, nearest
from fovcache.keys.recipe import POOLINGS, STORE_DTYPES

from .arms import check_arms, merged
from .choices import ControlChoice as ControlChoice  # as all of these: for whoever makes a configuration
from .choices import EncoderChoice as EncoderChoice
from .choices import HeadChoice as HeadChoice
from .choices import RepresentationChoice as RepresentationChoice
from .choices import SplitChoice as SplitChoice
from .heads.head import HEADS, RIDGE, head_settings
from .splits import INDEPENDENT, KINDS, RESPLIT
from .toml_table import TomlTable, read_toml

DEFAULT_SEEDS = 5
SPLIT, INITIALISATION, ORDER = "split", "initialisation", "order"
SEEDED = (SPLIT, INITIALISATION, ORDER)
"""What a seed can decide: the last two of a head that is trained by steps."""
TOP_KEYS = ("cache", "dataset", "seeds", "seeds_vary", "representations", "single_layers", "device")
TABLE_KEYS = {
    "split": ("kind", "test", "validation", "group", "shots"),
    "controls": ("shuffled_labels", "random_layers"),
}
_KEYS = (*TOP_KEYS, "encoders", "experiments", "head", *TABLE_KEYS)
ENCODER_KEYS = ("encoder", "weights", "pool", "store_dtype", "recipe")
NOT_BY_DEFAULT = ("flat_vec",)
"""As many numbers as a layer has: only where it is asked for."""
_ALIAS = re.compile(r"[A-Za-z0-9_-]+")
_MAX_SEED = 2**31 - 1


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
    arms: Mapping[str, AblationConfig] = field(default_factory=dict)
    """By name: ablations that differ from this one in one setting each. They have no arms of their own."""

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
        if self.split.kind == INDEPENDENT and SPLIT not in self.seeds_vary:
            raise UsageError(
                f'kind = "{INDEPENDENT}" gives each seed samples of its own, and seeds_vary leaves out {SPLIT!r}: name '
                f'it there, or set kind = "{RESPLIT}"'
            )
        for alias in self.encoders:
            if not _ALIAS.fullmatch(alias):
                raise UsageError(f"encoder {alias!r}: an alias is made of letters, digits, '_' and '-'")
        for name, globs in self.experiments.items():
            if not name.strip() or not globs:
                raise UsageError(f"experiment {name!r} names no layers, expected a list of globs")

        check_arms(self)

    @property
    def cache_path(self) -> Path:
        """The cache's folder."""
        return self.folder / self.cache


def read_config(path: Path) -> AblationConfig:
    """The configuration in a TOML file. Raises UsageError, each time in one line with the file's name."""
    top = read_toml(path, (*_KEYS, "arms"))
    base = _config(top, path, path.stem)
    arms = top.table("arms", None)
    if arms is None:
        return base
    below = {key: top.raw(key) for key in top.keys if key != "arms"}
    found = {}
    for name in arms.keys:
        arm = arms.table(name, _KEYS)
        assert arm is not None
        values = merged(below, {key: arm.raw(key) for key in arm.keys})
        found[name] = _config(TomlTable(values, file=f"{path}: [arms.{name}]", known=_KEYS), path, name)
    return _named(path, lambda: replace(base, arms=found))


def with_device(config: AblationConfig, device: str | None) -> AblationConfig:
    """The same, and its arms, on another device; None changes nothing.

    Raises UsageError where the device is what an arm changes.
    """
    if device is None:
        return config
    return replace(config, device=device, arms={name: replace(arm, device=device) for name, arm in config.arms.items()})


def _config(top: TomlTable, path: Path, name: str) -> AblationConfig:
    return _named(
        top.file,
        lambda: AblationConfig(
            name=name,
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
        ),
    )


def _named(file: object, make: Callable[[], AblationConfig]) -> AblationConfig:
    """What is made; what is refused names the file."""
    try:
        return make()
    except UsageError as error:
        if str(error).startswith(f"{file}: "):
            raise
        raise UsageError(f"{file}: {error}") from None


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
        shots=_shots(table),
    )


def _shots(table: TomlTable) -> int | None:
    value = table.raw("shots")
    if value is None:
        return None
    if _is_whole(value, least=1):
        return int(value)
    raise table.error(f"shots = {value!r}, expected how many samples of each class train has, at least 1")


def _head(top: TomlTable) -> HeadChoice:
    table = top.table("head", None)
    if table is None:
        return HeadChoice()
    kind = table.text("kind", RIDGE, allowed=HEADS) or RIDGE
    known = ("kind", *head_settings(kind))
    for key in table.keys:
        if key not in known:
            raise table.error(f"a {kind} head has no setting {key!r}{nearest(key, known)}")
    settings = {key: table.raw(key) for key in table.keys if key != "kind"}
    return table.make(HeadChoice, kind=kind, settings=settings)


def _controls(top: TomlTable) -> ControlChoice:
    table = top.table("controls", TABLE_KEYS["controls"])
    if table is None:
        return ControlChoice()
    return ControlChoice(
        shuffled_labels=table.flag("shuffled_labels", True), random_layers=table.flag("random_layers", True)
    )
