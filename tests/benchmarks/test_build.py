"""Builds: cold over real images where there are some, and warm, where nothing is decoded and no model runs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

import fovcache

WARM_LIMIT_S = 3.0
"""Process time of a warm build of 7,000 images, start-up and building the user's module included."""


@pytest.mark.slow
def test_warm_build_of_20000_files(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(20_000):
        pixels = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    cache = fovcache.open(tmp_path / "cache")
    assert cache.build(str(tmp_path / "images"), encoder="pixels").computed == 20_000
    time.sleep(2.1)  # beyond the memo's racy window, so that the next build may trust it
    cache.build(str(tmp_path / "images"), encoder="pixels")
    report = benchmark(cache.build, str(tmp_path / "images"), encoder="pixels")
    assert (report.computed, report.reused) == (0, 20_000)


@pytest.mark.slow
@pytest.mark.needs_shared
def test_cifar10_with_resnet20(benchmark: BenchmarkFixture, shared: Path, tmp_path: Path) -> None:
    """The whole command, in a process of its own: cold once, then warm, whose CPU time is what is measured."""
    command = [sys.executable, "-m", "fovcache.cli", "build", "--cache", str(tmp_path / "cache"), "--json", "-"]
    command += [f"{split}={shared}/data/cifar10/{split}-*.tar" for split in ("train", "test")]
    command += [
        "--encoder",
        f"{Path(__file__).parent.parent}/encoders/resnet20.py:make",
        "--layers",
        "layer1,layer2,layer3",
    ]
    command += ["--weights", f"{shared}/data/weights/resnet20-cifar10.safetensors", "--pool", "mean"]

    def run() -> dict[str, object]:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
        document: dict[str, object] = json.loads(done.stdout)
        return document

    cold = run()
    assert cold["computed"] == 7000
    benchmark.extra_info["cold_samples_per_s"] = cold["samples_per_s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    warm = benchmark.pedantic(run, rounds=5)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    process_s = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5
    benchmark.extra_info["warm_process_s"] = process_s
    assert (warm["computed"], warm["reused"]) == (0, 7000)
    if benchmark.stats is not None:
        assert process_s <= WARM_LIMIT_S
