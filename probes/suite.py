"""Running an ablation with its arms, and comparing each with the base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, silent
from fovcache.builder.request import pick_device

from .arm_comparison import compare_arms
from .arms import changed_settings
from .config import AblationConfig
from .result import ARMS_FILE, ARMS_FORMAT, Ablation, ArmComparison
from .run import executor, run_task
from .running.memory import check_memory
from .running.result_folder import write_files
from .running.task import open_task
from .running.teller import Teller
from .tables.page import PAGE_FILE, page

ARMS_FOLDER = "arms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A base and its arms."""

    base: Ablation
    """What the configuration says without its arms."""
    arms: Mapping[str, Ablation]
    """By name; empty where the configuration has none."""
    comparisons: tuple[ArmComparison, ...]
    """One for each arm."""

    @property
    def exit_status(self) -> int:
        """1 where a cell failed."""
        return max(each.exit_status for each in (self.base, *self.arms.values()))

    def arms_document(self) -> dict[str, Any]:
        """As ARMS_FILE has it."""
        return {"format": ARMS_FORMAT, "base": self.base.name, "arms": [asdict(each) for each in self.comparisons]}

    def document(self) -> dict[str, Any]:
        """As `--json` has it: the base's, and of what has arms these."""
        return {**self.base.document(), **({"arms": self.arms_document()} if self.arms else {})}


def run_suite(
    config: AblationConfig,
    out: Path,
    on_progress: OnProgress = silent,
    *,
    environment: Mapping[str, Any] | None = None,
    isolate: bool = False,
    timeout_s: float | None = None,
) -> Suite:
    """`run_ablation` of the base in `out`, and of each arm in `out / "arms" / NAME`; their differences in ARMS_FILE.

    What cannot be done as asked is refused before anything is computed, whichever arm it is of. Raises what
    `run_ablation` does.
    """
    with executor(isolate=isolate, timeout_s=timeout_s) as work:
        configs = {"": replace(config, arms={}), **config.arms}
        tasks = {name: open_task(each) for name, each in configs.items()}
        rooms = {name: check_memory(task, pick_device(task.config.device)) for name, task in tasks.items()}
        folders = {name: out / ARMS_FOLDER / name if name else out for name in tasks}
        teller = Teller(list(tasks.values()), on_progress)
        found = {
            name: run_task(task, rooms[name], folders[name], work, teller, environment) for name, task in tasks.items()
        }
    base = found.pop("")
    if not found:
        (out / ARMS_FILE).unlink(missing_ok=True)  # of a configuration that had some
        return Suite(base=base, arms={}, comparisons=())
    comparisons = compare_arms(
        tasks, folders, {"": base, **found}, {name: changed_settings(config, arm) for name, arm in config.arms.items()}
    )
    suite = Suite(base=base, arms=found, comparisons=comparisons)
    text = json.dumps(suite.arms_document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_files(out, {PAGE_FILE: page(base, comparisons).encode(), ARMS_FILE: text.encode()})
    return suite
