"""Dataclasses out of the plain JSON that `dataclasses.asdict` made of them, each value of the type it must have."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def revive(kind: Any, value: Any) -> Any:
    """A value of an annotated type. Raises AttributeError, KeyError, TypeError, ValueError for what is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else revive(arguments[0], value)
    if origin in (dict, Mapping):
        return {str(name): revive(arguments[1], item) for name, item in value.items()}
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} where a list was expected")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(revive(each, item) for each, item in zip(kinds, value, strict=True))
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {each.name for each in fields(kind)}
        if unknown := sorted(set(value) - known):
            raise ValueError(f"unknown field {unknown[0]!r} in {kind.__name__}")
        return kind(**{name: revive(hints[name], item) for name, item in value.items()})
    expected = (int, float) if kind is float else kind
    if kind is not Any and (not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool)):
        raise ValueError(f"{value!r} where a value of type {kind.__name__} was expected")
    return value
