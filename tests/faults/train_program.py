"""A program that trains a small model, for the fork server: `CONFIG.toml OUT [--resume]`.

The model is found as any other is, by the entry point of a distribution, which lies beside the configuration.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from fovcache.console import run_command, set_up_logging
from fovcache.probes.train.config import read_cell, read_top
from fovcache.probes.train.result import DONE
from fovcache.probes.train.run import train_run

_IMPORTED_ON_THE_WAY = (
    "accelerate",
    "scipy.stats",
    "torch._dynamo",
    "typer._adapters",
    "fovcache.probes.train.feeds.cached",
)
for _name in _IMPORTED_ON_THE_WAY:
    importlib.import_module(_name)

app = typer.Typer(add_completion=False)


@app.command()
def train(config: Path, out: Path, resume: Annotated[bool, typer.Option("--resume")] = False) -> int:
    """Train it."""
    set_up_logging(verbose=False)
    torch.set_num_threads(1)
    sys.path.insert(0, str(config.parent))
    run = train_run(read_cell(read_top(config), config.parent), out, seed=0, resume=resume)
    if run.reason:
        sys.stdout.write(f"{run.state}: {run.reason}\n")
    return int(run.state != DONE)


def main() -> None:
    """As the entry point of a command."""
    run_command(app)
