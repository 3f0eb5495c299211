"""Decoders left in the midst of their work: they never hang, and leave no memory, thread or file behind."""

from __future__ import annotations

import os
import subprocess
import sys


def test_five_hundred_early_exits_leave_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fovcache.bench.early_exit", "--clips", "generated", "--n", "500"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "SVT_LOG": "0"},
    )
    lines = done.stdout.splitlines()
    assert lines[-2].startswith("500 clips, 0 refused, ")
    assert lines[-1] == "no hang, nothing grew"
    assert done.returncode == 0, done.stdout + done.stderr
