"""What a training run keeps of a GPU: generators, tensors and the optimiser's moments, exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fovcache.probes.train.saving.checkpoint import TrainState, load_checkpoint, save_checkpoint
from fovcache.probes.train.saving.random_states import own_random, put_back_random, seed_all, take_random
from fovcache.probes.train.stepping.audit import gradient_names

pytestmark = pytest.mark.needs_cuda


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.device_count() - 1)  # not the current one where there are several


def test_a_gpus_generator_is_taken_and_put_back(device: torch.device) -> None:
    seed_all(0)
    states = take_random(device)
    drawn = torch.randn(5, device=device)
    with own_random(3, device=device):
        assert not torch.equal(torch.randn(5, device=device), drawn)
    going_on = torch.randn(5, device=device)
    put_back_random(states, device)
    assert torch.equal(torch.randn(5, device=device), drawn)
    assert torch.equal(torch.randn(5, device=device), going_on)
    put_back_random(replace(states, accelerator=None), device)
    put_back_random(states, torch.device("cpu"))  # its device is another now: the GPU's stays as it is


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(device: torch.device, tmp_path: Path, fused: bool) -> None:
    def training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        seed_all(seed)
        module = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1)).to(device)
        return module, torch.optim.AdamW(module.parameters(), lr=0.01, fused=fused)

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            module(torch.randn(32, 8, device=device)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    module, optimizer = training(0)
    steps(module, optimizer)
    state = TrainState(samples_seen=96, steps=3, random=(take_random(device),))
    path = save_checkpoint(tmp_path, module=module, optimizer=optimizer, state=state, keep=1)
    steps(module, optimizer)
    again, its_optimizer = training(1)
    put_back_random(load_checkpoint(path, module=again, optimizer=its_optimizer).random[0], device)
    steps(again, its_optimizer)
    expected = module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert {value.device for value in again.state_dict().values()} == {device}


def test_the_audit_draws_nothing_from_a_gpus_generator(device: torch.device) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, device=device))

        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"loss": (nn.functional.dropout(batch["x"], 0.5) * self.weight).sum(1)}

    before = take_random(device)
    assert gradient_names(Model(), {"x": torch.ones(3, 4, device=device)}) == {"weight"}
    assert take_random(device) == before
