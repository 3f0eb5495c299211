"""What one configuration of training changes of another, so that a difference can be laid to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fovcache.errors import UsageError

from ..config import TrainConfig

KIND_TABLES = {"model": "kind", "data": "kind"}
"""A table whose settings depend on its kind is one setting where that differs."""
_MODEL, _INPUTS = "model", "inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The one setting in which a configuration differs from its baseline."""

    setting: str
    """Its dotted name."""
    value: Any
    """In the configuration; None where it is not there."""
    before: Any
    """In the baseline; None where it is not there."""
    baseline: str
    """What it differs from: an arm's name, or a task's."""

    def words(self) -> str:
        """`model.mode = "coarse" (base: "fine")`."""
        return f"{self.setting} = {_shown(self.value)} ({self.baseline}: {_shown(self.before)})"


def one_change(before: TrainConfig, after: TrainConfig, *, baseline: str) -> Change:
    """Raises UsageError where they differ in no setting, or in several, which it names."""
    found = changed(before, after)
    if not found:
        raise UsageError(f"it does not differ from {baseline}: change one setting")
    if len(found) > 1:
        raise UsageError(
            f"it differs from {baseline} in {len(found)} settings ({', '.join(found)}), so that no difference could be "
            "laid to one of them: make it several arms, or name another arm as its `baseline`"
        )
    ((setting, (old, new)),) = found.items()
    return Change(setting=setting, value=new, before=old, baseline=baseline)


def changed(before: TrainConfig, after: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings by their dotted names, with both values; None for what is not there.

    What is said of an input that only one of the two models reads follows from the model, and is no change of its own.
    """
    old, new = before.document(), after.document()
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    read = [config.trainable().needs().keys() for config in (before, after)]
    if any(name.startswith(f"{_MODEL}.") for name in names):
        names = [name for name in names if not _follows(name, read[0] ^ read[1])]
    found: dict[str, tuple[Any, Any]] = {}
    for name in names:
        table = name.partition(".")[0]
        if f"{table}.{KIND_TABLES.get(table, '')}" in names:
            found[table] = _table(old, table), _table(new, table)
        else:
            found[name] = old.get(name), new.get(name)
    return found


def _follows(name: str, read_by_one: set[str]) -> bool:
    table, _, rest = name.partition(".")
    return table == _INPUTS and rest.rpartition(".")[0] in read_by_one


def _table(settings: Mapping[str, Any], table: str) -> dict[str, Any]:
    under = f"{table}."
    return {name.removeprefix(under): value for name, value in settings.items() if name.startswith(under)}


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
