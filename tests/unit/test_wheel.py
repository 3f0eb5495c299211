"""The sdist and the wheel as users get them: built from the house's files, installed, run from elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SAY_WHERE = "import fovcache.{0}; print(fovcache.{0}.__file__)"


@pytest.fixture(scope="module")
def wheel(root: Path, house_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the sdist that is made from a clean copy, all of it offline."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for path in house_files:
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    for link in (path for path in (root / "fovcache").iterdir() if path.is_symlink()):
        (copy / "fovcache" / link.name).symlink_to(link.readlink())
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    assert len(list(out.glob("fovcache-*.tar.gz"))) == 1
    (built,) = out.glob("fovcache-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel, and this one's packages after it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # Before the packages are in sight, lest pip takes the project that is installed here for its own.
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    _run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "packages.pth").write_text("\n".join(sorted(places)) + "\n")
    return folder


def test_the_wheel_holds_the_library_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fovcache"}
    expected = {"py.typed", "models/dinov2.py", "bench/cli.py", "reports/templates/profile.html"}
    assert {f"fovcache/{name}" for name in expected} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("command", ["fovcache", "fovbench"])
def test_the_commands_run_from_elsewhere(command: str, environment: Path, tmp_path: Path) -> None:
    assert "--help" in _run(environment / "bin" / command, "--help", cwd=tmp_path)


@pytest.mark.parametrize("room", ["bench", "models", "probes", "reports"])
def test_the_rooms_are_inside_the_package(room: str, environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    where = Path(_run(python, "-c", SAY_WHERE.format(room), cwd=tmp_path).strip())
    assert where.resolve().is_relative_to(environment.resolve())
    absent = f"import importlib.util; assert importlib.util.find_spec({room!r}) is None"
    _run(python, "-c", absent, cwd=tmp_path)


def test_the_extractors_entry_point_leads_to_a_factory(environment: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.metadata import entry_points as found\n"
        "(entry,) = found(group='fovcache.extractors', name='pixels')\n"
        "assert callable(entry.load())"
    )
    _run(environment / "bin" / "python", "-c", code, cwd=tmp_path)


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
