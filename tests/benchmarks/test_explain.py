"""Explaining 2,000 samples of a shard, all of which are cached."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

import fovcache
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.maintain.explain import explain
from fovcache.store.storage import LocalStorage

NUM_SAMPLES = 2000


def test_explain(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    generator = np.random.default_rng(0)
    with tarfile.open(shard, "w") as archive:
        for number in range(NUM_SAMPLES):
            file = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = file.tell()
            archive.addfile(member, io.BytesIO(file.getvalue()))
    written_s = time.time()
    fovcache.open(tmp_path / "cache").build(str(shard), encoder="pixels")
    time.sleep(max(0.0, written_s + 2.1 - time.time()))  # beyond the memo's racy window
    arguments = (LocalStorage(tmp_path / "cache"), [str(shard)], EncoderRequest(encoder="pixels"), BuildOptions())
    explain(*arguments)  # hashes the shard once more, and remembers it
    assert benchmark(explain, *arguments).hits == NUM_SAMPLES
