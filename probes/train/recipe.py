"""Recipes: the settings that a configuration's `[train]` is laid over."""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..toml_table import TomlTable, parse_toml, read_toml
from .settings import TrainSettings

STANDARD = "standard"
_NAMES = tuple(each.name for each in fields(TrainSettings))


def read_settings(top: TomlTable, folder: Path) -> TrainSettings:
    """`[train]` laid over the recipe that `recipe` names: `standard`, or a TOML file of the same keys.

    Raises UsageError in a line that names the file and the key, EnvironmentFailure.
    """
    recipe = top.text("recipe", STANDARD) or STANDARD
    own = top.table("train", _NAMES)
    below = _standard() if recipe == STANDARD else read_toml(folder / recipe, _NAMES)
    values = {**_raw(_standard()), **_raw(below), **({} if own is None else _raw(own))}
    table = own or below
    return table.make(_settings, table=table, values=values)


def standard(**changes: Any) -> TrainSettings:
    """The STANDARD recipe with some settings changed. Raises UsageError."""
    table = _standard()
    return _settings(table, {**_raw(table), **changes})


def _standard() -> TomlTable:
    text = (files(__package__) / "standard.toml").read_text(encoding="utf-8")
    return parse_toml(text, "standard.toml", _NAMES)


def _raw(table: TomlTable) -> dict[str, Any]:
    return {key: table.raw(key) for key in table.keys}


def _settings(table: TomlTable, values: dict[str, Any]) -> TrainSettings:
    return TrainSettings(**{name: _typed(table, name, value) for name, value in values.items()})


_LISTS = ("betas", "parts", "trackers")
_TEXTS = ("schedule", "precision", "out_of_memory")
_FLAGS = ("compile",)
_NUMBERS = ("learning_rate", "weight_decay", "epsilon", "clip_norm")


def _typed(table: TomlTable, name: str, value: Any) -> Any:
    """A value of the setting's type."""
    expected: type | tuple[type, ...]
    if name in _LISTS:
        expected, said = (list, tuple), "a list"
    elif name in _TEXTS:
        expected, said = str, "a text"
    elif name in _FLAGS:
        expected, said = bool, "true or false"
    elif name in _NUMBERS:
        expected, said = (int, float), "a number"
    else:
        expected, said = int, "a whole number"
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise table.error(f"{name} = {value!r}, expected {said}")
    if not isinstance(value, list | tuple):
        return value
    of = float if name == "betas" else str
    if not all(isinstance(item, (int, float) if of is float else str) for item in value):
        raise table.error(f"{name} holds {value!r}, expected {'numbers' if of is float else 'texts'}")
    return tuple(of(item) for item in value)
