"""The training loop on a GPU: the same run within rounding, float16 with its loss scale, memory halved and told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import SETTINGS, Toy, ToyFeed, ToyModule, train_toy

from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.result import DONE, FAILED
from fovcache.probes.train.run import How
from fovcache.probes.train.stepping.gauges import Gauges
from fovcache.probes.train.stepping.processes import open_processes
from fovcache.probes.train.stepping.trainer import Trainer

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_the_gpu_is_near_that_on_the_cpu(tmp_path: Path, precision: str) -> None:
    calm = Toy(dropout=0.0)
    found = train_toy(tmp_path / "gpu", toy=calm, device="cuda", precision=precision, how=How())
    expected = train_toy(tmp_path / "cpu", toy=calm)
    assert found.state == DONE
    assert found.plan is not None
    assert found.final["loss"] == pytest.approx(expected.final["loss"], rel=1e-4 if precision == "fp32" else 0.05)
    assert 0 < found.peak_memory_bytes < 2**30


def test_float16_leaves_out_what_overflows_and_goes_on(tmp_path: Path) -> None:
    class Steep(ToyModule):
        """Its gradients overflow at the first loss scales."""

        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            values = super().forward(batch)
            return {**values, "loss": values["loss"] * 50}

    run = train_toy(tmp_path, toy=Toy(module=Steep), device="cuda", precision="fp16")
    assert run.state == DONE
    assert run.events
    assert all("left out" in event for event in run.events)


def test_out_of_memory_on_the_gpu_is_halved(tmp_path: Path) -> None:
    class Large(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            free, _ = torch.cuda.mem_get_info()
            torch.empty(free * 2 * (len(batch["y"]) > 2), dtype=torch.uint8, device="cuda")
            return super().forward(batch)

    run = train_toy(tmp_path, toy=Toy(module=Large), device="cuda")
    assert run.state == DONE
    assert run.events
    assert "done again with 2" in run.events[-1]


def test_after_a_step_that_was_undone_float16_goes_on(tmp_path: Path) -> None:
    class Breaking(ToyModule):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            values = super().forward(batch)
            return {**values, "loss": values["loss"] * torch.nan} if self.training and self.num_passes > 5 else values

    run = train_toy(tmp_path, toy=Toy(module=Breaking), device="cuda", precision="fp16")
    assert (run.state, run.steps) == (FAILED, 5)


def test_the_peak_of_a_warmup_is_forgotten() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    gauges = Gauges(device)
    copy = torch.zeros(2**24, device=device)
    gauges.read(at_once=True)
    before = gauges.peak_memory_bytes
    del copy
    gauges.forget_peak()
    gauges.read(at_once=True)
    assert gauges.peak_memory_bytes <= before - 4 * 2**24


def test_a_snapshot_is_put_back_on_the_gpu() -> None:
    with open_processes(SETTINGS, "cuda") as processes:
        feed = ToyFeed()
        feed.x, feed.y = feed.x.cuda(), feed.y.cuda()
        trainer = Trainer(Toy(dropout=0.5).build(feed.inputs, 0).cuda(), feed, SETTINGS, processes)
        batches = feed.train_batches(0)
        some: list[FeedBatch] = [next(batches) for _ in range(5)]
        snapshot = trainer.snapshot()
        found = []
        for _ in range(2):
            found.append([trainer.step(batch).values["loss"] for batch in some])
            trainer.restore(snapshot)
    assert found[0] == pytest.approx(found[1], rel=1e-5)
