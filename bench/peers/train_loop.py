"""The training loop beside a bare PyTorch loop: the same model, batches, optimiser and schedule, the same bits.

python -m fovcache.bench.peers.train_loop [--rounds 30] [--steps 60] [--batch 64] [--threads 1] [--clips 2000]
    [--out DIR]

What ours does beside the steps is counted: checking and averaging what the model says of each sample, the log, looking
for signals, the generators' states. Evaluations and checkpoints are not, since the bare loop has none.

A second comparison is of our loop over a cache of the cue task's clips with the same steps without their waiting for
batches: the ratio is 1 less the share of data wait.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fovcache.builder.progress import silent
from fovcache.cache import open_cache
from fovcache.models.foveated.model import make
from fovcache.probes.train.feed import Feed, FeedBatch
from fovcache.probes.train.feeds.kinds import open_feed
from fovcache.probes.train.recipe import standard
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stepping.gauges import Gauges
from fovcache.probes.train.stepping.log import RunLog
from fovcache.probes.train.stepping.loop import Loop
from fovcache.probes.train.stepping.processes import open_processes
from fovcache.probes.train.stepping.schedule import learning_rate
from fovcache.probes.train.stepping.stop_signals import StopSignals
from fovcache.probes.train.stepping.trainer import Trainer
from fovcache.probes.train.suite.suite_config import read_suite_config
from fovcache.trainable import InputInfo

from ..made_cues.files import write_cues
from .comparison import Comparison, Timing, finish

BARE, OURS = "bare PyTorch loop", "ours"
WAITING, STEPS_ALONE = "ours over a cache", "its steps without waiting for batches"
WITHIN = 1 / 1.03
WITHOUT_WAITING = 0.98
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

    @property
    def notes(self) -> tuple[str, ...]:
        """See Feed: nothing."""
        return ()

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
    """Both loops, step by step in turn, from the same first weights; the last ones are compared bit by bit.

    A bare step is made where our loop asks for its next batch, and its time is taken off, so that what else the machine
    does falls on both.
    """
    settings = standard(
        samples=steps * batch,
        batch_size=batch,
        learning_rate=3e-3,
        warmup_samples=0,
        evaluate_every=10**9,
        validation_samples=1,
        checkpoint_every=10**9,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {BARE: [], OURS: []}
    try:
        feed = MemoryFeed(settings, torch.device(device))
        for number in range(rounds + 1):
            bare_s, ours_s = _in_turns(feed, settings, torch.device(device))
            if number:  # the first round warms up
                seconds[BARE].append(bare_s)
                seconds[OURS].append(ours_s)
    finally:
        torch.set_num_threads(before)
    timings = tuple(Timing(name=name, amount=steps, seconds=tuple(each)) for name, each in seconds.items())
    where = f"{threads} thread{'s' * (threads > 1)} on {device}"
    title = f"{steps} steps of the tiny foveated model, batch {batch}, {where}"
    comparison = Comparison(title=title, unit="steps", timings=timings, bars=[])
    comparison.judge(OURS, BARE, WITHIN)
    return comparison


def _in_turns(feed: MemoryFeed, settings: TrainSettings, device: torch.device) -> tuple[float, float]:
    """Seconds of the bare loop's steps, and of ours."""
    bare = Bare(feed, settings, device)
    spent_s = 0.0

    def batches() -> Iterator[FeedBatch]:
        nonlocal spent_s
        for batch in feed.train_batches(0):
            began = time.perf_counter()
            bare.step(batch)
            spent_s += time.perf_counter() - began
            yield batch

    module = _module(feed, device)
    loop = _trained(feed, settings, device, module, batches())
    assert _digest(module) == _digest(bare.module), "the two loops came to different weights"
    return spent_s, loop.training_s - spent_s


def measure_waiting(
    folder: Path, *, rounds: int, steps: int, threads: int, clips: int = 2000, device: str = "cpu"
) -> Comparison:
    """The base configuration of the cue task, made and built in `folder`."""
    write_cues(folder, num_train=clips, num_validation=64)
    open_cache(folder / "cache").build(
        [f"{split}={folder}/cue/{split}-*.tar" for split in ("train", "validation")],
        encoder=[f"{folder}/encoder.py:make", "bytes"],
        layers=["tokens"],
        pool="tokens",
        frames=NUM_FRAMES,
        store_dtype="fp32",
        dataset="cue",
        device="cpu",
    )
    config = read_suite_config(folder / "cue.toml").cells[0].config
    settings = replace(config.train, samples=steps * config.train.batch_size, evaluate_every=10**9)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {WAITING: [], STEPS_ALONE: []}
    try:
        feed = open_feed(
            replace(config, train=settings), config.trainable().needs(), seed=0, device=torch.device(device)
        )
        for number in range(rounds + 1):
            module = config.trainable().build(feed.inputs, 0)
            loop = _trained(feed, settings, torch.device(device), module, feed.train_batches(0))
            if number:
                seconds[WAITING].append(loop.training_s)
                seconds[STEPS_ALONE].append(loop.training_s * (1 - loop.data_wait_share))
        feed.close()
    finally:
        torch.set_num_threads(before)
    timings = tuple(Timing(name=name, amount=steps, seconds=tuple(each)) for name, each in seconds.items())
    where = f"{threads} thread{'s' * (threads > 1)} on {device}"
    title = f"{steps} steps over {clips:,} cached clips, batch {settings.batch_size}, {where}"
    comparison = Comparison(title=title, unit="steps", timings=timings, bars=[])
    comparison.judge(WAITING, STEPS_ALONE, WITHOUT_WAITING)
    return comparison


def _module(feed: MemoryFeed, device: torch.device) -> nn.Module:
    model = make({"size": "tiny", "heads": ["labels"], "alphabet": ALPHABET, "coarse_weight": 0.0})
    return model.build(feed.inputs, 0).to(device)


class Bare:
    """Training as one writes it by hand."""

    def __init__(self, feed: MemoryFeed, settings: TrainSettings, device: torch.device) -> None:
        self.module = _module(feed, device)
        self._settings, self._device, self._seen = settings, device, 0
        self._parameters = [each for each in self.module.parameters() if each.requires_grad]
        matrices, vectors = (
            [each for each in self._parameters if each.ndim > 1],
            [each for each in self._parameters if each.ndim < 2],
        )
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=1.0, betas=settings.betas, eps=settings.epsilon, fused=True)
        self.module.train()

    def step(self, batch: FeedBatch) -> None:
        """One."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._seen)
        self._optimizer.zero_grad()
        self.module(batch.tensors)["loss"].mean().backward()
        nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        self._optimizer.step()
        self._seen += len(batch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _trained(
    feed: Feed, settings: TrainSettings, device: torch.device, module: nn.Module, batches: Iterator[FeedBatch]
) -> Loop:
    with tempfile.TemporaryDirectory() as folder, open_processes(settings, str(device)) as processes:
        loop = Loop(
            Trainer(module.to(device), feed, settings, processes),
            feed,
            settings,
            processes,
            Gauges(device),
            folder=Path(folder),
            identity={},
            on_progress=silent,
        )
        loop.log = RunLog(Path(folder) / "log.jsonl")
        try:
            with StopSignals() as signals:
                loop.run(batches, signals)
        finally:
            loop.log.close()
        return loop


def _texts(labels_BT: torch.Tensor) -> torch.Tensor:
    """With an end token."""
    return torch.cat([labels_BT, torch.full_like(labels_BT[:, :1], 256)], dim=1)


def _digest(module: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, each in module.state_dict().items():
        hasher.update(name.encode() + each.cpu().numpy().tobytes())
    return hasher.hexdigest()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="steps a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[64], help="samples in a step")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="folder for train_loop.json and train_loop.md")
    parser.add_argument("--clips", type=int, default=2000, help="of the cache")
    options = parser.parse_args()
    comparisons = [
        measure(rounds=options.rounds, steps=options.steps, batch=batch, threads=threads, device=options.device)
        for threads in options.threads
        for batch in options.batch
    ]
    with tempfile.TemporaryDirectory() as folder:
        comparisons += [
            measure_waiting(
                Path(folder),
                rounds=options.rounds,
                steps=options.steps,
                threads=threads,
                clips=options.clips,
                device=options.device,
            )
            for threads in options.threads
        ]
    finish("train_loop", comparisons, options.out)


if __name__ == "__main__":
    main()
