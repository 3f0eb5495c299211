"""Every generator that a run may draw from: seeded from one seed, taken, and put back exactly.

They are Python's `random`, numpy's old global one, and torch's default ones of the CPU and of the run's device.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomStates:
    """The state of all generators of a process, as JSON can hold it; bytes are hexadecimal."""

    python_version: int
    """Of the state of `random`, as Python numbers them."""
    python: tuple[int, ...]
    """The words of its Mersenne Twister, and the position in them."""
    python_gauss: float | None
    """The normal number that it has in store."""
    numpy: str
    """The words of numpy's Mersenne Twister, uint32 little-endian."""
    numpy_position: int
    """The position in them."""
    numpy_has_gauss: int
    """Whether it has a normal number in store."""
    numpy_gauss: float
    """That number."""
    torch: str
    """Of torch's default generator of the CPU."""
    accelerator: str | None
    """Of the default generator of the run's device; None on the CPU."""


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed every generator of this process, each with a stream of its own, by the run's seed and the rank."""
    python, numpy, of_torch = np.random.SeedSequence([seed, rank]).generate_state(3, np.uint64).tolist()
    random.seed(python)
    np.random.seed(numpy % 2**32)
    torch.manual_seed(of_torch % 2**63)  # of every device


def take_random(device: torch.device = _CPU) -> RandomStates:
    """The state of every generator, nothing drawn."""
    version, words, gauss = random.getstate()
    kept = np.random.get_state(legacy=False)
    assert isinstance(kept, dict)
    return RandomStates(
        python_version=version,
        python=tuple(words),
        python_gauss=gauss,
        numpy=kept["state"]["key"].astype("<u4").tobytes().hex(),
        numpy_position=int(kept["state"]["pos"]),
        numpy_has_gauss=int(kept["has_gauss"]),
        numpy_gauss=float(kept["gauss"]),
        torch=_hex(torch.get_rng_state()),
        accelerator=_accelerator_state(device),
    )


def put_back_random(states: RandomStates, device: torch.device = _CPU) -> None:
    """Make every generator go on from `states`. Of a device of another type its own generator stays as it is."""
    random.setstate((states.python_version, states.python, states.python_gauss))
    state = {"key": np.frombuffer(bytes.fromhex(states.numpy), "<u4"), "pos": states.numpy_position}
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": state,
            "has_gauss": states.numpy_has_gauss,
            "gauss": states.numpy_gauss,
        }
    )
    torch.set_rng_state(_bytes(states.torch))
    if states.accelerator is not None and device.type == "cuda":
        torch.cuda.set_rng_state(_bytes(states.accelerator), device)
    elif states.accelerator is not None and device.type == "mps":
        torch.mps.set_rng_state(_bytes(states.accelerator))


@contextlib.contextmanager
def own_random(seed: int, rank: int = 0, device: torch.device = _CPU) -> Iterator[None]:
    """Run a block under a seed of its own; every generator goes on afterwards as if the block had not been."""
    before = take_random(device)
    try:
        seed_all(seed, rank)
        yield
    finally:
        put_back_random(before, device)


def _accelerator_state(device: torch.device) -> str | None:
    if device.type == "cuda":
        return _hex(torch.cuda.get_rng_state(device))
    if device.type == "mps":
        return _hex(torch.mps.get_rng_state())
    return None


def _hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(state: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)
