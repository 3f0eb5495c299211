"""What `fovbench train` is given, and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from fovcache.console import Output, human_bytes, human_seconds, progress_bar

from .train_table import print_plans, print_training

if TYPE_CHECKING:
    from fovcache.probes.train.result import Plan

Config: TypeAlias = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="What is trained; docs/training.md has every key.")
]
Out: TypeAlias = Annotated[
    Path, typer.Option(metavar="DIR", help="Where runs and results go; runs that are done there are not done again.")
]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on with runs that were stopped, killed or failed, from their checkpoints.")
]
PlanOnly: TypeAlias = Annotated[
    bool, typer.Option("--plan", help="Measure a warm-up of each arm, say what runs will take, and train nothing.")
]
Arms: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only this arm, `base` for the base; may be repeated.")
]
Seeds: TypeAlias = Annotated[list[int] | None, typer.Option(metavar="N", help="Only this seed; may be repeated.")]
Tasks: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="main|control", help="Only this task; may be repeated.")
]
Jobs: TypeAlias = Annotated[
    int, typer.Option(metavar="N", help="Runs at a time, each in its own process; they share this machine's cores.")
]
RunDevice: TypeAlias = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; else what CONFIG says.")
]


def train(options: Mapping[str, Any]) -> int:
    """Do as the command's options say, print it, and write its JSON; the exit status."""
    from fovcache.builder.request import pick_device
    from fovcache.probes.train.suite.run_processes import unheard
    from fovcache.probes.train.suite.runs import is_first_rank, run_suite
    from fovcache.probes.train.suite.suite_config import Only, read_suite_config

    from .profiler.environment import environment

    is_first = is_first_rank()
    output = Output(options["json"] if is_first else None)
    output.quiet = output.quiet or not is_first
    config = read_suite_config(options["config"]).on_device(options["device"])
    only = Only(arms=_texts(options["arm"]), seeds=tuple(options["seed"] or ()), tasks=_texts(options["task"]))
    with progress_bar() as show:
        suite = run_suite(
            config,
            options["out"],
            resume=options["resume"],
            jobs=options["jobs"],
            only=only,
            on_progress=show,
            environment=environment(pick_device(config.base.device)),
            plan_only=options["plan"],
            on_plan=unheard if options["plan"] else lambda cell, plan: output.line(f"{cell}: {_planned(plan)}"),
        )
    output.json(suite.document())
    if options["plan"]:
        print_plans(output, suite, len(only.seeds or config.seeds), options["jobs"])
        return int(any(run.plan is None for run in suite.runs))
    print_training(output, suite)
    output.line(f"written into {options['out']}")
    return suite.exit_status


def _planned(plan: Plan) -> str:
    """In a line."""
    bounds = plan.wall_ci95_s
    within = "" if bounds is None else f" ({human_seconds(bounds[0])} to {human_seconds(bounds[1])})"
    return (
        f"{plan.steps:,} steps, planned {human_seconds(plan.spent.wall_s)}{within}, "
        f"{human_bytes(plan.disk_bytes)} of disk at most, {human_bytes(plan.memory_bytes)} of memory"
    )


def _texts(values: list[str] | None) -> tuple[str, ...]:
    return tuple(values or ())
