"""The bars of `fovcache.bench.peers`, which measures them at full size by hand.

Timings of a shared machine spread, so a bar fails here only when it is missed for certain: when the whole
interval of the median ratio lies below it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from fovcache.bench.peers import random_rows, reading, resident_epoch, train_loop
from fovcache.bench.peers.comparison import Comparison
from fovcache.bench.peers.synthetic import write_features

GIB = 0.25
ROUNDS = 9
DATALOADER_BAR_ON_CPU = 20
"""50 are asked of a GPU. In host memory rows are copied no faster than its bandwidth allows, whoever copies them."""


def test_reading_whole(tmp_path: Path) -> None:
    _check(reading.measure(tmp_path, gib=GIB, rounds=ROUNDS), num_bars=1)


def test_rows_at_random(tmp_path: Path) -> None:
    _check(random_rows.measure(tmp_path, gib=GIB, batch=256, rounds=ROUNDS), num_bars=6)


def test_resident_epoch(tmp_path: Path) -> None:
    rows = random_rows.random_rows(50_000, resident_epoch.WIDTH, torch.bfloat16)
    features = write_features(tmp_path, rows, num_classes=len(rows))
    comparison = resident_epoch.measure(features, batch=256, rounds=ROUNDS, device="cpu", epochs=3)
    _check(comparison, num_bars=2, at_most=DATALOADER_BAR_ON_CPU)


def test_the_training_loop_beside_a_bare_one() -> None:
    _check(train_loop.measure(rounds=ROUNDS, steps=30, batch=64, threads=1), num_bars=1)


def test_training_over_a_cache_waits_for_no_batches(tmp_path: Path) -> None:
    _check(train_loop.measure_waiting(tmp_path, rounds=ROUNDS, steps=30, threads=1, clips=1000), num_bars=1)


def _check(comparison: Comparison, *, num_bars: int, at_most: float = math.inf) -> None:
    """`at_most` lowers the bars that are higher."""
    asked = {bar: min(bar.at_least, at_most) for bar in comparison.bars if bar.at_least is not None}
    assert len(asked) == num_bars
    assert not [bar for bar, at_least in asked.items() if bar.high < at_least]
