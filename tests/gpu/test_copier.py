"""Batches come to the GPU whole, while it is busy and the host goes on."""

import pytest
import torch

from fovcache.builder.copier import Copier

pytestmark = pytest.mark.needs_cuda


def test_batches_of_changing_sizes_are_what_they_were_though_their_memory_is_reused() -> None:
    device = torch.device("cuda")
    copier = Copier(device)
    generator = torch.Generator().manual_seed(0)
    made, copied = [], []
    busy = torch.randn(4096, 4096, device=device)
    for number in range(12):
        for _ in range(20):
            busy = busy @ busy / 64  # the copies wait behind it
        kind = torch.uint8 if number % 3 else torch.float32
        batch = torch.randint(0, 255, (1 + 37 * (number % 5), 64, 3), generator=generator).to(kind)
        made.append(batch.clone())
        copied.append(copier(batch))
        batch.zero_()
    for before, after in zip(made, copied, strict=True):
        assert torch.equal(before, after.cpu())


def test_the_host_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda")
    copier = Copier(device)
    copier(torch.zeros(8, dtype=torch.uint8))
    copier(torch.zeros(8, dtype=torch.uint8))
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)
    done = torch.cuda.Event()
    copier(torch.zeros(8, dtype=torch.uint8))
    done.record()
    assert not done.query()
