"""What control groups leave of the memory, of either version, on made trees of their files."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from fovcache.control_groups import remaining_memory_bytes
from fovcache.loaders.residency import free_host_bytes

HUGE = "9223372036854771712"


@pytest.mark.parametrize(
    ("own", "files", "remaining"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.max": "max", "memory.current": "70"}, None),
        ("0::/\n", {"memory.max": "100", "memory.current": "70"}, 30),
        ("0::/\n", {"memory.max": "100", "memory.current": "70", "memory.stat": "anon 9\ninactive_file 15\n"}, 45),
        ("0::/\n", {"memory.max": "100", "memory.current": "120"}, 0),
        (
            "0::/job/step\n",
            {
                "job/memory.max": "100",
                "job/memory.current": "70",
                "job/step/memory.max": "max",
                "job/step/memory.current": "9",
            },
            30,
        ),
        ("0::/host/path\n", {"memory.max": "100", "memory.current": "70"}, 30),  # only the container's own is mounted
        (
            "3:cpu:/\n4:memory:/job\n",
            {
                "memory/memory.limit_in_bytes": HUGE,
                "memory/memory.usage_in_bytes": "70",
                "memory/job/memory.limit_in_bytes": "100",
                "memory/job/memory.usage_in_bytes": "50",
                "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 20",
            },
            70,
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, own: str, files: dict[str, str], remaining: int | None) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert remaining_memory_bytes(tmp_path / "groups", tmp_path / "own") == remaining


def test_free_memory_is_what_both_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    from fovcache.loaders import residency

    assert 0 < free_host_bytes() <= psutil.virtual_memory().total
    for remaining, free in ((5, 5), (1 << 60, psutil.virtual_memory().available), (None, None)):
        monkeypatch.setattr(residency, "remaining_memory_bytes", lambda remaining=remaining: remaining)
        found = free_host_bytes()
        assert found == 5 if free == 5 else found > 5
