"""The bars of `fovcache.bench.peers.decoding`, which measures them at full size by hand.

Real clips are used where there are any, else generated ones. A bar fails here only when the whole interval of the
median ratio lies below it, since timings of a shared machine spread.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fovcache.bench.peers import decoding
from fovcache.bench.peers.comparison import Comparison

ROUNDS = 7
SHARED = Path(os.environ.get("SHARED") or Path(__file__).resolve().parents[3] / "shared")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[decoding.Clip]:
    folder = SHARED / "data/clips"
    return decoding.open_clips(folder if folder.is_dir() else None, tmp_path_factory.mktemp("clips"))


def test_beside_others(clips: list[decoding.Clip]) -> None:
    left_out = decoding.torchcodec_methods()
    comparison = decoding.measure(clips, rounds=ROUNDS)
    _check(comparison, num_bars=1 if isinstance(left_out, str) else 2)


def test_threads(clips: list[decoding.Clip]) -> None:
    num_threads = decoding.available_cores()
    if num_threads == 1:
        pytest.skip("one core: nothing to do at a time")
    _check(decoding.measure_threads(clips, rounds=ROUNDS, num_threads=num_threads, repeats=4), num_bars=1)


def _check(comparison: Comparison, *, num_bars: int) -> None:
    asked = {bar: bar.at_least for bar in comparison.bars if bar.at_least is not None}
    assert len(asked) == num_bars
    assert not [bar for bar, at_least in asked.items() if bar.high < at_least]
