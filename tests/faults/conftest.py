"""Small sources, a small encoder, and the commands: in this process, in forked ones, or as a user starts them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_disk import SmallDisk

from fovcache.cli import app
from fovcache.console import run_command
from fovcache.maintain.verify import verify
from fovcache.store.storage import LocalStorage

if TYPE_CHECKING:
    from fault_server import FaultServer
    from remote_builds import Remote

# `conv` gives [8, 8, 8] and `head` [16] for images of 8 × 8. Where they are set, a forward pass writes the number of
# its rows to FORWARD_LOG, waits FORWARD_WAIT_S, and the n-th of a process waits until the number in FORWARD_GATE is n.
# With two rows, by which a build sizes its blocks, it does not wait.
ENCODER = """
    import os, time, torch

    PASSES = [0]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.head = torch.nn.Linear(8, 16)

        def forward(self, x):
            if log := os.environ.get("FORWARD_LOG"):
                with open(log, "a") as file:
                    file.write(f"{len(x)}\\n")
            if len(x) > 2:
                wait()
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    def wait():
        time.sleep(float(os.environ.get("FORWARD_WAIT_S", "0")))
        PASSES[0] += 1
        if gate := os.environ.get("FORWARD_GATE"):
            while int(open(gate).read() or "0") < PASSES[0]:
                time.sleep(0.002)

    def make():
        return Net()
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """What it says on standard error, without warnings."""
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class Lab:
    """A folder to work in, and the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encoder = self.write_encoder(ENCODER)

    def write_encoder(self, text: str, name: str = "enc.py") -> str:
        """`PATH.py:make` of a file with this source."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return f"{path}:make"

    def pictures(self, count: int, *, seed: int = 0, name: str = "src", side: int = 8) -> Path:
        """A folder of `count` different PNG files, `000.png` and so on."""
        from PIL import Image

        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        chance = np.random.default_rng(seed)
        for number in range(count):
            pixels = chance.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        return folder

    def build_args(self, source: Path | str, cache: Path, *extra: object) -> list[str]:
        """A build of `conv`, whole, in blocks of four rows of 1 KiB. What is given twice is for several encoders."""
        usual = (("--encoder", self.encoder), ("--layers", "conv"), ("--pool", "tokens"))
        asked = [part for option in usual if option[0] not in extra for part in option]
        fixed = ("--device", "cpu", "--batch-size", 4, "--shard-mib", 0.004, "--workers", 2)
        every = ("build", source, "--cache", cache, *asked, *fixed, *extra)
        return [str(argument) for argument in every]

    def build(self, source: Path | str, cache: Path, *extra: object, status: int = 0) -> dict[str, Any]:
        """Build, in this process; the report."""
        done = self.run(*self.build_args(source, cache, "--json", "-", *extra))
        assert done.status == status, done
        return dict(done.json)

    def run(self, *args: object) -> Done:
        """Run a command in this process, as its entry point would."""
        out, err = io.StringIO(), io.StringIO()
        with (
            _as_command([str(argument) for argument in args]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as left,
        ):
            run_command(app)
        code = left.value.code
        return Done(status=code if isinstance(code, int) else 0, out=out.getvalue(), err=err.getvalue())

    def start(self, *args: object, stdout: Any = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        """Start the installed command as a user does."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("fovcache")), *(str(argument) for argument in args)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 60) -> Done:
        """Wait for a started command."""
        out, err = process.communicate(timeout=timeout_s)
        return Done(status=process.returncode, out=out, err=err)

    def copy(self, cache: Path, name: str) -> Path:
        """A copy of a cache, times kept."""
        target = self.folder / name
        shutil.copytree(cache, target)
        return target

    @staticmethod
    def wait_for(condition: Callable[[], object], what: str) -> None:
        """Wait until something that another process does is done."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.001)

    @staticmethod
    def contents(cache: Path) -> dict[str, Any]:
        """What two equal builds have in common: every file's content, without times and where it was computed."""
        found: dict[str, Any] = {}
        for folder in ("fovcache.json", "recipes", "features", "shards", "datasets"):
            for name in Lab.files(cache, folder):
                found[name] = (cache / name).read_bytes()
        for name in Lab.files(cache, "manifests"):
            document = json.loads((cache / name).read_bytes())
            found[name] = {key: value for key, value in document.items() if key not in ("provenance", "digest")}
        for name in Lab.files(cache, "refs"):
            document = json.loads((cache / name).read_bytes())
            found[f"refs/{document['name']}"] = document["dataset"]
        return found

    @staticmethod
    def files(cache: Path, *folders: str) -> list[str]:
        """The names of the files in some folders of a cache, or in all."""
        roots = [cache / folder for folder in folders] if folders else [cache]
        found = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
        return sorted(str(path.relative_to(cache)) for path in found)

    @staticmethod
    def leftovers(cache: Path) -> list[str]:
        """Files of the moment, of which a finished build leaves none."""
        return [
            *Lab.files(cache, "tmp", "leases", "plans"),
            *(name for name in Lab.files(cache) if name.endswith(".claim")),
        ]

    @staticmethod
    def damage(cache: Path) -> list[str]:
        """The files that `verify` names."""
        return [item.file for item in verify(LocalStorage(cache)).damaged]


@contextlib.contextmanager
def _as_command(argv: list[str]) -> Iterator[None]:
    """Gives a command what it takes for itself in its own process, and takes it back."""
    ours = logging.getLogger("fovcache")
    handlers, level = ours.handlers[:], ours.level
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", ["fovcache", *argv])
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            logging.getLogger("py.warnings").handlers = []
            ours.handlers = handlers
            ours.setLevel(level)
            for number, handler in before.items():
                signal.signal(number, handler)


class Forks:
    """Commands in forked processes, that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0
        self._written: dict[int, tuple[Path, Path]] = {}

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, *args: object, **order: Any) -> int:
        """Start a command; its process id."""
        self._count += 1
        out, err = (str(self._folder / f"{name}{self._count}") for name in ("out", "err"))
        argv = [str(argument) for argument in args]
        pid = int(self._ask({"argv": argv, "out": out, "err": err, **order}))
        self._written[pid] = (Path(out), Path(err))
        return pid

    def wait(self, pid: int) -> int:
        """Its exit status; negative for a signal."""
        return int(self._ask({"wait": pid}))

    def run(self, *args: object, **order: Any) -> Done:
        """Run a command to its end."""
        return self.finish(self.start(*args, **order))

    def finish(self, pid: int) -> Done:
        """Wait for a started command."""
        status = self.wait(pid)
        out, err = self._written.pop(pid)
        return Done(status=status, out=out.read_text(), err=err.read_text())

    def kill(self, pid: int, number: int) -> None:
        """Send it a signal. It is no zombie's id: the server has not waited for it."""
        os.kill(pid, number)

    def close(self) -> None:
        """End the server, and with it what still runs."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()


class Gate:
    """Lets the forward passes of a started build through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.open(0)

    @property
    def environ(self) -> dict[str, str]:
        """The build's environment."""
        return {"FORWARD_GATE": str(self._path)}

    def open(self, count: int = 1 << 30) -> None:
        """Let so many passes through in all."""
        self._path.write_text(str(count))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture
def remote(lab: Lab, fault_server: FaultServer) -> Remote:
    """Builds of what lies on the server."""
    from remote_builds import Remote

    return Remote(lab, fault_server)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk, for root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.close()
