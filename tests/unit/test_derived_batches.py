"""Computing many rows: the same bits on any number of threads, within memory, and as widened."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import known_representations, resolve_representation
from fovcache.errors import UsageError

NUM_THREADS = 3
MEMORY = """
import resource, sys, torch
from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import resolve_representation
torch.set_num_threads(2)
ensemble = resolve_representation("ensemble")
x = torch.randn(6000, 60, 96)
compute_rows(ensemble, x[:200], device="cpu", max_bytes=1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
compute_rows(ensemble, x, device="cpu", max_bytes=int(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", known_representations())
def test_the_number_of_threads_does_not_change_a_bit(name: str) -> None:
    representation = resolve_representation(name)
    x = torch.randn(700, 17, 192, generator=torch.Generator().manual_seed(0))
    found = []
    for num_threads in (1, NUM_THREADS):
        torch.set_num_threads(num_threads)
        found.append(compute_rows(representation, x, device="cpu"))
        assert torch.get_num_threads() == num_threads
    assert torch.equal(*found)


@pytest.mark.usefixtures("threads")
def test_a_failure_in_a_thread_is_raised_and_leaves_torch_its_threads() -> None:
    torch.set_num_threads(NUM_THREADS)
    x = torch.randn(2000, 17, 192)
    x[1999, 0, 0] = torch.nan
    running = threading.active_count()
    with pytest.raises(UsageError, match="NaN or infinity"):
        compute_rows(resolve_representation("stats"), x, device="cpu")
    assert torch.get_num_threads() == NUM_THREADS
    assert threading.active_count() == running


def test_working_memory_stays_below_what_is_allowed() -> None:
    max_bytes = 24 << 20
    output = subprocess.check_output([sys.executable, "-c", MEMORY, str(max_bytes)], text=True)
    assert int(output) < max_bytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_widened_before_anything_is_computed(dtype: torch.dtype) -> None:
    x = (torch.randn(20, 5, 16) * 100).to(dtype)
    representation = resolve_representation("distribution")
    assert torch.equal(
        compute_rows(representation, x, device="cpu"), compute_rows(representation, x.float(), device="cpu")
    )


def test_what_are_no_matrices_is_refused() -> None:
    with pytest.raises(UsageError, match=r"got \(4, 5\) of torch.float32"):
        compute_rows(resolve_representation("stats"), torch.zeros(4, 5), device="cpu")
    with pytest.raises(UsageError, match=r"got \(4, 5, 6\) of torch.int64"):
        compute_rows(resolve_representation("stats"), torch.zeros(4, 5, 6, dtype=torch.int64), device="cpu")
