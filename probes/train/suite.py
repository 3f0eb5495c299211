"""All runs of a configuration: done in processes of their own, gone on with where they were, judged together."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress, silent
from fovcache.builder.request import available_cores
from fovcache.errors import UsageError, environment_failure, nearest

from ..running.result_folder import LOCK_FILE, lock_file, write_files
from .config import STREAM
from .page import PAGE_FILE, page
from .processes import num_ranks
from .result import BASE, DONE, RESULT_FILE, Run, TrainSuite
from .run_folder import check_configuration, dead_run, feed_document, found_run, is_begun
from .run_processes import Asked, Ended, RunProcesses
from .suite_config import Cell, SuiteConfig
from .verdict import judge, judge_control

logger = logging.getLogger(__name__)

PLAN_FOLDER = ".plan"
_GO_ON = "runs that are done are kept, and those at work were saved: the same command with --resume goes on"


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


ALL = Only()


def run_suite(
    config: SuiteConfig,
    out: Path,
    *,
    resume: bool = False,
    jobs: int = 1,
    only: Only = ALL,
    on_progress: OnProgress = silent,
    environment: Mapping[str, Any] | None = None,
    plan_only: bool = False,
) -> TrainSuite:
    """Do the runs of a configuration that are not done yet, each in `out / ARM / seed-N`, and judge all that there are.

    At most `jobs` at a time share this process's threads. A run that fails is shown as failed, and the others go on.
    What ends this call early, a signal that raises, makes runs save and end first. Started by torchrun, exactly one run
    must be wanted, and it is done in this process, which is one of its ranks.

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
        return _as_rank(suite, cells, resume=resume, on_progress=on_progress, plan_only=plan_only)
    if plan_only:
        return _planned(suite, cells, jobs, on_progress)
    with _locked(out):
        asked = list(_asked(out, cells, resume=resume))
        _check_inputs(asked)
        work = _Work(asked, jobs, on_progress)
        try:
            work.do()
        except BaseException as stopped:
            work.stop()
            suite.write(work.dead)
            stopped.add_note(_GO_ON)
            raise
        if asked and len(work.errors) == len(asked):
            raise work.errors[0]
        return suite.write(work.dead)


class _Work:
    """Runs at work, and what becomes of them."""

    def __init__(self, asked: Sequence[Asked], jobs: int, on_progress: OnProgress) -> None:
        self.errors: list[Exception] = []
        self.dead: dict[str, Run] = {}
        """By place: runs that ended without saying what they came to."""
        self._asked = asked
        self._is_stopping = False
        self._on_progress = on_progress
        self._told: dict[str, int] = {}
        settings = [each.cell.config.train for each in asked]
        self._total = sum(each.num_steps * each.batch_size for each in settings)
        self._processes = RunProcesses(jobs=jobs, num_threads=num_threads(jobs), on_progress=self._tell)

    def do(self) -> None:
        """All of them."""
        for ended in self._processes.run(self._asked):
            self._note(ended)

    def stop(self) -> None:
        """Those at work save and end."""
        self._is_stopping = True
        for ended in self._processes.stop():
            self._note(ended)

    def _note(self, ended: Ended) -> None:
        cell, folder = ended.asked.cell, ended.asked.folder
        said = str(ended.error) if ended.error is not None else ended.how
        if ended.error is not None:
            self.errors.append(ended.error)
        if said:
            run = self.dead[cell.place] = dead_run(folder, cell, said, is_stopped=self._is_stopping)
            logger.warning("%s %s: %s", cell, run.state, run.reason or said)
        settings = cell.config.train
        self._told[cell.place] = settings.num_steps * settings.batch_size
        self._on_progress(self._progress(""))

    def _tell(self, cell: Cell, progress: Progress) -> None:
        self._told[cell.place] = progress.done
        self._on_progress(self._progress(f"{cell}: {progress.note or progress.stage}"))

    def _progress(self, note: str) -> Progress:
        return Progress(stage="train", done=sum(self._told.values()), total=self._total, note=note)


class _Suite:
    """A configuration's results in its folder."""

    def __init__(
        self, config: SuiteConfig, out: Path, environment: Mapping[str, Any] | None, started: float
    ) -> None:
        self.config, self.out = config, out
        self._environment, self._started = environment, started

    def write(self, dead: Mapping[str, Run]) -> TrainSuite:
        """Judge what there is, and write it. Raises what the verdict raises, after that without one was written."""
        runs, warnings = self._runs(dead)
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
        return replace(
            suite, verdict=judge(suite.runs, choice), control_verdict=judge_control(suite.runs, choice)
        )

    def _runs(self, dead: Mapping[str, Run]) -> tuple[list[Run], list[str]]:
        runs, warnings, num_absent = [], [], 0
        for cell in self.config.cells:
            folder = self.out / cell.place
            try:
                check_configuration(folder, cell.config)
            except UsageError as error:
                warnings.append(f"{cell} is left out: {error}")
                continue
            run = dead.get(cell.place) or found_run(folder)
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


def num_threads(jobs: int) -> int:
    """Threads of each run where so many share what this process may use."""
    import torch

    return max(1, min(torch.get_num_threads(), available_cores()) // jobs)


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
    from .opening import open_inputs

    configs = {(each.cell.arm, each.cell.task): each.cell.config for each in asked}
    for config in configs.values() if len(asked) > 1 else ():
        if config.data.kind != STREAM:
            open_inputs(config, config.trainable().needs())


def _planned(suite: _Suite, cells: Sequence[Cell], jobs: int, on_progress: OnProgress) -> TrainSuite:
    """The first seed of each arm and task, measured on the disk that `out` is on, which is as before afterwards."""
    first = list({(cell.arm, cell.task): cell for cell in reversed(cells)}.values())[::-1]
    had_out, folder = suite.out.exists(), suite.out / PLAN_FOLDER
    asked = [Asked(cell=cell, folder=folder / cell.place, plan_only=True) for cell in first]
    work = _Work(asked, jobs, on_progress)
    runs = []
    try:
        with _locked(suite.out):
            work.do()
    except BaseException:
        work.stop()
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not had_out:
            shutil.rmtree(suite.out, ignore_errors=True)
    if work.errors:
        raise work.errors[0]
    return suite.made(runs)


def _as_rank(
    suite: _Suite, cells: Sequence[Cell], *, resume: bool, on_progress: OnProgress, plan_only: bool
) -> TrainSuite:
    """One run, all ranks of which call this."""
    raise NotImplementedError


def _dataset_of(config: SuiteConfig) -> str:
    if config.base.data.kind == STREAM:
        return ", ".join(config.base.document()["data.sources"])
    return config.base.dataset or ""


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder, made where there is none; nobody else runs there meanwhile. Raises UsageError, EnvironmentFailure."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, expected a folder or a name that is free")
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / LOCK_FILE).exists():
            raise UsageError(f"--out {out} holds something else: choose an empty or new folder")
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK_FILE).open("ab")
    except OSError as error:
        raise environment_failure(error, f"write {out}") from error
    with lock:
        lock_file(lock, out)
        yield
