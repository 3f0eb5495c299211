"""How long a command takes to say how it is used: half a second at most, process start included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

LIMIT_S = 0.5


@pytest.mark.parametrize("module", ["fovcache.cli", "fovcache.bench.cli"])
def test_help(module: str, benchmark: BenchmarkFixture, has_bars: bool, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"from {module} import main; main()", "--help"]
    environment = os.environ | {"PYTHONPATH": str(root)}

    def run() -> bytes:
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout

    assert b"--help" in benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    if has_bars and benchmark.stats is not None:  # None under --benchmark-disable
        assert benchmark.stats.stats.median <= LIMIT_S
