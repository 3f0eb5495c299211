"""The training loop beside a bare PyTorch loop: the same model, batches, optimiser and schedule, the same bits.

python -m fovcache.bench.peers.train_loop [--rounds 30] [--steps 60] [--batch 64] [--threads 1] [--out DIR]

What ours does beside the steps is counted: checking and averaging what the model says of each sample, the log, looking
for signals, the generators' states. Evaluations and checkpoints are not, since the bare loop has none.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fovcache.builder.progress import silent
from fovcache.models.foveated.model import make
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.gauges import Gauges
from fovcache.probes.train.log import RunLog
from fovcache.probes.train.loop import Loop
from fovcache.probes.train.processes import open_processes
from fovcache.probes.train.schedule import learning_rate
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stop_signals import StopSignals
from fovcache.probes.train.trainer import Trainer
from fovcache.trainable import InputInfo

from .comparison import Comparison, Timing, finish

BARE, OURS = "bare PyTorch loop", "ours"
WITHIN = 1 / 1.03
NUM_FRAMES, NUM_TOKENS, WIDTH, ALPHABET = 4, 17, 64, "0123"
_NUM_BATCHES = 20


class MemoryFeed:
    """Random clips and labels in memory, the same batches in turn."""

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        chance = torch.Generator().manual_seed(0)
        shape = (settings.batch_size, NUM_FRAMES, NUM_TOKENS, WIDTH)
        letters = torch.tensor([ord(letter) for letter in ALPHABET])
        self._batches = [
            FeedBatch(
                tensors={
                    "frames": torch.randn(shape, generator=chance).to(device),
                    "frame_labels": _texts(letters[torch.randint(4, shape[:2], generator=chance)]).to(device),
                },
                keys=np.zeros((settings.batch_size, 32), np.uint8),
            )
            for _ in range(_NUM_BATCHES)
        ]
        self.inputs: Mapping[str, InputInfo] = {
            "frames": InputInfo(row_shape=shape[1:], dtype="fp32", recipe={"extractor": {"tokens": {"prefix": 1}}}),
            "frame_labels": InputInfo(row_shape=(NUM_FRAMES + 1,), dtype="int64"),
        }
        self.num_train, self.num_validation, self.validation_hash = 1, settings.batch_size, ""

    def document(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        """From the first one on."""
        return cycle(self._batches)

    def validation_batches(self) -> Iterator[FeedBatch]:
        """One."""
        return iter(self._batches[:1])

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def measure(*, rounds: int, steps: int, batch: int, threads: int, device: str = "cpu") -> Comparison:
    """Both loops in turn, from the same first weights; the last weights are compared bit by bit after each round."""
    settings = TrainSettings(
        samples=steps * batch,
        batch_size=batch,
        learning_rate=3e-3,
        warmup_samples=0,
        schedule="cosine",
        weight_decay=0.01,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        clip_norm=1.0,
        precision="fp32",
        evaluate_every=10**9,
        validation_samples=1,
        checkpoint_every=10**9,
        keep=1,
        out_of_memory="halve",
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {BARE: [], OURS: []}
    ways = {BARE: _bare, OURS: _ours}
    try:
        feed = MemoryFeed(settings, torch.device(device))
        for number in range(rounds + 1):
            found = {}
            for name in (BARE, OURS) if number % 2 else (OURS, BARE):
                elapsed, found[name] = ways[name](feed, settings, torch.device(device))
                if number:  # the first round warms up
                    seconds[name].append(elapsed)
            assert found[BARE] == found[OURS], "the two loops came to different weights"
    finally:
        torch.set_num_threads(before)
    timings = tuple(Timing(name=name, amount=steps, seconds=tuple(seconds[name])) for name in ways)
    where = f"{threads} thread{'s' * (threads > 1)} on {device}"
    title = f"{steps} steps of the tiny foveated model, batch {batch}, {where}"
    comparison = Comparison(title=title, unit="steps", timings=timings, bars=[])
    comparison.judge(OURS, BARE, WITHIN)
    return comparison


def _module(feed: MemoryFeed, device: torch.device) -> nn.Module:
    model = make({"size": "tiny", "heads": ["labels"], "alphabet": ALPHABET, "coarse_weight": 0.0})
    return model.build(feed.inputs, 0).to(device)


def _bare(feed: MemoryFeed, settings: TrainSettings, device: torch.device) -> tuple[float, str]:
    """As one writes it by hand. Seconds, and the last weights' digest."""
    module = _module(feed, device)
    parameters = [each for each in module.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=settings.betas, eps=settings.epsilon, fused=True)
    torch.manual_seed(0)
    module.train()
    batches = feed.train_batches(0)
    _synchronize(device)
    began = time.perf_counter()
    for number, batch in enumerate(islice(batches, settings.num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, number * settings.batch_size)
        optimizer.zero_grad()
        module(batch.tensors)["loss"].mean().backward()
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
    _synchronize(device)
    return time.perf_counter() - began, _digest(module)


def _ours(feed: MemoryFeed, settings: TrainSettings, device: torch.device) -> tuple[float, str]:
    """The loop with its log. Seconds without evaluations and checkpoints, and the last weights' digest."""
    with tempfile.TemporaryDirectory() as folder, open_processes(settings, str(device)) as processes:
        module = _module(feed, device)
        trainer = Trainer(module, feed, settings, processes)
        loop = Loop(
            trainer,
            feed,
            settings,
            processes,
            Gauges(device),
            folder=Path(folder),
            identity={},
            on_progress=silent,
        )
        torch.manual_seed(0)
        loop.log = RunLog(Path(folder) / "log.jsonl")
        try:
            with StopSignals() as signals:
                loop.run(feed.train_batches(0), signals)
        finally:
            loop.log.close()
        return loop.training_s, _digest(module)


def _texts(labels_BT: torch.Tensor) -> torch.Tensor:
    """With an end token."""
    return torch.cat([labels_BT, torch.full_like(labels_BT[:, :1], 256)], dim=1)


def _digest(module: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, each in module.state_dict().items():
        hasher.update(name.encode() + each.cpu().numpy().tobytes())
    return hasher.hexdigest()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="steps a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[64], help="samples in a step")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="folder for train_loop.json and train_loop.md")
    options = parser.parse_args()
    comparisons = [
        measure(rounds=options.rounds, steps=options.steps, batch=batch, threads=threads, device=options.device)
        for threads in options.threads
        for batch in options.batch
    ]
    finish("train_loop", comparisons, options.out)


if __name__ == "__main__":
    main()
