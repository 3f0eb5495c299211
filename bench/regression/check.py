"""The check of a working tree against a revision: both measured now, on this machine, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress
from fovcache.console import STATUS_ENVIRONMENT, STATUS_OK, STATUS_SOME_FAILED
from fovcache.errors import UsageError

from . import trees
from .in_turns import Side, Stages, compare_in_turns
from .judge import CONFIRMING_PROCESSES, MIN_PROCESSES
from .process import Runner, Suite, warmed_up
from .runs import ProcessRun
from .scratch import scratch_folder

DEFAULT_SUITE = Path("tests/benchmarks")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """What to check."""

    ref: str
    """A branch, tag or revision: the baseline."""
    suite: Path = DEFAULT_SUITE
    """A file or folder of benchmarks in the repository; the working tree's are run for both sides."""
    select: str | None = None
    """pytest's -k."""
    processes: int = MIN_PROCESSES
    """A side, at least MIN_PROCESSES."""
    confirming: int = CONFIRMING_PROCESSES
    """A side, for what looks slower; at least MIN_PROCESSES."""

    def __post_init__(self) -> None:
        for name in ("processes", "confirming"):
            if getattr(self, name) < MIN_PROCESSES:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {MIN_PROCESSES} a side")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check came to."""

    stages: Stages
    """The benchmarks that run on both sides."""
    new: dict[str, str]
    """Those that do not run on the baseline, and why."""

    @property
    def exit_status(self) -> int:
        """1 with a confirmed slowdown, else 3 where a benchmark broke on the way."""
        if self.stages.slower:
            return STATUS_SOME_FAILED
        return STATUS_ENVIRONMENT if self.stages.unsure else STATUS_OK

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return self.stages.document() | {"new": self.new}


def run_check(folder: Path, request: CheckRequest, on_progress: OnProgress) -> Check:
    """Check the working tree that `folder` lies in. Raises UsageError, EnvironmentFailure."""
    root = trees.repository_of(folder)
    suite = Suite(path=trees.suite_in(root, request.suite), select=request.select)
    base_commit, head_commit = trees.commit_of(root, request.ref), trees.working_commit(root)
    with scratch_folder() as scratch:
        base = Side(tree=scratch / "base", commit=base_commit)
        head = Side(tree=scratch / "head", commit=head_commit)
        trees.write_commit(root, base_commit, base.tree)
        trees.copy_working_tree(root, head.tree)
        trees.share_suite(suite.path, source=head.tree, target=base.tree)
        runner = Runner(suite, scratch / "runs", head.tree / "pyproject.toml")
        return _check(runner, base, head, request, on_progress)


def _check(runner: Runner, base: Side, head: Side, request: CheckRequest, on_progress: OnProgress) -> Check:
    on_progress(Progress(stage="warm up", done=0, total=2))
    names = warmed_up(runner, head.tree)
    on_progress(Progress(stage="warm up", done=1, total=2))
    earlier = runner.run(base.tree, wanted=names)
    common = [name for name in names if name in earlier.passed]
    new = {name: _why(name, earlier) for name in names if name not in earlier.passed}
    if not common:
        reason = ": ".join(next(iter(new.items())))
        raise UsageError(f"no benchmark of {request.suite} runs on {request.ref}: {reason}; nothing can be compared")
    stages = compare_in_turns(
        runner,
        base,
        head,
        common,
        processes=request.processes,
        confirming=request.confirming,
        on_progress=on_progress,
    )
    return Check(stages=stages, new=new)


def _why(name: str, run: ProcessRun) -> str:
    return run.failed.get(name) or run.failed.get(name.partition("::")[0]) or "skipped there"
