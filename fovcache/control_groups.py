"""Linux control groups: what a container or a batch system lets this process have of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of the limit and of what is used, and the line of `memory.stat` of what can be dropped at once."""


def own_folders(controller: str, groups: Path = GROUPS, own: Path = OWN_GROUPS) -> list[Path]:
    """This process's control groups and those above them, of the second version or the controller's of the first.

    In a container the path is often that of the host while only the container's own group is mounted, at the top.
    """
    found = {groups, groups / controller}
    for line in text_of(own).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number != "0" and controller not in controllers.split(","):
            continue
        top = groups if number == "0" else groups / controller
        inside = top / path.strip("/")
        found |= {inside, *(parent for parent in inside.parents if top in parent.parents)}
    return sorted(found)


def remaining_memory_bytes(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int | None:
    """What this process's control groups let it take yet; None where none of them has a limit."""
    return min(_remaining(groups, own), default=None)


def _remaining(groups: Path, own: Path) -> Iterator[int]:
    for folder in own_folders("memory", groups, own):
        for limit_file, used_file, dropped_line in (_V2, _V1):
            limit, used = text_of(folder / limit_file), text_of(folder / used_file)
            if limit.isdigit() and used.isdigit():  # not "max"
                lines = dict(line.split(" ", 1) for line in text_of(folder / "memory.stat").splitlines() if " " in line)
                yield max(0, int(limit) - int(used) + int(lines.get(dropped_line, 0)))


def text_of(path: Path) -> str:
    """What a file says, without space around; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
