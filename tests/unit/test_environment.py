"""The environment block: what a figure was measured on, fit to be published."""

import getpass
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from fovcache.bench.profiler.environment import cpu_limit_cores, environment


def test_it_says_what_it_was_measured_on() -> None:
    import torch

    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert {name: found[name] for name in ("transformers", "diffusers", "av")} == {
        name: version(name) for name in ("transformers", "diffusers", "av")
    }
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["matmul_precision"] == torch.get_float32_matmul_precision()
    assert found["memory_gib"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.1)
    assert found["device"] == "cpu"
    assert "device" not in environment()


def test_it_names_no_host_no_user_and_no_path() -> None:
    host, user = platform.node(), getpass.getuser()
    values = [str(value) for value in environment("cpu").values()]
    assert not [value for value in values if value in (host, user) or value.startswith(("/", "~"))]
    assert not [value for value in values if str(Path.home()) in value or str(Path.cwd()) in value]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_cores_are_those_that_the_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from fovcache.bench.profiler.environment import environment; print(environment()['cores'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_the_heavy_libraries_are_not_loaded_for_their_versions() -> None:
    code = "import sys; from fovcache.bench.profiler.environment import environment; environment()\n"
    code += "print({'transformers', 'diffusers', 'av'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/job", {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_a_containers_limit_is_the_least_of_its_groups(
    tmp_path: Path, own: str, files: dict[str, str], cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert cpu_limit_cores(tmp_path / "groups", tmp_path / "own") == cores


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_limit_cores(tmp_path / "groups", tmp_path / "own") is None
