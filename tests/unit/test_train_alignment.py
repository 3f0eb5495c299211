"""Where in memory a batch lies changes no bit of a run: matrix products of the CPU can depend on it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from toy_training import SETTINGS, Toy, ToyFeed, ToyModule, train_toy

from fovcache.probes.train.feed import FeedBatch
from fovcache.trainable import InputInfo

WIDTH = 5
CHANGES = {"batch_size": 7, "samples": 140, "validation_samples": 13}


class OddFeed(ToyFeed):
    """Rows of an odd width, each batch `offset` numbers into memory of its own."""

    offset = 0

    def __init__(self) -> None:
        super().__init__(replace(SETTINGS, **CHANGES))
        self.x = torch.randn(len(self.x), WIDTH, generator=torch.Generator().manual_seed(1))
        self.inputs: Mapping[str, InputInfo] = {
            **self.inputs,
            "frames": InputInfo(row_shape=(WIDTH,), dtype="fp32"),
        }

    def batch(self, positions: np.ndarray) -> FeedBatch:
        made = super().batch(positions)
        rows = made.tensors["frames"]
        memory = torch.empty(rows.numel() + 16)[self.offset : self.offset + rows.numel()].view_as(rows)
        return FeedBatch(tensors={**made.tensors, "frames": memory.copy_(rows)}, keys=made.keys)


class OddModule(ToyModule):
    """Seven wide."""

    def __init__(self, width: int, seed: int, dropout: float) -> None:
        super().__init__(width, seed, dropout)
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, 3))


def test_batches_anywhere_in_memory_train_the_same_bits(tmp_path: Path) -> None:
    found = []
    for offset in (0, 1, 2, 7):
        feed = OddFeed()
        feed.offset = offset
        run = train_toy(tmp_path / str(offset), toy=Toy(module=OddModule), feed=feed, **CHANGES)
        weights = load_file(tmp_path / str(offset) / "checkpoints" / "samples-000000140" / "model.safetensors")
        found.append((weights, [each.values for each in run.evaluations]))
    for weights, values in found[1:]:
        assert all(torch.equal(tensor, found[0][0][name]) for name, tensor in weights.items())
        assert values == found[0][1]
