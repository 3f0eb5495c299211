"""Representations of many matrices, beside loops over them in numpy and in torch.

python -m fovcache.bench.peers.representations [--samples 10000] [--shape 17x192 68x192 1x320] [--rounds 5]
    [--device cpu] [--out DIR]
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from fovcache.derived.batches import compute_rows
from fovcache.derived.representation import known_representations, resolve_representation

from .comparison import Comparison, Method, compare, finish
from .per_sample import Function, numpy_functions, sorted_quantile, torch_functions

Loop = Callable[[torch.Tensor], Any]

BAR = 10.0
LOOP_VALUES = 4_000_000
"""A loop goes over so many values a round, or a round would take minutes; rates are per sample."""
TRIAL = 20
"""Matrices that decide how many threads are better for a loop."""
BY_HAND = "numpy with np.sort"
SORTED = ("stats", "rank_based", "distribution")
"""Whose quantiles a loop may also take from a whole sort: reported, not judged."""
COPIES = ("flat_vec",)
"""Nothing is computed: whoever copies waits for the memory. Reported, not judged."""


def measure(
    num_tokens: int, num_channels: int, *, num_samples: int, rounds: int, device: str, names: Sequence[str] = ()
) -> Comparison:
    """Every representation, by ours and by loops, each loop with one thread or with all, whichever is faster."""
    generator = torch.Generator().manual_seed(0)
    x_NTC = (torch.randn(num_samples, num_tokens, num_channels, generator=generator) + 0.3).to(device)
    names = names or known_representations()
    num_looped = min(max(LOOP_VALUES // (num_tokens * num_channels), 100), 2000, num_samples)
    title = f"{num_samples} matrices of {num_tokens} × {num_channels} in float32 on {device}, loops over {num_looped}"
    all_threads = torch.get_num_threads()
    try:
        with threadpool_limits(all_threads, "blas"):  # as they are, until the end
            methods = {name: _methods(name, x_NTC, num_looped, all_threads) for name in names}
            every = [method for each in methods.values() for method in each]
            comparison = compare(title, every, unit="thousand matrices", rounds=rounds)
    finally:
        torch.set_num_threads(all_threads)
    for name, (ours, *loops) in methods.items():
        usual = comparison.fastest([each.name for each in loops if BY_HAND not in each.name])
        comparison.judge(ours.name, usual, None if name in COPIES else BAR)
        for each in loops:
            if BY_HAND in each.name:
                comparison.judge(ours.name, each.name)
    return comparison


def _methods(name: str, x_NTC: torch.Tensor, num_looped: int, all_threads: int) -> list[Method]:
    """Ours, and then the loops."""
    representation = resolve_representation(name)
    stride = len(x_NTC) // num_looped  # over all of memory, as ours
    looped = x_NTC[: num_looped * stride : stride]
    expected = compute_rows(representation, looped, device=x_NTC.device).numpy()

    def check(found: Any) -> None:
        rows = np.asarray(found) if len(found) == num_looped else found[: num_looped * stride : stride].numpy()
        np.testing.assert_allclose(rows, expected, rtol=2e-3, atol=2e-3, err_msg=name)

    def method(way: str, run: Callable[[], Any], num: int, threads: int) -> Method:
        before = functools.partial(_use_threads, threads)
        return Method(name=f"{name}, {way}", run=run, check=check, amount=num / 1000, before=before)

    ours = method("ours", lambda: compute_rows(representation, x_NTC, device=x_NTC.device), len(x_NTC), all_threads)
    loops: dict[str, Loop] = {
        "numpy": functools.partial(_numpy_loop, numpy_functions()[name]),
        "torch": functools.partial(_torch_loop, torch_functions(x_NTC.device)[name]),
    }
    if name in SORTED:
        loops[BY_HAND] = functools.partial(_numpy_loop, numpy_functions(sorted_quantile)[name])
    found = [ours]
    for way, loop in loops.items():
        threads = min({1, all_threads}, key=lambda threads: _trial(loop, looped, threads))
        words = f"{way}, {threads} thread{'s' if threads > 1 else ''}"
        found.append(method(words, functools.partial(loop, looped), num_looped, threads))
    return found


def _trial(loop: Loop, looped: torch.Tensor, threads: int) -> float:
    """Seconds that a loop takes for a few matrices, at best."""
    _use_threads(threads)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        loop(looped[:TRIAL])
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _use_threads(threads: int) -> None:
    """Torch's, and those of numpy's BLAS."""
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")


def _numpy_loop(function: Function, looped: torch.Tensor) -> np.ndarray:
    return np.array([function(x) for x in looped.cpu().numpy()], np.float32)


def _torch_loop(function: Function, looped: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.stack([function(x) for x in looped]).cpu()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--shape", nargs="+", default=["17x192", "68x192", "1x320"], help="tokens x channels")
    parser.add_argument("--name", nargs="+", default=[], help="representations; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="folder for representations.json and representations.md")
    options = parser.parse_args()
    comparisons = []
    for shape in options.shape:
        num_tokens, num_channels = map(int, shape.split("x"))
        comparisons.append(
            measure(
                num_tokens,
                num_channels,
                num_samples=options.samples,
                rounds=options.rounds,
                device=options.device,
                names=options.name,
            )
        )
    finish("representations", comparisons, options.out)


if __name__ == "__main__":
    main()
