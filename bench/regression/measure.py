"""Runs of the working tree's suite in a file: `python -m fovcache.bench.regression.measure FILE`, or `make bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fovcache.builder.progress import OnProgress, Progress
from fovcache.console import Output, progress_bar, run_command
from fovcache.errors import UsageError

from . import trees
from .check import DEFAULT_SUITE
from .judge import MIN_PROCESSES
from .process import Runner, Suite, gathered, now, warmed_up
from .runs import SuiteRuns
from .scratch import scratch_folder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def measure(folder: Path, suite_path: Path, select: str | None, processes: int, on_progress: OnProgress) -> SuiteRuns:
    """Measure the working tree that `folder` lies in, as it is now. Raises UsageError, EnvironmentFailure."""
    if processes < 1:
        raise UsageError(f"{processes} processes; expected at least 1, and {MIN_PROCESSES} to compare")
    root = trees.repository_of(folder)
    suite = Suite(path=trees.suite_in(root, suite_path), select=select)
    commit, started = trees.working_commit(root), now()
    with scratch_folder() as scratch:
        tree = scratch / "head"
        trees.copy_working_tree(root, tree)
        runner = Runner(suite, scratch / "runs", tree / "pyproject.toml")
        on_progress(Progress(stage="warm up", done=0, total=processes))
        names = warmed_up(runner, tree)
        runs = []
        for number in range(processes):
            on_progress(Progress(stage="measure", done=number, total=processes))
            runs.append(runner.run(tree, wanted=names))
        return gathered(suite, tree, commit, started, runs)


@app.command()
def main(
    out: Annotated[str, typer.Argument(metavar="FILE", help="Where the runs go.")],
    processes: Annotated[int, typer.Option(metavar="N", help="Processes that count.")] = MIN_PROCESSES,
    suite: Annotated[Path, typer.Option(metavar="PATH", help="A file or folder of benchmarks.")] = DEFAULT_SUITE,
    select: Annotated[str | None, typer.Option(metavar="EXPRESSION", help="As pytest's -k.")] = None,
) -> None:
    """Measure the working tree's benchmarks in several processes."""
    output = Output(out)
    with progress_bar() as show:
        runs = measure(Path.cwd(), suite, select, processes, show)
    output.json(runs.document())
    output.line(f"{len(runs.processes)} processes, {len(runs.names)} benchmarks: {out}")


if __name__ == "__main__":
    run_command(app)
