"""`fovbench check` on a small repository: a slow change is caught, an equal one passes, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fovcache.bench.regression import trees
from fovcache.bench.regression.check import CheckRequest, run_check
from fovcache.bench.regression.runs import read_runs
from fovcache.builder.progress import silent
from fovcache.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

# A quarter more than before is slower; what does not change is not. Rounds are few, so that a process is short.
HOT = """
def work():
    return sum(range({size}))

def other():
    return sum(range(20_000))
"""
SUITE = """
from fovcache.hot import other, work

def test_work(benchmark):
    benchmark.pedantic(work, rounds=20)

def test_other(benchmark):
    benchmark.pedantic(other, rounds=20)
"""
OWN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


class Repository:
    """A git repository with a package called fovcache and a suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.write("fovcache/__init__.py", "")
        self.write("fovcache/hot.py", HOT.format(size=20_000))
        self.write("tests/benchmarks/test_hot.py", SUITE)
        self.write(".gitignore", "__pycache__\n")
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit("first")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = ["git", "-C", str(self.folder), *author, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | OWN).stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def state(self) -> list[Any]:
        """All that git knows of, and every file, with the index and the list of worktrees."""
        inside = [path for path in self.folder.rglob("*") if ".git/objects" not in str(path) and path.is_file()]
        return [
            self.git("status", "--porcelain"),
            self.git("worktree", "list"),
            {str(path): path.read_bytes() for path in inside if path.name != "index"},  # `status` may refresh that
        ]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fovcache.bench.cli", *map(str, arguments)]
        environment = os.environ | OWN | {"TMPDIR": str(self.temporary), "PYTHONPATH": str(Path(__file__).parents[2])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        cwd = self.folder / "tests"  # any folder of the repository will do; one that has a fovcache would be imported
        return subprocess.Popen(command, cwd=cwd, env=environment, **pipes)

    def check(self, *arguments: object) -> tuple[int, str, str]:
        process = self.start("check", *arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_slow_change_is_caught_and_only_that(repository: Repository, tmp_path: Path) -> None:
    repository.write("fovcache/hot.py", HOT.format(size=30_000))
    repository.write("fovcache/new.py", "def new():\n    return 1\n")
    repository.write(
        "tests/benchmarks/test_new.py",
        "from fovcache.new import new\n\ndef test_new(benchmark):\n    benchmark.pedantic(new, rounds=5)\n",
    )
    before = repository.state()
    status, out, err = repository.check("main", "--confirming", 10, "--json", tmp_path / "check.json")
    assert status == 1, (out, err)
    document = json.loads((tmp_path / "check.json").read_text())
    slow = "tests/benchmarks/test_hot.py::test_work"
    assert document["slower"] == [slow]
    assert [row["name"] for row in document["confirmation"]["rows"]] == [slow]
    assert 1.3 < document["confirmation"]["rows"][0]["ratio"] < 1.7
    assert document["new"] == {
        "tests/benchmarks/test_new.py::test_new": "ModuleNotFoundError: No module named 'fovcache.new'"
    }
    base, head, *_ = document["runs"]
    assert base["commit"] == repository.git("rev-parse", "main").strip()
    assert head["commit"] == f"{base['commit']} + changes"
    runs = [(side, process) for side in (base, head) for process in side["processes"]]
    assert {process["package"] for _, process in runs} == {"fovcache/__init__.py"}
    in_time = "".join("B" if side is base else "H" for side, _ in sorted(runs, key=lambda each: int(each[1]["order"])))
    assert in_time == "BHHB" * 5
    assert "slower (p < 0.002 and more than 10%): " + slow in out
    assert "new, does not run on BASE: tests/benchmarks/test_new.py::test_new: " in out
    assert repository.state() == before
    assert list(repository.temporary.iterdir()) == []


def test_an_equal_version_passes(repository: Repository) -> None:
    repository.write("README", "a change that costs nothing\n")
    repository.commit("second")
    status, out, err = repository.check("HEAD~1", "--select", "other", "--suite", "tests/benchmarks/test_hot.py")
    assert status == 0, (out, err)
    assert "none of 1 benchmarks is slower" in out
    assert "test_work" not in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_is_stopped_leaves_nothing(repository: Repository, number: signal.Signals) -> None:
    repository.write("tests/benchmarks/test_slow.py", "import time\n\ndef test_slow(benchmark):\n    time.sleep(60)\n")
    before = repository.state()
    process = repository.start("check", "main")
    try:
        children = _wait_for(lambda: [each for each in _children(process) if "--benchmark-only" in each.cmdline()])
        assert list(repository.temporary.iterdir()) != []
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert err.splitlines() == [err.strip()]
    assert err.endswith("ed; nothing is kept: the next run begins anew\n")
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert list(repository.temporary.iterdir()) == []
    assert repository.state() == before


def test_what_cannot_be_checked_is_refused(repository: Repository) -> None:
    def refused(ref: str, **settings: Any) -> str:
        with pytest.raises(UsageError) as caught:
            run_check(repository.folder, CheckRequest(ref=ref, **settings), silent)
        return str(caught.value)

    assert "'nowhere' names no commit" in refused("nowhere")
    assert "processes is 9; expected at least 10" in refused("main", processes=9)
    assert "no suite at tests/nothing" in refused("main", suite=Path("tests/nothing"))
    assert "lies in the package" in refused("main", suite=Path("fovcache"))
    assert "no benchmark in tests/benchmarks is left to run (-k 'nothing'" in refused("main", select="nothing")
    repository.write("tests/benchmarks/test_bad.py", "def test_bad(benchmark):\n    assert benchmark(lambda: 1) == 2\n")
    assert "test_bad.py::test_bad: assert 1 == 2" in refused("main", select="bad")
    repository.write(
        "tests/benchmarks/test_bad.py", "from fovcache.new import x\n\ndef test_bad(benchmark):\n    pass\n"
    )
    assert "No module named 'fovcache.new'" in refused("main", suite=Path("tests/benchmarks/test_bad.py"))
    with pytest.raises(UsageError, match="not in a git repository"):
        run_check(repository.temporary, CheckRequest(ref="main"), silent)


def test_the_command_says_it_in_a_line(repository: Repository) -> None:
    status, out, err = repository.check("nowhere")
    assert (status, out) == (2, "")
    assert err.startswith("error: 'nowhere' names no commit; expected a branch, tag or revision")
    assert len(err.splitlines()) == 1


def test_two_files_of_runs_are_compared(repository: Repository, tmp_path: Path, root: Path) -> None:
    """`make bench` is this command."""
    command = [
        sys.executable,
        "-m",
        "fovcache.bench.regression.measure",
        str(tmp_path / "runs.json"),
        "--processes",
        "2",
    ]
    environment = os.environ | OWN | {"PYTHONPATH": str(root)}
    subprocess.run(command, cwd=repository.folder / "tests", env=environment, check=True, stdout=subprocess.PIPE)
    runs = read_runs(tmp_path / "runs.json")
    assert runs.names == ["tests/benchmarks/test_hot.py::test_work", "tests/benchmarks/test_hot.py::test_other"]
    assert len(runs.processes) == 2
    assert {process.benchmarks[runs.names[0]].rounds for process in runs.processes} == {20}
    assert runs.commit == repository.git("rev-parse", "main").strip()


def test_trees_are_whole(repository: Repository, tmp_path: Path) -> None:
    """Links stay links; what is staged, changed, new or deleted in the working tree is as it is there."""
    (repository.folder / "fovcache/link").symlink_to("../tests")
    repository.write("gone.txt", "")
    repository.commit("second")
    repository.write("new.txt", "new")
    repository.write("fovcache/hot.py", "changed")
    repository.write("junk/__pycache__/x.pyc", "ignored")
    (repository.folder / "gone.txt").unlink()
    before = repository.state()
    trees.write_commit(repository.folder, trees.commit_of(repository.folder, "HEAD"), tmp_path / "base")
    trees.copy_working_tree(repository.folder, tmp_path / "head")

    def names(tree: Path) -> set[str]:
        return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() or path.is_symlink()}

    common = {".gitignore", "fovcache/__init__.py", "fovcache/hot.py", "fovcache/link", "tests/benchmarks/test_hot.py"}
    assert names(tmp_path / "base") == common | {"gone.txt"}
    assert names(tmp_path / "head") == common | {"new.txt"}
    assert (tmp_path / "base/fovcache/link").readlink() == Path("../tests")
    assert (tmp_path / "head/fovcache/link").readlink() == Path("../tests")
    assert (tmp_path / "base/fovcache/hot.py").read_text() == HOT.format(size=20_000)
    assert (tmp_path / "head/fovcache/hot.py").read_text() == "changed"
    assert repository.state() == before
    trees.share_suite("tests/benchmarks", source=tmp_path / "head", target=tmp_path / "base")
    assert names(tmp_path / "base") == common | {"gone.txt"}


def test_a_hook_of_another_repository_changes_nothing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert trees.repository_of(repository.folder / "tests") == repository.folder
    assert not (tmp_path / "index").exists()


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_for(found: Callable[[], list[psutil.Process]], timeout_s: float = 60) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if processes := found():
                return processes
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")
