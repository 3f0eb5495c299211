"""Builds that are stopped while a stage is at work, by a signal or by an error: one line, the right status, a sound
cache, and the same command then ends as if nothing had been."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_server import FaultServer

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.ffmpeg_process import ffmpeg_executable

SIGNALS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
NUM = 24


class Stops:
    """One build that can be stopped: its command, and what it comes to when nothing stops it."""

    def __init__(self, lab: Any, source: Path | str, *options: object) -> None:
        self.lab = lab
        self.source = source
        self.options = options
        lab.build(source, lab.folder / "whole", *options)
        self.whole = dict(lab.contents(lab.folder / "whole"))

    def args(self, cache: Path, *more: object) -> list[str]:
        return list(self.lab.build_args(self.source, cache, *self.options, *more))

    def assert_stopped(self, done: Any, cache: Path, status: int, *said: str) -> None:
        assert done.status == status, done
        assert len(done.err.splitlines()) == 1, done
        assert done.err.startswith("error: ")
        assert all(words in done.err for words in said), done
        left = [*self.lab.leftovers(cache), *self.lab.files(cache, "scratch")]
        assert left == self.lab.files(cache, "plans")
        assert self.lab.run("verify", "--cache", cache).status == 0

    def assert_signalled(self, done: Any, cache: Path, number: signal.Signals) -> None:
        status, word = SIGNALS[number]
        self.assert_stopped(done, cache, status, word, "the same command goes on from there")

    def assert_completes(self, cache: Path) -> dict[str, Any]:
        report: dict[str, Any] = self.lab.build(self.source, cache, *self.options)
        assert self.lab.contents(cache) == self.whole
        assert [*self.lab.leftovers(cache), *self.lab.files(cache, "scratch")] == []
        assert self.lab.damage(cache) == []
        return report


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        make_video(folder / f"{number}.mp4", MadeVideo(num_frames=6, width=32, height=32, seed=number))
    return folder


@pytest.fixture
def urls(lab: Any, fault_server: FaultServer) -> str:
    """A list of pictures on the server, of 5 KB each."""
    for path in sorted(lab.pictures(NUM, side=40).iterdir()):
        fault_server.put("/" + path.name, path.read_bytes())
    listed = lab.folder / "urls.txt"
    listed.write_text("".join(f"{fault_server.url}{path}\n" for path in fault_server.files))
    return str(listed)


@pytest.fixture
def remote(lab: Any, urls: str) -> Stops:
    """A build of what lies on the server, in waves of three."""
    return Stops(lab, urls, "--size", 8, "--scratch-gb", 0.00012, "--downloads", 2, "--retries", 0)


ENVIRON = {"no_proxy": "*"}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_something_is_fetched(
    remote: Stops, forks: Any, fault_server: FaultServer, number: signal.Signals
) -> None:
    lab, cache = remote.lab, remote.lab.folder / "cache"
    held = fault_server.files["/016.png"]
    held.kind = "stalls"
    before = held.num_asked
    pid = forks.start(*remote.args(cache), environ=ENVIRON)
    lab.wait_for(lambda: held.num_asked > before and lab.files(cache, "manifests"), "the stalled download")
    forks.kill(pid, number)
    done = forks.finish(pid)
    assert fault_server.under_way >= 1  # it did not wait for the server
    remote.assert_signalled(done, cache, number)
    held.kind = "ok"
    report = remote.assert_completes(cache)
    assert 0 < report["reused"] < NUM


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_server_is_asked_for_versions(
    remote: Stops, forks: Any, fault_server: FaultServer, number: signal.Signals
) -> None:
    lab, cache = remote.lab, remote.lab.folder / "whole"
    for served in fault_server.files.values():
        served.kind = "silent"
    before = sum(served.num_asked for served in fault_server.files.values())
    pid = forks.start(*remote.args(cache), environ=ENVIRON)
    lab.wait_for(lambda: sum(served.num_asked for served in fault_server.files.values()) > before, "a question")
    forks.kill(pid, number)
    done = forks.finish(pid)
    assert fault_server.under_way >= 1  # it did not wait for the server
    remote.assert_signalled(done, cache, number)
    fault_server.heal()
    assert remote.assert_completes(cache)["reused"] == NUM


@pytest.fixture
def tricky_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ffmpeg first on the PATH that does what its file `then` says from its fourth video on, if there is one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ffmpeg"
    forever = str(10**6 + secrets.randbelow(10**9))  # of this test alone, by which what is left of it is found
    real, then, count = (shlex.quote(str(path)) for path in (ffmpeg_executable(), folder / "then", folder / "count"))
    script.write_text(
        f"#!/bin/sh\n"
        f"count=${{FFMPEG_COUNT:-{count}}} forever={forever}\n"
        f'if [ "$1" != -version ]; then\n'
        f'    echo x >> "$count"\n'
        f'    if [ -e {then} ] && [ $(wc -l < "$count") -ge 4 ]; then . {then}; fi\n'
        f"fi\n"
        f'exec {real} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder
    left = [
        process for process in psutil.process_iter(["cmdline", "status"]) if forever in (process.info["cmdline"] or [])
    ]
    for process in left:
        process.kill()
    assert not [process for process in left if process.info["status"] != psutil.STATUS_ZOMBIE], (
        "a decoder is left behind"
    )


@pytest.fixture
def by_ffmpeg(lab: Any, videos: Path, tricky_ffmpeg: Path) -> Stops:
    """A build of videos by the command, two frames each."""
    stops = Stops(lab, videos, "--size", 8, "--frames", 2, "--decoder", "ffmpeg")
    (tricky_ffmpeg / "count").unlink()
    return stops


def test_a_signal_while_something_is_decoded(by_ffmpeg: Stops, tricky_ffmpeg: Path) -> None:
    """The decoder's process does not outlive the build's."""
    lab = by_ffmpeg.lab
    (tricky_ffmpeg / "then").write_text('touch "$count.hangs"\nexec sleep $forever\n')
    counts = {number: tricky_ffmpeg / number.name for number in SIGNALS}
    running = {
        number: lab.start(*by_ffmpeg.args(lab.folder / number.name), FFMPEG_COUNT=str(count))
        for number, count in counts.items()
    }
    for number, process in running.items():
        lab.wait_for(counts[number].with_suffix(".hangs").exists, "the decoder")
        process.send_signal(number)
        by_ffmpeg.assert_signalled(lab.finish(process), lab.folder / number.name, number)
    (tricky_ffmpeg / "then").unlink()
    for number in SIGNALS:
        by_ffmpeg.assert_completes(lab.folder / number.name)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_something_is_encoded(
    lab: Any, forks: Any, gate: Any, videos: Path, number: signal.Signals
) -> None:
    stops = Stops(lab, videos, "--size", 8, "--frames", 3)
    cache = lab.folder / "cache"
    gate.open(3)  # the first is the one that tells how large a row is
    log = lab.folder / "log"
    pid = forks.start(*stops.args(cache), environ={**gate.environ, "FORWARD_LOG": str(log)})
    lab.wait_for(lambda: log.exists() and len(log.read_text().split()) == 4, "the third clip")
    forks.kill(pid, number)
    stops.assert_signalled(forks.finish(pid), cache, number)
    report = stops.assert_completes(cache)
    assert report["reused"] in (1, 2)  # the second may just be written


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["/shards/", "/manifests/"])
def test_a_signal_while_something_is_written(remote: Stops, forks: Any, number: signal.Signals, where: str) -> None:
    lab, cache = remote.lab, remote.lab.folder / "cache"
    order = {"events": str(lab.folder / "events"), "watch": str(cache), "from_plan": True, "stop_before": where}
    pid = forks.start(*remote.args(cache), environ=ENVIRON, **order)
    lab.wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "the build to stop")
    forks.kill(pid, number)
    forks.kill(pid, signal.SIGCONT)
    remote.assert_signalled(forks.finish(pid), cache, number)
    remote.assert_completes(cache)


def test_an_error_while_something_is_fetched(remote: Stops, forks: Any) -> None:
    """A download that cannot be written."""
    cache = remote.lab.folder / "cache"
    done = forks.run(*remote.args(cache), environ=ENVIRON, file_size_limit=4000)
    remote.assert_stopped(done, cache, 3, "cannot write", "scratch", "too large")
    remote.assert_completes(cache)


def test_an_error_while_something_is_decoded(by_ffmpeg: Stops, forks: Any, tricky_ffmpeg: Path) -> None:
    """A decoder that cannot be started any more."""
    cache = by_ffmpeg.lab.folder / "cache"
    shutil.copy2(tricky_ffmpeg / "ffmpeg", tricky_ffmpeg / "kept")
    (tricky_ffmpeg / "gone").write_text("#!/is/not/there\n")
    (tricky_ffmpeg / "gone").chmod(0o755)
    (tricky_ffmpeg / "then").write_text(f"cd {shlex.quote(str(tricky_ffmpeg))} && mv -f gone ffmpeg 2> /dev/null\n")
    done = forks.run(*by_ffmpeg.args(cache), environ={"PATH": os.environ["PATH"]})
    by_ffmpeg.assert_stopped(done, cache, 3, "cannot start ffmpeg")
    (tricky_ffmpeg / "kept").rename(tricky_ffmpeg / "ffmpeg")
    (tricky_ffmpeg / "then").unlink()
    by_ffmpeg.assert_completes(cache)


FAILING = """
    import os, torch

    PASSES = [0]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x):
            PASSES[0] += 1
            if str(PASSES[0]) == os.environ.get("FAILS_AT"):
                raise RuntimeError("no such luck")
            return self.conv(x)

    def make():
        return Net()
"""


def test_an_error_while_something_is_encoded(lab: Any, forks: Any, fault_server: FaultServer, urls: str) -> None:
    """An error of the user's code, in the middle of the data and beside downloads under way."""
    lab.encoder = lab.write_encoder(FAILING, "failing.py")
    stops = Stops(lab, urls, "--size", 8, "--scratch-gb", 0.00012, "--downloads", 2, "--retries", 0)
    fault_server.files["/023.png"].kind = "stalls"
    cache = lab.folder / "cache"
    done = forks.run(*stops.args(cache), environ={**ENVIRON, "FAILS_AT": "6"})
    stops.assert_stopped(done, cache, 2, "no such luck")
    fault_server.heal()
    stops.assert_completes(cache)


def test_an_error_while_something_is_written(lab: Any, forks: Any, videos: Path) -> None:
    """Shards that are larger than files may be."""
    stops = Stops(lab, videos, "--size", 16, "--frames", 4)
    cache = lab.folder / "cache"
    done = forks.run(*stops.args(cache), file_size_limit=6000)
    stops.assert_stopped(done, cache, 3, "cannot write", "too large")
    stops.assert_completes(cache)


def test_a_decoder_that_hangs_costs_its_sample_and_nothing_else(by_ffmpeg: Stops, tricky_ffmpeg: Path) -> None:
    """And the process ends, although a thread of it waits for ever."""
    lab, cache = by_ffmpeg.lab, by_ffmpeg.lab.folder / "cache"
    (tricky_ffmpeg / "then").write_text(f"mkdir {shlex.quote(str(tricky_ffmpeg))}/once 2>&- && exec sleep $forever\n")
    process = lab.start(*by_ffmpeg.args(cache, "--decode-timeout", 1, "--json", "-"))
    done = lab.finish(process, timeout_s=30)
    assert (done.status, len(done.errors)) == (1, 0), done
    assert "took longer than 1 s" in done.err
    report = done.json
    assert (report["computed"], report["failed"]) == (7, 1)
    (failure,) = report["failures"]
    assert (failure["stage"], failure["permanent"]) == ("decode", False)
    assert failure["reason"] == "took longer than 1 s"
    (stage,) = [stage for stage in report["stages"] if stage["id"] == "decode"]
    assert (stage["n"], stage["failed"], stage["stuck"]) == (8, 1, 1)
    assert lab.damage(cache) == lab.leftovers(cache) == []
    (tricky_ffmpeg / "then").unlink()
    again = lab.build(by_ffmpeg.source, cache, *by_ffmpeg.options)
    assert (again["computed"], again["reused"], again["failed"]) == (1, 7, 0)
