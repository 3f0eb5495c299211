"""Trains the toy model as one of torchrun's processes, several runs one after the other in the folder OUT.

`whole` is a run that nothing happens to; `stopped` is stopped after 6 steps and goes on; `nan` breaks in the 4th. In
`whole` and `stopped` each process leaves `seen-RANK`, the keys of the samples that it was given, and `first.json` is
what the run was when it was stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1] / "contracts"))

from toy_training import SETTINGS, Toy, ToyFeed, ToyModule, train_toy

from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.run import How

RANK = int(os.environ.get("RANK", "0"))
NUM_RANKS = int(os.environ.get("WORLD_SIZE", "1"))


class Signalled(ToyFeed):
    """The last process alone gets a signal."""

    stop_at: int | None = None

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        """As ToyFeed's."""
        for step, batch in enumerate(super().train_batches(samples_seen), samples_seen // 8 + 1):
            if step == self.stop_at and RANK == NUM_RANKS - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class Breaking(ToyModule):
    """Its loss is NaN in the last process alone."""

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """As ToyModule's."""
        values = super().forward(batch)
        is_now = self.training and int(self.num_passes) == 4 and RANK == NUM_RANKS - 1
        return {**values, "loss": values["loss"] * torch.nan} if is_now else values


def go(folder: Path, *, module: type[ToyModule] = ToyModule, stop_at: int | None = None, resume: bool = False) -> None:
    """One run."""
    feed = Signalled(SETTINGS, rank=RANK, num_ranks=NUM_RANKS)
    feed.stop_at = stop_at
    how = How(resume=resume, with_plan=not resume)
    # The module is not cut for the one that breaks: it counts its passes.
    micro = 3 if module is ToyModule else None
    train_toy(folder, toy=Toy(dropout=0.0, module=module), feed=feed, how=how, micro_batch_size=micro)
    with (folder / f"seen-{RANK}").open("ab") as file:
        file.write(b"".join(feed.seen))


def main() -> None:
    """Train."""
    out = Path(sys.argv[1])
    go(out / "whole")
    go(out / "stopped", stop_at=6)
    if RANK == 0:
        shutil.copy(out / "stopped" / "run.json", out / "first.json")
    go(out / "stopped", resume=True)
    go(out / "nan", module=Breaking)


if __name__ == "__main__":
    main()
