"""Arms of an ablation: the same with one setting changed, so that a difference can be laid to that setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fovcache.errors import UsageError

from .heads.head import make_head

if TYPE_CHECKING:
    from .config import AblationConfig

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TABLES = {"head": "kind", "split": "kind"}
"""A table whose settings depend on one of them is one setting where that one differs; so is an encoder's."""
_ENCODER = "encoder"


def merged(
    base: Mapping[str, Any], arm: Mapping[str, Any], name: str = "", tables: Mapping[str, str] = _TABLES
) -> dict[str, Any]:
    """The tables of a TOML file with those of an arm laid over them.

    Where an arm changes the kind in one of `tables`, such as a head's, what the base says of the other kind falls away.
    """
    kind = tables.get(name)
    if kind is not None and kind in arm and arm[kind] != base.get(kind):
        return dict(arm)
    found = dict(base)
    for key, value in arm.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            found[key] = merged(below, value, f"{name}.{key}" if name else key, tables)
        else:
            found[key] = value
    return found


def check_names(names: Iterable[str]) -> None:
    """Raises UsageError for an arm's name that no folder should have, or that is another's but for case."""
    lower: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"[arms]: arm {name!r}: a name is made of up to 80 letters, digits, '_' and '-'")
        other = lower.setdefault(name.lower(), name)
        if other != name:
            raise UsageError(f"[arms]: {other!r} and {name!r} are one name where case does not count: rename one")


def check_arms(config: AblationConfig) -> None:
    """Raises UsageError for an arm with a name that no folder should have, or that is not one setting away."""
    check_names(config.arms)
    for name, arm in config.arms.items():
        if arm.arms:
            raise UsageError(f"[arms.{name}]: an arm has no arms of its own")
        found = list(changed_settings(config, arm))
        if not found:
            raise UsageError(f"[arms.{name}]: it does not differ from the base: change one setting")
        if len(found) > 1:
            raise UsageError(
                f"[arms.{name}]: it differs from the base in {len(found)} settings ({', '.join(found)}), so that no "
                "difference could be laid to one of them: make it several arms"
            )


def changed_settings(base: AblationConfig, arm: AblationConfig) -> dict[str, tuple[Any, Any]]:
    """Settings by their dotted names, with their values in base and arm; None for what is not there."""
    of_base, of_arm = dict(_settings(base)), dict(_settings(arm))
    names = [name for name in {**of_base, **of_arm} if of_base.get(name) != of_arm.get(name)]
    found: dict[str, tuple[Any, Any]] = {}
    for name in names:
        table = name.rpartition(".")[0]
        deciding = f"{table}.{_TABLES.get(table, _ENCODER if table.startswith('encoders.') else '')}"
        if deciding in names:
            found[table] = _table(of_base, table), _table(of_arm, table)
        else:
            found[name] = of_base.get(name), of_arm.get(name)
    return found


def _table(settings: Mapping[str, Any], table: str) -> dict[str, Any]:
    under = f"{table}."
    return {name.removeprefix(under): value for name, value in settings.items() if name.startswith(under)}


def _settings(config: AblationConfig) -> Iterator[tuple[str, Any]]:
    """All that decides something, with defaults filled in."""
    for name in ("cache", "dataset", "single_layers", "device"):
        yield name, getattr(config, name)
    for name in ("seeds", "seeds_vary"):
        yield name, list(getattr(config, name))
    yield "representations", [each.label for each in config.representations]
    for alias, encoder in config.encoders.items():
        yield from ((f"encoders.{alias}.{key}", value) for key, value in asdict(encoder).items() if value is not None)
    for experiment, globs in config.experiments.items():
        yield f"experiments.{experiment}", list(globs)
    head = make_head(config.head.kind, config.head.settings).document()
    assert isinstance(head, Mapping)
    yield "head.kind", config.head.kind
    yield from ((f"head.{key}", value) for key, value in head.items() if key != "name")
    for table, choice in (("split", config.split), ("controls", config.controls)):
        yield from ((f"{table}.{key}", value) for key, value in asdict(choice).items())
