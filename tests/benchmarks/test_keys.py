"""Hashing: what a cold scan and the fingerprint of an encoder cost."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from fovcache.keys.digest import file_digest
from fovcache.keys.state import module_state_digest

SIZE = 256 << 20


def test_file_digest(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(data)
    benchmark.extra_info["bytes"] = SIZE
    assert benchmark(file_digest, tmp_path / "file") == blake3(data).hexdigest()


def test_state_digest_of_22_million_parameters(benchmark: BenchmarkFixture) -> None:
    """The size of a ViT-S."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True) for _ in range(12)))
    digest = benchmark(module_state_digest, module, local_modules={})
    module[0].norm1.weight[0].data.add_(1)
    assert module_state_digest(module, local_modules={}) != digest
