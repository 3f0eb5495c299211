"""The configuration of a whole suite: the base, its arms, its seeds, the negative control, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fovcache.errors import UsageError, nearest

from ...arms import check_names, merged
from ...toml_table import TomlTable
from ..config import DEFAULT_SEEDS, KEYS, TrainConfig, VerdictChoice, read_cell, read_top
from ..result import BASE, CONTROL, MAIN
from .changes import KIND_TABLES, Change, one_change

CELL_KEYS = tuple(key for key in KEYS if key != "seeds")
VERDICT_ARMS = ("coarse", "coarse_matched", "random", "shuffled")
CONTROL_SUFFIX = "-control"
_MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The same as its baseline but for one setting."""

    config: TrainConfig
    """All of it."""
    change: Change
    """What it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTask:
    """A task on which a finer look cannot help."""

    change: Change
    """What makes it of the main task."""
    configs: Mapping[str, TrainConfig]
    """By arm, the base first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run that the configuration asks for."""

    arm: str
    """BASE, or the arm's name."""
    task: str
    """MAIN or CONTROL."""
    seed: int
    """Of the run."""
    config: TrainConfig
    """Of the arm on the task."""

    @property
    def place(self) -> str:
        """Its folder in the suite's."""
        return f"{self.arm}{CONTROL_SUFFIX if self.task == CONTROL else ''}/seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.arm}, {'' if self.task == MAIN else 'control, '}seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteConfig:
    """Everything that `fovbench train` was asked for, checked."""

    name: str
    """The file's, without its ending."""
    base: TrainConfig
    """What the configuration says without its arms."""
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    """One run of each arm for each."""
    arms: Mapping[str, Arm] = field(default_factory=dict)
    """By name."""
    control: ControlTask | None = None
    """None where there is none."""
    verdict: VerdictChoice | None = None
    """None where none is asked for."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UsageError("there are no seeds, expected at least one")
        twice = [seed for seed in dict.fromkeys(self.seeds) if self.seeds.count(seed) > 1]
        if twice:
            raise UsageError(f"seeds holds {twice[0]} twice")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All runs, seed by seed, so that what is done first already has all arms."""
        return tuple(
            Cell(arm=arm, task=task, seed=seed, config=config)
            for seed in self.seeds
            for arm, task, config in self._configs()
        )

    def _configs(self) -> Iterator[tuple[str, str, TrainConfig]]:
        yield BASE, MAIN, self.base
        yield from ((name, MAIN, arm.config) for name, arm in self.arms.items())
        if self.control is not None:
            yield from ((name, CONTROL, config) for name, config in self.control.configs.items())

    def on_device(self, device: str | None) -> SuiteConfig:
        """The same on another device; None changes nothing. Raises UsageError where an arm changes the device."""
        if device is None:
            return self
        for name, arm in self.arms.items():
            if arm.change.setting == "device":
                raise UsageError(f"--device {device}: arm {name} differs by its device: leave the option out")
        return replace(
            self,
            base=replace(self.base, device=device),
            arms={name: replace(arm, config=replace(arm.config, device=device)) for name, arm in self.arms.items()},
            control=None
            if self.control is None
            else replace(
                self.control,
                configs={name: replace(each, device=device) for name, each in self.control.configs.items()},
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Which runs are wanted; empty for all."""

    arms: tuple[str, ...] = ()
    """BASE and arms, by name."""
    seeds: tuple[int, ...] = ()
    """Of those that the configuration names."""
    tasks: tuple[str, ...] = ()
    """MAIN, CONTROL."""

    def of(self, config: SuiteConfig) -> tuple[Cell, ...]:
        """Raises UsageError for what the configuration has not."""
        known = {
            "arm": (self.arms, (BASE, *config.arms)),
            "seed": (self.seeds, config.seeds),
            "task": (self.tasks, tuple(dict.fromkeys(cell.task for cell in config.cells))),
        }
        for what, (wanted, there) in known.items():
            for each in wanted:
                if each not in there:
                    raise UsageError(f"the configuration has no {what} {each}{nearest(str(each), map(str, there))}")
        found = tuple(
            cell
            for cell in config.cells
            if (not self.arms or cell.arm in self.arms)
            and (not self.seeds or cell.seed in self.seeds)
            and (not self.tasks or cell.task in self.tasks)
        )
        if not found:
            raise UsageError("the configuration has no run of these arms, seeds and tasks together")
        return found


ALL_RUNS = Only()


def read_suite_config(path: Path) -> SuiteConfig:
    """The configuration in a TOML file. Raises UsageError, each time in one line with the file's name."""
    top = read_top(path)
    raw = {key: top.raw(key) for key in top.keys if key in CELL_KEYS}
    raws = {BASE: raw, **_arms(top, raw, path)}
    configs = {name: read_cell(_table(values, path, name), path.parent) for name, values in raws.items()}
    arms = {}
    for name in list(configs)[1:]:
        baseline = _baseline(top, name)
        change = _named(path, f"arms.{name}", lambda b=baseline, n=name: one_change(configs[b], configs[n], baseline=b))
        arms[name] = Arm(config=configs[name], change=change)
    verdict = _verdict(top, arms)
    return top.make(
        SuiteConfig,
        name=path.stem,
        base=configs[BASE],
        seeds=_seeds(top),
        arms=arms,
        control=_control(top, path, raws, configs, (verdict or VerdictChoice()).coarse),
        verdict=verdict,
    )


def _arms(top: TomlTable, base: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The tables of each arm laid over those of its baseline, in the file's order."""
    tables = top.table("arms", None)
    if tables is None:
        return {}
    top.make(lambda: check_names(tables.keys))
    for name in tables.keys:
        if name.lower() == BASE or name.lower().endswith(CONTROL_SUFFIX):
            raise top.error(f"[arms]: an arm cannot be called {name!r}: {BASE} and …{CONTROL_SUFFIX} are taken")
    own = {}
    for name in tables.keys:
        table = tables.table(name, (*CELL_KEYS, "baseline"))
        assert table is not None
        own[name] = {key: table.raw(key) for key in table.keys if key != "baseline"}
    found: dict[str, dict[str, Any]] = {BASE: dict(base)}

    def laid(name: str, waiting: tuple[str, ...]) -> dict[str, Any]:
        if name in waiting:
            raise top.error(f"[arms]: {' → '.join((*waiting, name))}: an arm cannot be its own baseline")
        if name not in found:
            below = laid(_baseline(top, name), (*waiting, name))
            found[name] = _laid(below, own[name], f"{path}: [arms.{name}]", path.parent)
        return found[name]

    return {name: laid(name, ()) for name in own}


def _table(values: Mapping[str, Any], path: Path, name: str) -> TomlTable:
    return TomlTable(values, file=str(path) if name == BASE else f"{path}: [arms.{name}]", known=CELL_KEYS)


def _baseline(top: TomlTable, name: str) -> str:
    arms = top.table("arms", None)
    arm = arms.table(name, None) if arms else None
    assert arms is not None
    assert arm is not None
    baseline = arm.text("baseline", BASE) or BASE
    if baseline != BASE and baseline not in arms:
        raise arm.error(f"baseline = {baseline!r} is no arm{nearest(baseline, (BASE, *arms.keys))}")
    return baseline


def _laid(below: Mapping[str, Any], over: Mapping[str, Any], file: str, folder: Path) -> dict[str, Any]:
    """One over the other; what is said below of inputs that the model then does not read falls away."""
    values = merged(below, over, tables=KIND_TABLES)
    inputs = values.get("inputs")
    if not isinstance(inputs, dict):
        return values
    without = TomlTable({**values, "inputs": {}}, file=file, known=CELL_KEYS)
    read, before = read_cell(without, folder).trainable().needs(), below.get("inputs", {})
    return {**values, "inputs": {key: each for key, each in inputs.items() if key in read or before.get(key) != each}}


def _control(
    top: TomlTable,
    path: Path,
    raws: Mapping[str, Mapping[str, Any]],
    configs: Mapping[str, TrainConfig],
    coarse: str,
) -> ControlTask | None:
    table = top.table("control", (*CELL_KEYS, "arms"))
    if table is None:
        return None
    names = table.texts("arms", of="names of arms")
    for name in names or ():
        if name not in configs or name == BASE:
            raise table.error(f"arms holds {name!r}{nearest(name, list(configs)[1:])}")
    arms = names or tuple(name for name in (coarse,) if name in configs)
    over = {key: table.raw(key) for key in table.keys if key != "arms"}
    found, change = {}, None
    for name in dict.fromkeys((BASE, *arms)):
        where = "control" if name == BASE else f"control]: [arms.{name}"
        file = f"{path}: [{where}]"
        values = _laid(raws[name], over, file, path.parent)
        found[name] = read_cell(TomlTable(values, file=file, known=CELL_KEYS), path.parent)
        made = _named(path, where, lambda n=name: one_change(configs[n], found[n], baseline=f"the {MAIN} task"))
        change = change or made
    assert change is not None
    return ControlTask(change=change, configs=found)


def _verdict(top: TomlTable, arms: Mapping[str, Arm]) -> VerdictChoice | None:
    table = top.table("verdict", ("metric", "tolerance", *VERDICT_ARMS))
    if table is None:
        return VerdictChoice() if arms else None
    names = {}
    for key in (key for key in VERDICT_ARMS if key in table):
        names[key] = table.required_text(key)
        if names[key] not in arms:
            raise table.error(f"{key} = {names[key]!r} is no arm{nearest(names[key], arms)}")
    default = VerdictChoice()
    return VerdictChoice(
        metric=table.text("metric", default.metric) or default.metric,
        tolerance=table.share("tolerance") or default.tolerance,
        **names,
    )


def _seeds(top: TomlTable) -> tuple[int, ...]:
    value = top.raw("seeds")
    if value is None:
        return DEFAULT_SEEDS
    if _is_whole(value, least=1):
        return tuple(range(value))
    if isinstance(value, list) and value and all(_is_whole(item, least=0) for item in value):
        return tuple(value)
    raise top.error(f"seeds = {value!r}, expected how many, at least 1, or a list of whole numbers from 0 on")


def _is_whole(value: Any, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MAX_SEED


def _named(path: Path, where: str, make: Any) -> Change:
    try:
        change: Change = make()
    except UsageError as error:
        raise UsageError(f"{path}: [{where}]: {error}") from None
    return change
