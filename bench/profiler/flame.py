"""`--flame FILE`: py-spy samples the stacks of this process, of every thread and child, from outside.

Widths are numbers of samples, so shares of wall time, waits included (`--idle`): a wide frame is where threads are, not
where a CPU works. The process is not paused meanwhile (`--nonblocking`): a stack that changes under py-spy's eyes may
be wrong, or counts among the errors.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree

from fovcache.errors import EnvironmentFailure, UsageError, environment_failure

logger = logging.getLogger(__name__)

_FORMATS = {".svg": "flamegraph", ".json": "speedscope"}
_START_S = 20.0
_STOP_S = 60.0
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_PR_SET_PTRACER = 0x59616D61
_ANYONE = ctypes.c_ulong(-1)
_REFUSED = re.compile(r"permission denied|not permitted|requires root|no python processes found", re.IGNORECASE)
_SVG_COMMAND = re.compile(r"(?<=>)(process \d+):&quot;[^<]*(?= \([\d,]+ samples[^<]*</title>|</text>)")
_COUNTS = re.compile(r"Samples: (\d+) Errors: (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlameResult:
    """Stacks that were recorded."""

    file: Path
    """As asked for."""
    format: str
    """`flamegraph`, which browsers show, or `speedscope`, which speedscope and VS Code open."""
    size_bytes: int
    """Of the file."""
    num_samples: int
    """Stacks, each of one thread."""
    num_errors: int
    """Looks at a thread that gave no stack."""


class Flame:
    """Records from entering to leaving, for `max_duration_s` at most.

        with Flame("profile.svg") as flame:
            ...
        flame.result or flame.problem

    What the machine refuses is a `problem`, and never raises: what runs inside runs on. `FILE.svg` becomes a flame
    graph, `FILE.json` a speedscope profile; another suffix is a UsageError.
    """

    def __init__(
        self, file: Path | str, *, rate_hz: int = 100, max_duration_s: int = 600, executable: str | None = None
    ) -> None:
        """`executable` is py-spy, by default that of this Python's environment, or else the one on the PATH."""
        self._file = Path(file)
        suffix = self._file.suffix.lower()
        if suffix not in _FORMATS:
            raise UsageError(f"cannot record stacks to {self._file}: expected a name that ends with .svg or .json")
        if rate_hz < 1 or max_duration_s < 1:
            raise UsageError(f"cannot record at {rate_hz} Hz for {max_duration_s} s: expected at least 1 of each")
        self._format = _FORMATS[suffix]
        self._partial = self._file.with_name(f".{self._file.stem}.{os.getpid()}{suffix}")
        self._options = ["--rate", str(rate_hz), "--duration", str(max_duration_s), "--format", self._format]
        self._executable = executable
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._left = contextlib.ExitStack()  # what is to be cleared away
        self.result: FlameResult | None = None
        """What was recorded; None until the end, and where there is a problem."""
        self.problem: EnvironmentFailure | None = None
        """Why nothing was."""

    @property
    def pid(self) -> int | None:
        """Of py-spy while it records, a child of this process; None otherwise."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Flame:
        try:
            self._start()
        except EnvironmentFailure as problem:
            self._give_up(problem)
        except BaseException:  # of which `__exit__` will not be told
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        try:
            self.result = self._stop()
        except EnvironmentFailure as problem:
            self._give_up(problem)
        finally:
            self._release()

    def _start(self) -> None:
        executable = self._executable or _executable()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
        except OSError as error:
            raise environment_failure(error, f"write stacks to {self._file}") from error
        self._left.callback(self._partial.unlink, missing_ok=True)
        self._left.callback(_let_children_trace, False)
        _let_children_trace(True)
        command = [executable, "record", "--pid", str(os.getpid()), "--nonblocking", "--idle", "--subprocesses"]
        command += [*self._options, "--output", str(self._partial)]
        self._log = Path(self._left.enter_context(tempfile.TemporaryDirectory(prefix="fovcache-")), "log")
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
        except OSError as error:
            raise EnvironmentFailure(f"cannot run py-spy ({executable}): {error.strerror}") from error
        deadline = time.monotonic() + _START_S
        while "Sampling process" not in self._said():
            if self._process.poll() is not None:
                raise _refusal(self._said(), executable)
            if time.monotonic() > deadline:
                raise EnvironmentFailure(f"py-spy has not begun to sample after {_START_S:g} s: {_line(self._said())}")
            time.sleep(0.01)

    def _stop(self) -> FlameResult:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # on which it writes what it has
        try:
            status = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailure(f"py-spy has not written its stacks within {_STOP_S:g} s") from error
        said = self._said()
        counts = _COUNTS.search(said)
        if status or counts is None:
            raise EnvironmentFailure(f"py-spy recorded nothing: {_line(said)}")
        _publish(self._partial, self._file, self._format)
        return FlameResult(
            file=self._file,
            format=self._format,
            size_bytes=self._file.stat().st_size,
            num_samples=int(counts[1]),
            num_errors=int(counts[2]),
        )

    def _said(self) -> str:
        assert self._log is not None
        return self._log.read_text(errors="replace")

    def _give_up(self, problem: EnvironmentFailure) -> None:
        self.problem = problem
        logger.debug("no stacks are recorded", exc_info=problem)
        self._release()

    def _release(self) -> None:
        """No process, file or right is left behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = self._log = None
        self._left.close()


def _executable() -> str:
    beside = Path(sysconfig.get_path("scripts")) / ("py-spy.exe" if os.name == "nt" else "py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise EnvironmentFailure("py-spy is not installed: pip install py-spy")
    return found


def _let_children_trace(allowed: bool) -> None:
    """Under Yama's scope 1, Ubuntu's default, a process may trace what it has started, and a child not its parent,
    unless that names it; before the child there is no more to name than everyone of the same user."""
    try:
        scope = _YAMA.read_text().strip()
    except OSError:
        return
    if scope == "1":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYONE if allowed else ctypes.c_ulong(0), 0, 0, 0)


def _refusal(said: str, executable: str) -> EnvironmentFailure:
    """Why py-spy ended before it began, in words that help."""
    if "No python processes found" in said:
        # What `--subprocesses` makes of every failure; without it, py-spy gives the reason.
        command = [executable, "dump", "--nonblocking", "--pid", str(os.getpid())]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stderr or said
        except (OSError, subprocess.TimeoutExpired):
            logger.debug("py-spy dump gave no reason", exc_info=True)
    if not _REFUSED.search(said):
        return EnvironmentFailure(f"py-spy cannot sample this process: {_line(said)}")
    if sys.platform == "darwin":
        how = "macOS allows it to root only: run the same command under sudo"
    else:
        how = "start a container with --cap-add SYS_PTRACE; outside of one, run the same command as root"
        if _YAMA.exists() and (scope := _YAMA.read_text().strip()) not in ("0", "1"):
            how += f", or set kernel.yama.ptrace_scope, which is {scope}, to 1"
    return EnvironmentFailure(f"py-spy may not read this process's stacks ({_line(said)}): {how}")


def _line(said: str) -> str:
    """The first thing that py-spy said went wrong, without its backtrace, and the cause that it names last."""
    lines = [line.strip() for line in said.partition("Stack backtrace")[0].splitlines()]
    lines = [line.removeprefix("Error: ") for line in lines if line and not line.startswith("py-spy>")]
    if not lines:
        return "it gave no reason"
    return lines[0] if len(lines) == 1 else f"{lines[0].rstrip('.')}: {re.sub(r'^[0-9]+: ', '', lines[-1])}"


def _publish(partial: Path, file: Path, form: str) -> None:
    """Check what py-spy wrote, take the command lines out, which can hold secrets, and give it its name."""
    try:
        text = partial.read_text(encoding="utf-8")
        if form == "speedscope":
            text = _speedscope(text)
        else:
            text = _SVG_COMMAND.sub(r"\1", text)
            if ElementTree.fromstring(text).find(".//{*}title") is None:
                raise ValueError("it has no frames")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise environment_failure(error, f"write stacks to {file}") from error
    except (ValueError, KeyError, TypeError, ElementTree.ParseError) as error:
        raise EnvironmentFailure(f"py-spy wrote no valid {form}: {error}; did the run take no time?") from error


def _speedscope(text: str) -> str:
    document = json.loads(text)
    frames = document["shared"]["frames"]
    if not frames or not document["profiles"]:
        raise ValueError("it has no frames")
    for frame in frames:
        frame["name"] = re.sub(r'^(process \d+):".*"$', r"\1", frame["name"], flags=re.DOTALL)
    return json.dumps(document)
