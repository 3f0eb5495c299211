"""What importing costs: nothing heavy until it is needed, and the four rooms under one name only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("bench", "models", "probes", "reports")
HEAVY = ("av", "diffusers", "h5py", "matplotlib", "sklearn", "torch", "transformers")

REPORT = f"import json, sys; print(); print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
HELP = """
import sys
from {module} import main
sys.argv = ["command", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def test_import_fovcache_loads_nothing_heavy(root: Path, tmp_path: Path) -> None:
    assert _loaded_by("import fovcache", root, tmp_path) == []


@pytest.mark.parametrize("module", ["fovcache.cli", "fovcache.bench.cli"])
def test_help_loads_nothing_heavy(module: str, root: Path, tmp_path: Path) -> None:
    assert _loaded_by(HELP.format(module=module), root, tmp_path) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_a_command_lets_openmp_spin_less_unless_told_otherwise(
    given: dict[str, str], expected: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code = HELP.format(module="fovcache.cli") + "\nimport os; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert _python(code, root, root).stdout.splitlines()[-1] == expected


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_loads_under_its_own_name_only(room: str, root: Path) -> None:
    wrong = _python(f"import {room}", root, cwd=root)
    assert wrong.returncode == 1
    assert f"ImportError: import fovcache.{room}, not {room}" in wrong.stderr
    right = _python(f"import fovcache.{room}", root, cwd=root)
    assert right.returncode == 0, right.stderr


def _loaded_by(code: str, root: Path, cwd: Path) -> list[str]:
    done = _python(f"{code}\n{REPORT}", root, cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _python(code: str, root: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
