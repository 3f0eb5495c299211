"""All runs of a configuration: done in processes of their own, gone on with where they were, judged together."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, silent
from fovcache.errors import DamageError, UsageError, environment_failure

from ...running.result_folder import LOCK_FILE, lock_file, write_files
from ..config import STREAM
from ..result import BASE, DONE, MAIN, RESULT_FILE, Run, TrainSuite
from ..stepping.processes import num_ranks
from .page import PAGE_FILE, page
from .run_folder import check_configuration, feed_document, found_run, is_begun
from .run_processes import Asked, OnPlan, unheard
from .suite_config import ALL_RUNS, Cell, Only, SuiteConfig
from .suite_work import SuiteWork
from .verdict import judge, judge_control

logger = logging.getLogger(__name__)

PLAN_FOLDER = ".plan"
_GO_ON = "runs that are done are kept, and those at work were saved: the same command with --resume goes on"


def run_suite(
    config: SuiteConfig,
    out: Path,
    *,
    resume: bool = False,
    jobs: int = 1,
    only: Only = ALL_RUNS,
    on_progress: OnProgress = silent,
    environment: Mapping[str, Any] | None = None,
    plan_only: bool = False,
    on_plan: OnPlan = unheard,
) -> TrainSuite:
    """Do the runs of a configuration that are not done yet, each in `out / ARM / seed-N`, and judge all that there are.

    At most `jobs` at a time share this process's threads. A run that fails is shown as failed, and the others go on.
    What ends this call early, a signal that raises, makes runs save and end first. Started by torchrun, exactly one run
    must be wanted, and it is done in this process, which is one of its ranks. `on_plan` is told of each run before it
    trains, unless it goes on from a checkpoint.

    `train.json` and `train.md` are of all runs of the configuration that `out` has, also of earlier calls. With
    `plan_only` nothing is trained and nothing is left in `out`: one run of each arm and task holds its plan.

    Raises UsageError for a folder of something else, an unfinished run without `resume`, a run that was begun with
    another configuration, and runs with different validation sets; what the first run raised where all of them raised
    something; EnvironmentFailure.
    """
    started = time.perf_counter()
    cells = only.of(config)
    if jobs < 1:
        raise UsageError(f"{jobs} jobs, expected at least 1")
    suite = _Suite(config, out, environment, started)
    if num_ranks() > 1:
        return _as_rank(suite, cells, resume=resume, on_progress=on_progress, plan_only=plan_only, on_plan=on_plan)
    if plan_only:
        return _planned(suite, cells, jobs, on_progress, on_plan)
    with _locked(out):
        asked = list(_asked(out, cells, resume=resume))
        _check_inputs(asked)
        work = SuiteWork(asked, jobs, on_progress, on_plan)
        try:
            work.do()
        except BaseException as stopped:
            work.stop()
            suite.write(work.ended)
            stopped.add_note(_GO_ON)
            raise
        if asked and len(work.errors) == len(asked):
            raise work.errors[0]
        return suite.write(work.ended)


class _Suite:
    """A configuration's results in its folder."""

    def __init__(self, config: SuiteConfig, out: Path, environment: Mapping[str, Any] | None, started: float) -> None:
        self.config, self.out = config, out
        self._environment, self._started = environment, started

    def write(self, ended: Mapping[str, Run]) -> TrainSuite:
        """Judge what there is, and write it. Raises what the verdict raises, after that without one was written."""
        runs, warnings = self._runs(ended)
        found = self.made(runs, warnings)
        try:
            found = self._judged(found)
        except UsageError as error:
            self._put(replace(found, warnings=(*found.warnings, str(error))))
            raise
        self._put(found)
        return found

    def made(self, runs: Sequence[Run], warnings: Sequence[str] = ()) -> TrainSuite:
        """Of some runs, without a verdict."""
        config, base = self.config, self.config.base
        places = (self.out / cell.place for cell in config.cells)
        return TrainSuite(
            name=config.name,
            cache=base.cache,
            dataset=_dataset_of(config),
            model=dict(base.trainable().document()),
            settings=asdict(base.train),
            data=next((found for place in places if (found := feed_document(place))), {}),
            arms={name: arm.change.words() for name, arm in config.arms.items()},
            control=config.control.change.words() if config.control else "",
            runs=tuple(runs),
            verdict=None,
            environment=dict(self._environment or {}),
            seconds=time.perf_counter() - self._started,
            warnings=tuple(warnings),
        )

    def _judged(self, suite: TrainSuite) -> TrainSuite:
        choice = self.config.verdict
        if choice is None:
            return suite
        return replace(suite, verdict=judge(suite.runs, choice), control_verdict=judge_control(suite.runs, choice))

    def _runs(self, ended: Mapping[str, Run]) -> tuple[list[Run], list[str]]:
        runs, warnings, num_absent = [], [], 0
        for cell in self.config.cells:
            folder = self.out / cell.place
            try:
                check_configuration(folder, cell.config)
            except UsageError as error:
                warnings.append(f"{cell} is left out: {error}")
                continue
            run = ended.get(cell.place) or found_run(folder)
            if run is None:
                num_absent += 1
            else:
                runs.append(run)
        if num_absent:
            warnings.append(f"{num_absent} of {len(self.config.cells)} runs are not there yet")
        return runs, warnings

    def _put(self, suite: TrainSuite) -> None:
        text = json.dumps(suite.document(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_files(self.out, {PAGE_FILE: page(suite).encode(), RESULT_FILE: text.encode()})


def _asked(out: Path, cells: Sequence[Cell], *, resume: bool) -> Iterator[Asked]:
    """Those that are not done. Raises UsageError before anything is begun."""
    for cell in cells:
        folder = out / cell.place
        check_configuration(folder, cell.config)
        found = found_run(folder)
        if found is not None and found.state == DONE:
            continue
        if is_begun(folder) and not resume:
            how = "it was killed" if found is None else f"it {found.state}, {found.reason}"
            raise UsageError(
                f"{folder} holds a run that is not finished ({how}): add --resume to go on with it, or choose another "
                "--out"
            )
        yield Asked(cell=cell, folder=folder, resume=resume)


def _check_inputs(asked: Sequence[Asked]) -> None:
    """Raises what is wrong with the cache for any of several runs, before the first of them begins."""
    from ..feeds.opening import open_inputs

    configs = {(each.cell.arm, each.cell.task): each.cell.config for each in asked}
    for (arm, task), config in configs.items() if len(asked) > 1 else ():
        if config.data.kind == STREAM:
            continue
        try:
            open_inputs(config, config.trainable().needs())
        except UsageError as error:
            if (arm, task) == (BASE, MAIN):
                raise
            raise type(error)(f"{arm}{'' if task == MAIN else ', control'}: {error}") from None


def _planned(suite: _Suite, cells: Sequence[Cell], jobs: int, on_progress: OnProgress, on_plan: OnPlan) -> TrainSuite:
    """The first seed of each arm and task, measured on the disk that `out` is on, which is as before afterwards."""
    first = list({(cell.arm, cell.task): cell for cell in reversed(cells)}.values())[::-1]
    folder = suite.out / PLAN_FOLDER
    asked = [Asked(cell=cell, folder=folder / cell.place, plan_only=True) for cell in first]
    with _locked(suite.out):
        _check_inputs(asked)
        work = SuiteWork(asked, jobs, on_progress, on_plan)
        try:
            work.do()
        finally:
            work.stop()
            shutil.rmtree(folder, ignore_errors=True)
    if work.errors:
        raise work.errors[0]
    return suite.made([work.ended[cell.place] for cell in first])


def _as_rank(
    suite: _Suite,
    cells: Sequence[Cell],
    *,
    resume: bool,
    on_progress: OnProgress,
    plan_only: bool,
    on_plan: OnPlan,
) -> TrainSuite:
    """One run, all ranks of which call this; the first one writes."""
    from ..run import train_run

    if len(cells) != 1:
        raise UsageError(
            f"torchrun's processes do one run together, and {len(cells)} are wanted: choose one by its arm, its task "
            "and its seed"
        )
    (cell,) = cells
    folder = suite.out / cell.place
    with _locked(suite.out) if is_first_rank() else nullcontext():
        check_configuration(folder, cell.config)
        run = train_run(
            cell.config,
            folder,
            seed=cell.seed,
            arm=cell.arm,
            task=cell.task,
            resume=resume,
            plan_only=plan_only,
            on_progress=on_progress,
            on_plan=lambda plan: on_plan(cell, plan),
        )
        return suite.made([run]) if plan_only or not is_first_rank() else suite.write({cell.place: run})


def is_first_rank() -> bool:
    """Whether this process is the one that writes and prints."""
    return num_ranks() == 1 or os.environ.get("RANK", "0") == "0"


def _dataset_of(config: SuiteConfig) -> str:
    """Its name; of a stream its sources."""
    from fovcache.cache import open_cache
    from fovcache.store.refs import find_ref

    base = config.base
    if base.data.kind == STREAM:
        return ", ".join(base.document()["data.sources"])
    try:
        return find_ref(open_cache(base.cache_path, create=False).storage, base.dataset).name
    except (DamageError, UsageError):  # the cache may be gone when its runs are judged again
        return base.dataset or ""


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder, made where there is none; nobody else runs there meanwhile. A made one that stays empty goes again.

    Raises UsageError, EnvironmentFailure.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, expected a folder or a name that is free")
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / LOCK_FILE).exists():
            raise UsageError(f"--out {out} holds something else: choose an empty or new folder")
        was_there = out.exists()
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK_FILE).open("ab")
    except OSError as error:
        raise environment_failure(error, f"write {out}") from error
    with lock:
        lock_file(lock, out)
        try:
            yield
        finally:
            if not was_there and [path.name for path in out.iterdir()] == [LOCK_FILE]:
                (out / LOCK_FILE).unlink()
                out.rmdir()
