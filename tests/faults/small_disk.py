"""A disk that can be made small, full or read-only while it is in use, which needs root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOMY = "16m"


class SmallDisk:
    """A file system in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted: {done.stderr.decode().strip()}")

    def remount(self, options: str) -> None:
        """Change its `size=…`, or make it `ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)
