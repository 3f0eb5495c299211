"""Real comparisons of equal sides, and of sides one of which is slower by a known amount of real work.

`python -m fovcache.bench.regression.campaign DIR` runs the check's two stages on two copies of the working tree, again
and again, in lanes of one core each. Every process is fresh and belongs to one comparison; each lane begins with a
process a side that is dropped. DIR gets a line for each comparison; the same command goes on from what is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fovcache.builder.progress import OnProgress, Progress
from fovcache.console import STATUS_ENVIRONMENT, Output, progress_bar, run_command
from fovcache.errors import UsageError, environment_failure

from . import trees
from .campaign_tally import read_lines, tally
from .in_turns import Side, Stages, compare_in_turns
from .judge import CONFIRMING_PROCESSES, MIN_PROCESSES
from .process import Runner, Suite, warmed_up
from .scratch import scratch_folder

SUITE = Path("tests/benchmarks/test_hot_paths.py")
REPEATS = 20
"""Calls a round of each benchmark: 15 % more of them are three whole ones."""
_PLUGIN = "repeats"
_LANE = "FOVBENCH_LANE"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What is run."""

    equal: int
    """Comparisons of equal sides."""
    slowed: int
    """Comparisons in which one benchmark of HEAD is slower, each benchmark in its turn."""
    slowdown: float
    """How much slower, as a ratio; rounded to whole calls of REPEATS."""
    suite: str
    """Benchmarks that do not take `benchmark.pedantic`, in a folder with the plugin that repeats them."""
    max_time_s: float
    """Of a benchmark in a process."""

    def __post_init__(self) -> None:
        if min(self.equal, self.slowed) < 0 or self.slowed_repeats <= REPEATS:
            raise UsageError(
                f"{self.equal} equal and {self.slowed} slowed comparisons, slower by {self.slowdown}; expected no "
                f"negative numbers, and a slowdown of at least {1 + 1 / REPEATS}"
            )

    @property
    def slowed_repeats(self) -> int:
        """Calls a round of the slowed benchmark."""
        return round(REPEATS * self.slowdown)

    @property
    def ids(self) -> list[str]:
        """All comparisons, the two kinds mixed, so that a part of them is a sample of both."""
        ranked = [((number + 0.5) / self.equal, f"equal {number}") for number in range(self.equal)]
        ranked += [((number + 0.5) / self.slowed, f"slowed {number}") for number in range(self.slowed)]
        return [each for _, each in sorted(ranked)]


def run_lane(folder: Path, campaign: Campaign, out: Path, lane: int, num_lanes: int, on_progress: OnProgress) -> None:
    """Run a lane's comparisons, those that `out` does not hold yet. Raises UsageError, EnvironmentFailure."""
    root = trees.repository_of(folder)
    suite = Suite(path=campaign.suite, max_time_s=campaign.max_time_s, plugins=(_PLUGIN,))
    _mend(out / f"lane-{lane}.jsonl")
    done = {line["id"] for line in read_lines(out)}
    own = campaign.ids[lane::num_lanes]
    with scratch_folder(if_stopped=None) as scratch:
        for side in ("base", "head"):
            trees.copy_working_tree(root, scratch / side)
        runner = Runner(suite, scratch / "runs", scratch / "head" / "pyproject.toml")
        equal = {"FOVBENCH_REPEATS": str(REPEATS)}
        base = Side(tree=scratch / "base", commit="equal", environment=equal)
        names = warmed_up(runner, scratch / "head", equal)
        warmed_up(runner, scratch / "base", equal)
        for number, each in enumerate(own):
            on_progress(Progress(stage=f"lane {lane}", done=number, total=len(own)))
            if each in done:
                continue
            slowed = _slowed(each, names)
            more = {"FOVBENCH_SLOWED": slowed, "FOVBENCH_SLOWED_REPEATS": str(campaign.slowed_repeats)}
            head = Side(tree=scratch / "head", commit=each, environment=equal | (more if slowed else {}))
            started = time.monotonic()
            stages = compare_in_turns(
                runner,
                base,
                head,
                names,
                processes=MIN_PROCESSES,
                confirming=CONFIRMING_PROCESSES,
                on_progress=lambda progress: None,
            )
            _append(out / f"lane-{lane}.jsonl", _line(each, slowed, stages) | {"wall_s": time.monotonic() - started})


def _slowed(each: str, names: list[str]) -> str:
    """The benchmark that a comparison slows down, each in its turn; empty for equal sides."""
    kind, _, number = each.partition(" ")
    return names[int(number) % len(names)] if kind == "slowed" else ""


def _line(each: str, slowed: str, stages: Stages) -> dict[str, Any]:
    def rows(comparison: Any) -> dict[str, Any]:
        return {row.name: {"ratio": row.ratio, "p": row.p, "base_s": row.base_s} for row in comparison.rows}

    return {
        "id": each,
        "slowed": slowed,
        "first_alarms": list(stages.first.slower),
        "alarms": list(stages.slower),
        "unsure": list(stages.unsure),
        "first": rows(stages.first),
        "confirmation": rows(stages.confirmation) if stages.confirmation is not None else {},
    }


def _mend(path: Path) -> None:
    """Cut off a last line that a kill cut short."""
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


def _append(path: Path, line: dict[str, Any]) -> None:
    try:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise environment_failure(error, f"write {path}") from error


def _begin(folder: Path, out: Path, campaign: Campaign) -> None:
    """Make `out`, or see that it holds a part of this very campaign."""
    root = trees.repository_of(folder)
    header = {"campaign": asdict(campaign), "suite_digest": trees.suite_digest(root, campaign.suite)}
    path = out / "campaign.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(header))
    except OSError as error:
        raise environment_failure(error, f"write into {out}") from error
    if json.loads(path.read_text()) != header:
        raise UsageError(f"{out} holds another campaign or another suite; expected the same; choose another folder")


@contextlib.contextmanager
def _lanes(num_lanes: int) -> Any:
    """This command once for each lane, on a core of its own as far as there are so many."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    started = []
    try:
        for lane in range(num_lanes):
            pinned = {_LANE: f"{lane}/{num_lanes}/{cores[-1 - lane % len(cores)] if cores else ''}"}
            started.append(subprocess.Popen([sys.executable, *_own_command()], env=os.environ | pinned))
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _own_command() -> list[str]:
    return ["-m", __spec__.name, *sys.argv[1:]] if __spec__ is not None else sys.argv


@app.command()
def main(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the comparisons go, a line each.")],
    equal: Annotated[int, typer.Option(metavar="N", help="Comparisons of equal sides.")] = 200,
    slowed: Annotated[int, typer.Option(metavar="N", help="Comparisons with a slowdown.")] = 100,
    slowdown: Annotated[float, typer.Option(metavar="RATIO", help="Of one benchmark in those.")] = 1.15,
    lanes: Annotated[int, typer.Option(metavar="N", help="Comparisons at a time, each on a core of its own.")] = 3,
    suite: Annotated[Path, typer.Option(metavar="PATH", help="Fast benchmarks.")] = SUITE,
    max_time: Annotated[float, typer.Option(metavar="S", help="Of a benchmark in a process.")] = 0.025,
) -> None:
    """Compare equal and slowed sides many times, and count what alarmed."""
    campaign = Campaign(
        equal=equal,
        slowed=slowed,
        slowdown=slowdown,
        suite=trees.suite_in(trees.repository_of(Path.cwd()), suite),
        max_time_s=max_time,
    )
    if _LANE in os.environ:
        lane, num_lanes, core = os.environ.pop(_LANE).split("/")
        if core:
            os.sched_setaffinity(0, {int(core)})
        run_lane(Path.cwd(), campaign, out, int(lane), int(num_lanes), lambda progress: None)
        return
    _begin(Path.cwd(), out, campaign)
    total = len(campaign.ids)
    with progress_bar() as show, _lanes(lanes) as processes:
        while any(process.poll() is None for process in processes):
            show(Progress(stage="compare", done=len(list(read_lines(out))), total=total))
            time.sleep(1)
        broken = [process.returncode for process in processes if process.returncode]
    output = Output(None)
    for line in tally(out):
        output.line(line)
    if broken:
        raise typer.Exit(STATUS_ENVIRONMENT)


if __name__ == "__main__":
    run_command(app)
