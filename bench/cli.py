"""The command `fovbench`: measure, experiment, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fovcache.console import Output, progress_bar, run_command, set_up_logging
from fovcache.options import Json

app = typer.Typer(
    help="Measure and experiment with frozen features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """Keeps `demo` a command of its own: typer makes a single command the whole program."""


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where it puts everything; an earlier run's folder is taken up again.")
    ] = Path("fovcache-demo"),
    json: Json = None,
) -> None:
    """Show the whole way from images to a probe, on digits that come with scikit-learn."""
    from .demo import run_demo

    set_up_logging(verbose=False)
    output = Output(json)
    with progress_bar() as show:
        result = run_demo(out, output, show)
    output.json(result)
    output.line(str(result["report"]))


def main() -> None:
    """The entry point of `fovbench`."""
    run_command(app)


if __name__ == "__main__":
    main()
