"""An epoch over rows in memory, beside a bare indexing loop and torch's DataLoader over the same tensors.

python -m fovcache.bench.peers.resident_epoch [--rows 50000] [--batch 256 32 8] [--dtype bfloat16 float32]
    [--rounds 12] [--device cpu] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from fovcache.loaders.feature_set import FeatureSet

from .comparison import Comparison, Method, compare, finish
from .synthetic import random_rows, write_features

WIDTH = 384
OURS = "ours, resident"
WITHIN = 1 / 1.05
DATALOADER_BAR = 50.0

Batches = Iterable[Any]


def measure(features: FeatureSet, *, batch: int, rounds: int, device: str, epochs: int) -> Comparison:
    """Shuffled epochs of x and y. Every method runs with one thread and with all, and counts at its better one."""
    x, y = features.tensors(device)
    assert y is not None
    dataset = TensorDataset(x, y)
    loader = features.loader(batch, shuffle=True, device=device, residency="device")

    def bare() -> Batches:
        for index in torch.randperm(len(x), device=device).split(batch):
            yield x[index], y[index]

    ways: dict[str, Callable[[], Batches]] = {OURS: lambda: loader, "bare x[index] loop": bare}
    standard: dict[str, Callable[[], Batches]] = {"DataLoader": lambda: DataLoader(dataset, batch, shuffle=True)}
    if x.device.type == "cpu":  # tensors on an accelerator do not go through workers
        kept = DataLoader(dataset, batch, shuffle=True, num_workers=2, persistent_workers=True)
        standard["DataLoader, 2 workers"] = lambda: kept
    sampler = BatchSampler(RandomSampler(dataset), batch, drop_last=False)
    by_batch = {"DataLoader, batch sampler as sampler": lambda: DataLoader(dataset, batch_size=None, sampler=sampler)}
    threads = sorted({1, os.cpu_count() or 1}) if x.device.type == "cpu" else [torch.get_num_threads()]
    methods = [
        _method(name, way, dataset, epochs if name in ways else 1, number, device)
        for name, way in {**ways, **standard, **by_batch}.items()
        for number in (threads if name in ways else threads[:1])
    ]
    size = f"{WIDTH} × {str(x.dtype).removeprefix('torch.')}"
    title = f"Shuffled epochs over {len(x)} rows of {size} on {device}, {batch} at a time"
    all_threads = torch.get_num_threads()
    try:
        comparison = compare(title, methods, unit="million rows", rounds=rounds)
    finally:
        torch.set_num_threads(all_threads)
    mine, loop = (comparison.fastest([m.name for m in methods if m.name.startswith(way)]) for way in ways)
    comparison.judge(mine, loop, WITHIN)
    comparison.judge(
        mine,
        comparison.fastest([m.name for m in methods if m.name.startswith(tuple(standard)) and "sampler" not in m.name]),
        DATALOADER_BAR,
    )
    comparison.judge(mine, next(m.name for m in methods if "sampler" in m.name))
    return comparison


def _method(
    name: str, way: Callable[[], Batches], dataset: TensorDataset, epochs: int, threads: int, device: str
) -> Method:
    x, y = dataset.tensors
    full = f"{name} ({threads} thread{'s' if threads > 1 else ''})"

    def run() -> list[Any]:
        kept: list[Any] = []
        for _ in range(epochs):
            kept = list(way()) if epochs == 0 else _consume(way())
        if device != "cpu":
            torch.cuda.synchronize()
        return kept

    def check(kept: list[Any]) -> None:
        """The labels are the rows' numbers, so that each batch says which rows it must hold."""
        for rows, numbers in kept:
            assert torch.equal(rows, x[numbers]), name
            assert torch.equal(numbers, y[numbers]), name

    seen = torch.cat([numbers for _, numbers in way()])
    assert torch.equal(seen.sort().values, y), name
    assert not torch.equal(seen, y), name
    amount = epochs * len(x) / 1e6
    return Method(name=full, run=run, check=check, amount=amount, before=lambda: torch.set_num_threads(threads))


def _consume(batches: Batches) -> list[Any]:
    """Go through all batches; the first and the last one."""
    first = last = None
    for last in batches:
        first = first or last
    return [first, last]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 32, 8], help="rows in a batch")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], help="of the rows")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5, help="epochs a run, for the fast methods")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="folder for resident_epoch.json and resident_epoch.md")
    options = parser.parse_args()
    comparisons = []
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory() as folder:
            rows = random_rows(options.rows, WIDTH, getattr(torch, dtype))
            features = write_features(Path(folder) / "cache", rows, num_classes=options.rows)
            for batch in options.batch:
                comparisons.append(
                    measure(features, batch=batch, rounds=options.rounds, device=options.device, epochs=options.epochs)
                )
    finish("resident_epoch", comparisons, options.out)


if __name__ == "__main__":
    main()
