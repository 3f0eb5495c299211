"""Recording stacks with py-spy: what is in the file, and what is said where the machine refuses."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from fovcache.bench.profiler import flame as flame_module
from fovcache.bench.profiler.flame import Flame
from fovcache.errors import EnvironmentFailure, UsageError

PY_SPY = Path(sysconfig.get_path("scripts"), "py-spy")
REFUSED = "py-spy may not read this process's stacks ("
HOW = "): start a container with --cap-add SYS_PTRACE; outside of one, run the same command as root"

WriteScript = Callable[[str], str]


@pytest.fixture(scope="module")
def _may_trace(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where py-spy may not even read a process that it has started."""
    file = tmp_path_factory.mktemp("flame") / "probe.svg"
    command = [
        PY_SPY,
        "record",
        "--nonblocking",
        "-d",
        "1",
        "-o",
        file,
        "--",
        sys.executable,
        "-c",
        "sum(range(10**7))",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let py-spy read processes: {done.stderr.strip()}")


@pytest.fixture
def script(tmp_path: Path) -> WriteScript:
    """`script(text)` writes an executable shell script."""

    def write(text: str) -> str:
        path = tmp_path / "scripts" / "py-spy"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def a_busy_function(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


def _record(file: Path) -> Flame:
    child = "import time\ndef in_a_child(): time.sleep(60)\nin_a_child()"
    other = subprocess.Popen([sys.executable, "-c", child, "--password=in-the-open"])
    try:
        with Flame(file) as flame:
            a_busy_function(1)
    finally:
        other.kill()
        other.wait()
    return flame


@pytest.mark.usefixtures("_may_trace")
def test_a_speedscope_profile_has_our_functions_and_those_of_children(tmp_path: Path) -> None:
    flame = _record(tmp_path / "new" / "a.speedscope.json")
    assert flame.problem is None
    assert flame.result is not None, flame.problem
    assert flame.result.format == "speedscope"
    document = json.loads(flame.result.file.read_text())
    assert document["$schema"].endswith("file-format-schema.json")
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert {"a_busy_function", "in_a_child", f"process {os.getpid()}"} <= set(names)  # a waiting child is there too
    stacks = [stack for profile in document["profiles"] for stack in profile["samples"]]
    assert len(stacks) == flame.result.num_samples >= 50
    busy = {number for number, name in enumerate(names) if name == "a_busy_function"}
    assert sum(bool(busy & set(stack)) for stack in stacks) >= 25
    assert "in-the-open" not in flame.result.file.read_text()
    assert list((tmp_path / "new").iterdir()) == [flame.result.file]


@pytest.mark.usefixtures("_may_trace")
def test_a_flame_graph_is_a_drawing_with_our_functions(tmp_path: Path) -> None:
    flame = _record(tmp_path / "a.svg")
    assert flame.result is not None, flame.problem
    assert flame.result.format == "flamegraph"
    drawing = ElementTree.parse(flame.result.file).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [title.text or "" for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
    for name in ("a_busy_function", "in_a_child", f"process {os.getpid()} ("):
        assert any(title.startswith(name) for title in titles)
    assert "in-the-open" not in flame.result.file.read_text()


@pytest.mark.parametrize(
    ("inside", "left"),
    [
        (
            "<title>process 7:&quot;x &lt;a&gt; &quot;b&quot; (5 samples, 1%) c&quot; (12 samples, 9%)</title>",
            ">process 7 (",
        ),
        ("<text>process 7:&quot;x b&quot;</text>", "process 7</text>"),
        ("<text>process 7:&quot;x b (cut off..</text>", "process 7</text>"),
    ],
)
def test_command_lines_are_taken_out_whole(inside: str, left: str) -> None:
    text = flame_module._SVG_COMMAND.sub(r"\1", inside)
    assert left in text
    assert "b" not in text
    assert "c&quot;" not in text


@pytest.mark.usefixtures("_may_trace")
def test_what_is_raised_inside_is_raised_and_the_stacks_are_kept(tmp_path: Path) -> None:
    flame = Flame(tmp_path / "a.svg")

    def run() -> None:
        with flame:
            assert flame.pid in {child.pid for child in psutil.Process().children()}
            a_busy_function(0.2)
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert flame.result is not None, flame.problem
    assert flame.pid is None


@pytest.mark.usefixtures("_may_trace")
def test_it_ends_by_itself_after_its_longest_duration(tmp_path: Path) -> None:
    with Flame(tmp_path / "a.json", max_duration_s=1, rate_hz=50) as flame:
        a_busy_function(1.6)
    assert flame.result is not None, flame.problem
    assert flame.result.num_samples >= 25


@pytest.mark.usefixtures("_may_trace")
def test_under_yama_our_own_child_is_let_in_and_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without Yama ignore the call; those with it need it."""
    scope = tmp_path / "ptrace_scope"
    scope.write_text("1\n")
    monkeypatch.setattr(flame_module, "_YAMA", scope)
    with Flame(tmp_path / "a.json") as flame:
        a_busy_function(0.2)
    assert flame.result is not None, flame.problem


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv, to run py-spy without capabilities")
def test_a_real_refusal_is_said_and_the_rest_goes_on(tmp_path: Path, script: WriteScript) -> None:
    if os.geteuid():
        pytest.skip("only root has capabilities that py-spy can be run without")
    executable = script(f'exec setpriv --bounding-set=-all --inh-caps=-all {PY_SPY} "$@"')
    done = []
    with Flame(tmp_path / "a.svg", executable=executable) as flame:
        done.append("the rest")
    assert done
    assert flame.result is None
    assert isinstance(flame.problem, EnvironmentFailure)
    assert flame.problem.exit_status == 3
    assert str(flame.problem).startswith(REFUSED)
    assert str(flame.problem).endswith("Permission denied (os error 13)" + HOW)
    assert [path.name for path in tmp_path.iterdir()] == ["scripts"]


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        # What py-spy 0.4.3 said: to another user, in a container, and where it may not read a parent.
        (
            "Permission Denied: Try running again with elevated permissions by going 'sudo env \"PATH=$PATH\" !!'",
            REFUSED + "Permission Denied: Try running again with elevated permissions by going 'sudo env",
        ),
        (
            "Error: Failed to get process executable name. Check that the process is running.\n\nCaused by:\n"
            "    0: Permission denied (os error 13)\n    1: Permission denied (os error 13)\n\nStack backtrace:",
            REFUSED + "Failed to get process executable name. Check that the process is running: Permission denied",
        ),
        (
            "Error: No python processes found in process 7 or any of its subprocesses\n\nStack backtrace:\n   0: main",
            REFUSED + "No python processes found in process 7 or any of its subprocesses): ",
        ),
        (
            "Error: Unsupported version of Python: 4.0.0",
            "py-spy cannot sample this process: Unsupported version of Python: 4.0.0",
        ),
        ("", "py-spy cannot sample this process: it gave no reason"),
    ],
)
def test_why_py_spy_gives_up_is_said(tmp_path: Path, script: WriteScript, says: str, problem: str) -> None:
    with Flame(tmp_path / "a.svg", executable=script(f"cat >&2 <<'END'\n{says}\nEND\nexit 1")) as flame:
        pass
    assert str(flame.problem).startswith(problem)


def test_a_py_spy_that_does_not_end_is_ended(
    tmp_path: Path, script: WriteScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flame_module, "_STOP_S", 0.2)
    with Flame(tmp_path / "a.svg", executable=script("trap '' INT\necho Sampling process\nexec sleep 60")) as flame:
        pid = flame.pid
    assert str(flame.problem) == "py-spy has not written its stacks within 0.2 s"
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert [path.name for path in tmp_path.iterdir()] == ["scripts"]


def test_a_py_spy_that_does_not_begin_is_ended(
    tmp_path: Path, script: WriteScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flame_module, "_START_S", 0.2)
    with Flame(tmp_path / "a.svg", executable=script("exec sleep 60")) as flame:
        assert flame.pid is None
    assert str(flame.problem) == "py-spy has not begun to sample after 0.2 s: it gave no reason"


def test_what_is_no_profile_is_not_taken_for_one(tmp_path: Path, script: WriteScript) -> None:
    says = "echo Sampling process; trap 'echo Samples: 5 Errors: 0; exit 0' INT; while :; do sleep 0.05; done"
    with Flame(tmp_path / "a.json", executable=script(says)) as flame:
        pass
    assert str(flame.problem).startswith("py-spy wrote no valid speedscope: ")
    assert not (tmp_path / "a.json").exists()


def test_without_py_spy_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with Flame(tmp_path / "a.svg") as flame:
        pass
    assert str(flame.problem) == "py-spy is not installed: pip install py-spy"
    with Flame(tmp_path / "a.svg", executable=str(tmp_path / "none")) as flame:
        pass
    assert str(flame.problem) == f"cannot run py-spy ({tmp_path / 'none'}): No such file or directory"


def test_an_output_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Flame(tmp_path / "file" / "a.svg") as flame:
        assert flame.pid is None
    assert str(flame.problem).startswith(f"cannot write stacks to {tmp_path / 'file' / 'a.svg'}: ")


@pytest.mark.parametrize("name", ["a.html", "a", "a.svg.gz"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: expected a name that ends with .svg or .json"):
        Flame(tmp_path / name)


@pytest.mark.parametrize("options", [{"rate_hz": 0}, {"max_duration_s": 0}])
def test_no_rate_and_no_duration_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 1 of each"):
        Flame(tmp_path / "a.svg", **options)
