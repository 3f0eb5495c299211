"""The foveated model on CUDA: the same numbers as on the CPU, under autocast too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import SETTINGS as RECIPE
from toy_training import ToyFeed

from fovcache.models.foveated.model import make
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.stepping.processes import open_processes
from fovcache.probes.train.stepping.trainer import Trainer
from fovcache.trainable import InputInfo

pytestmark = pytest.mark.needs_cuda

INFOS = {
    "frames": InputInfo(row_shape=(4, 17, 64), dtype="fp32"),
    "latents": InputInfo(row_shape=(4, 4, 8, 8), dtype="fp32"),
    "captions": InputInfo(row_shape=(6,), dtype="int64"),
    "frame_labels": InputInfo(row_shape=(5,), dtype="int64"),
    "text": InputInfo(row_shape=(3,), dtype="int64"),
}
SETTINGS: dict[str, Any] = {
    "size": "tiny",
    "heads": ["labels", "caption", "reconstruction"],
    "alphabet": "AB",
    "text": True,
}


def batch() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {
        "frames": torch.randn(3, 4, 17, 64, generator=drawn),
        "latents": torch.randn(3, 4, 4, 8, 8, generator=drawn),
        "captions": torch.tensor([[5, 6, 256, -1, -1, -1], [1, 2, 3, 4, 5, 256], [256, -1, -1, -1, -1, -1]]),
        "frame_labels": torch.tensor([[46, 65, 66, 65, 256]] * 3),
        "text": torch.tensor([[7, 256, -1], [8, 9, 256], [256, -1, -1]]),
    }


@pytest.mark.parametrize("mode", ["fine", "coarse", "autoregressive"])
def test_values_and_gradients_are_the_cpus(mode: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        module = make({**SETTINGS, "mode": mode}).build(INFOS, 0).to(device).train()
        values = module({name: rows.to(device) for name, rows in batch().items()})
        values["loss"].mean().backward()
        gradients = [each.grad.cpu() for each in module.parameters() if each.grad is not None]
        found.append(({name: value.detach().cpu() for name, value in values.items()}, gradients))
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("queries", ["random", "shuffled"])
def test_controls_draw_on_the_device(queries: str) -> None:
    module = make({**SETTINGS, "queries": queries}).build(INFOS, 0).to("cuda")
    rows = {name: each.to("cuda") for name, each in batch().items()}
    torch.manual_seed(0)
    first = module(rows)["fine"]
    torch.manual_seed(0)
    assert torch.equal(module(rows)["fine"], first)
    assert not torch.equal(module(rows)["fine"], first)


def test_it_learns_under_autocast() -> None:
    module = make(SETTINGS).build(INFOS, 0).to("cuda").train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        values = module({name: each.to("cuda") for name, each in batch().items()})
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values.values())
    values["loss"].mean().backward()
    assert not [name for name, each in module.named_parameters() if each.grad is None]


def test_steps_in_bfloat16_descend() -> None:
    settings = replace(
        RECIPE, precision="bf16", batch_size=3, learning_rate=1e-3, warmup_samples=0, schedule="constant"
    )
    rows = {name: (each.bfloat16() if each.is_floating_point() else each).to("cuda") for name, each in batch().items()}
    step = FeedBatch(tensors=rows, keys=np.zeros((3, 32), np.uint8))
    with open_processes(settings, "cuda") as processes:
        module = make(SETTINGS).build(INFOS, 0).to(processes.device)
        trainer = Trainer(module, ToyFeed(settings), settings, processes)
        records = [trainer.step(step) for _ in range(30)]
    assert records[-1].values["loss"] < 0.8 * records[0].values["loss"]
    assert not any(record.was_left_out for record in records)
    assert {each.dtype for each in module.parameters()} == {torch.float32}
