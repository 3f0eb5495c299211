"""Decoding in processes of its own: the same frames, and whatever happens to a process costs one sample."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import decoder, read_clip
from fovcache.decode.geometry import NATIVE, Geometry
from fovcache.decode.isolate import IsolatedDecoder
from fovcache.decode.limits import Limits
from fovcache.decode.messages import outcomes_of
from fovcache.decode.sampling import Sampling, Window
from fovcache.decode.video import ClipOrError, DecodedClip
from fovcache.decode.video_file import VideoSource
from fovcache.errors import EnvironmentFailure, SampleError, UsageError

TIMEOUT_S = 60.0
ONE = Sampling(num_frames=1)
GEOMETRIES = (NATIVE, Geometry(size=20), Geometry(size=30, fit="pad"), Geometry(size=20, short_side=24))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> VideoSource:
    return VideoSource(path=str(make_video(tmp_path_factory.mktemp("short") / "a.mp4", MadeVideo(num_b_frames=2))))


class Slow:
    """A still image that arrives when the test says so: until then, its process is in the middle of its job."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.source = VideoSource(path=str(path))
        self._pipe = -1

    def wait_until_read(self) -> None:
        def is_read() -> bool:
            try:
                self._pipe = os.open(self.source.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                return False
            return True

        _wait_for(is_read, "a process that reads it")

    def arrive(self) -> None:
        os.write(self._pipe, _png(20))
        self.close()

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    slow = Slow(tmp_path / "slow.png")
    yield slow
    slow.close()


@pytest.fixture
def isolated() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(2, TIMEOUT_S) as isolated:
        yield isolated


def _workers() -> list[psutil.Process]:
    """This process's workers, dead ones included."""
    return [child for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "fovcache.decode.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)


def _end(worker: psutil.Process, number: int) -> None:
    """Send a signal; back when the process has ended, although nobody has asked how."""
    worker.send_signal(number)
    with contextlib.suppress(ChildProcessError):  # it has been asked already
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)


def _is_gone(pid: int) -> bool:
    """Whether a process that is no child of ours has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _same(ours: list[list[ClipOrError]], theirs: list[list[ClipOrError]]) -> None:
    assert len(ours) == len(theirs)
    for own, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        if isinstance(other, SampleError):
            assert isinstance(own, SampleError)
            assert (own.stage, own.reason, own.permanent) == (other.stage, other.reason, other.permanent)
        else:
            assert isinstance(own, DecodedClip)
            assert own.frames.dtype == np.uint8
            assert np.array_equal(own.frames, other.frames)
            assert own.pts_s.dtype == np.float64
            assert np.array_equal(own.pts_s, other.pts_s)


@pytest.mark.parametrize("backend", ["pyav", "ffmpeg"])
def test_the_same_frames(backend: str, short: VideoSource, isolated: IsolatedDecoder, tmp_path: Path) -> None:
    data = Path(short.path).read_bytes()
    (tmp_path / "a.tar").write_bytes(b"before" + data + b"after")
    part = VideoSource(path=str(tmp_path / "a.tar"), offset=6, size=len(data))
    windows = [Window(), Window(start_s=0.2, end_s=0.7), Window(start_s=90.0)]
    for source in (short, part, VideoSource(data=data)):
        for sampling in (Sampling(), Sampling(num_frames=None, fps=3.0)):
            theirs = decoder(backend)(source, sampling, windows, GEOMETRIES)
            _same(isolated.decode(source, sampling, windows, GEOMETRIES, backend=backend), theirs)


@pytest.mark.needs_shared
def test_real_clips(isolated: IsolatedDecoder, shared: Path) -> None:
    paths = sorted((shared / "data/clips").iterdir())
    assert paths
    for path in paths:
        source = VideoSource(path=str(path))
        try:
            theirs = decoder("pyav")(source, Sampling(), [Window()], [NATIVE])
        except SampleError as expected:
            with pytest.raises(SampleError) as caught:
                isolated.decode(source, Sampling())
            _same([[caught.value]], [[expected]])
            continue
        _same(isolated.decode(source, Sampling()), theirs)


def _png(side: int) -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").resize((side, side + 7)).save(target, "png")
    return target.getvalue()


def test_stills(isolated: IsolatedDecoder, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"before" + _png(20) + b"after")
    part = VideoSource(path=str(tmp_path / "a.tar"), offset=6, size=len(_png(20)))
    expected, pts_s = read_clip(_png(20), num_frames=3, size=16)
    for source in (VideoSource(data=_png(20)), part):
        ((clip, late),) = isolated.decode(
            source, Sampling(num_frames=3), [Window(), Window(start_s=1.0)], [Geometry(size=16)], backend="pillow"
        )
        _same([[clip]], [[DecodedClip(frames=expected, pts_s=pts_s)]])
        assert isinstance(late, SampleError)


def test_a_build_of_images_takes_no_video(short: VideoSource, isolated: IsolatedDecoder) -> None:
    with pytest.raises(SampleError, match="not an image"):
        isolated.decode(short, ONE, backend="pillow")


def test_errors_leave_the_process_as_it_is(short: VideoSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with IsolatedDecoder(1, TIMEOUT_S) as isolated:
        isolated.decode(short, ONE)
        (worker,) = _workers()
        for source, reason, permanent in [
            (VideoSource(data=b""), "is empty", True),
            (VideoSource(data=b"text"), "not a video", True),
            (VideoSource(data=_png(20)), "not a video", True),
            (VideoSource(path=str(tmp_path / "none.mp4")), "cannot read", False),
        ]:
            with pytest.raises(SampleError, match=reason) as caught:
                isolated.decode(source, ONE)
            assert caught.value.permanent is permanent
        with pytest.raises(SampleError, match="damaged image"):
            isolated.decode(VideoSource(data=_png(20)[:60]), ONE, backend="pillow")
        with pytest.raises(SampleError, match="over the limit of 10 pixels"):
            isolated.decode(short, ONE, limits=Limits(max_pixels=10))
        with pytest.raises(UsageError, match="is not ffmpeg"):
            isolated.decode(short, ONE, backend="ffmpeg")
        isolated.decode(short, ONE)
        assert _workers() == [worker]


def test_what_takes_too_long_is_killed(short: VideoSource) -> None:
    with IsolatedDecoder(1, 1.0) as isolated:
        isolated.decode(short, ONE)
        (worker,) = _workers()
        worker.suspend()
        with pytest.raises(SampleError, match="took longer than 1 s") as caught:
            isolated.decode(short, ONE)
        assert not caught.value.permanent
        assert not worker.is_running()
        assert not _workers()
        # More than a pipe holds, so that not even the question gets through.
        isolated.decode(short, ONE)
        (worker,) = _workers()
        worker.suspend()
        with pytest.raises(SampleError, match="took longer than 1 s"):
            isolated.decode(VideoSource(data=bytes(1 << 21)), ONE)
        ((clip,),) = isolated.decode(short, ONE)
        assert isinstance(clip, DecodedClip)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_what_ends_two_processes_is_at_fault(number: signal.Signals, short: VideoSource, slow: Slow) -> None:
    with IsolatedDecoder(2, TIMEOUT_S) as isolated, ThreadPoolExecutor(1) as pool:
        hit = pool.submit(isolated.decode, slow.source, ONE, backend="pillow")
        slow.wait_until_read()
        (worker,) = _workers()
        expected = isolated.decode(short, Sampling())  # in the other process
        (other,) = set(_workers()) - {worker}
        _end(worker, number)
        slow.close()
        slow.wait_until_read()
        (worker,) = set(_workers()) - {other}
        _end(worker, number)
        with pytest.raises(SampleError, match=f"process that decodes it ended by {number.name}") as caught:
            hit.result()
        assert caught.value.permanent
        _same(isolated.decode(short, Sampling()), expected)


def test_processes_that_are_killed_at_any_moment(short: VideoSource) -> None:
    """No decode is lost to one kill, and nothing is left of the killed."""
    chance = random.Random(0)
    with IsolatedDecoder(1, TIMEOUT_S) as isolated, ThreadPoolExecutor(1) as pool:
        expected = pool.submit(isolated.decode, short, Sampling()).result()
        before = psutil.Process().num_fds(), threading.active_count()
        started = time.perf_counter()
        isolated.decode(short, Sampling())
        most_s = time.perf_counter() - started
        seen = set()
        for _ in range(25):
            decoding = pool.submit(isolated.decode, short, Sampling())
            time.sleep(chance.uniform(0, most_s))
            (worker,) = _workers()
            _end(worker, signal.SIGKILL)
            seen.add(worker.pid)
            _same(decoding.result(), expected)
            _same(isolated.decode(short, Sampling()), expected)  # so that the next one is ready
        assert len(seen) == 25
        assert (psutil.Process().num_fds(), threading.active_count()) == before
        assert len(_workers()) == 1
    assert not _workers()


def test_ctrl_c_is_not_the_processes_business(short: VideoSource, slow: Slow) -> None:
    with IsolatedDecoder(1, TIMEOUT_S) as isolated, ThreadPoolExecutor(1) as pool:
        running = pool.submit(isolated.decode, slow.source, ONE, backend="pillow")
        slow.wait_until_read()
        (worker,) = _workers()
        worker.send_signal(signal.SIGINT)
        slow.arrive()
        assert isinstance(running.result()[0][0], DecodedClip)
        isolated.decode(short, ONE)
        assert _workers() == [worker]


def test_one_that_ended_while_it_waited_costs_nothing(short: VideoSource) -> None:
    with IsolatedDecoder(1, TIMEOUT_S) as isolated:
        expected = isolated.decode(short, ONE)
        (worker,) = _workers()
        _end(worker, signal.SIGKILL)
        _same(isolated.decode(short, ONE), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_memory_is_limited(short: VideoSource) -> None:
    large = VideoSource(data=_png(7000))
    with IsolatedDecoder(1, TIMEOUT_S, memory_bytes=400 << 20) as isolated:
        with pytest.raises(SampleError, match="more than the limit of 400 MiB") as caught:
            isolated.decode(large, ONE, backend="pillow")
        assert caught.value.permanent
        isolated.decode(short, ONE)
    with IsolatedDecoder(1, TIMEOUT_S) as isolated:
        isolated.decode(large, ONE, geometries=[Geometry(size=16)], backend="pillow")
    with (
        IsolatedDecoder(1, TIMEOUT_S, memory_bytes=30 << 20) as isolated,
        pytest.raises(EnvironmentFailure, match="process that decodes cannot be started"),
    ):
        isolated.decode(short, ONE)


def test_closing_ends_what_still_decodes(short: VideoSource, slow: Slow) -> None:
    isolated = IsolatedDecoder(2, TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(isolated.decode, slow.source, ONE, backend="pillow")
        slow.wait_until_read()
        isolated.close()
        with pytest.raises(SampleError, match="interrupted") as caught:
            running.result()
    assert not caught.value.permanent
    assert not _workers()
    with pytest.raises(UsageError, match="closed"):
        isolated.decode(short, ONE)
    isolated.close()


_PARENT = """
import sys, threading
import psutil
from fovcache.decode.isolate import IsolatedDecoder
from fovcache.decode.sampling import Sampling
from fovcache.decode.video_file import VideoSource
short, slow = (VideoSource(path=path) for path in sys.argv[1:])
decoder = IsolatedDecoder(2, 600.0)
decoder.decode(short, Sampling())
busy = threading.Thread(target=lambda: decoder.decode(slow, Sampling(), backend="pillow"))
busy.start()
decoder.decode(short, Sampling())
print(*(child.pid for child in psutil.Process().children()), flush=True)
busy.join()
"""


def test_no_process_outlives_the_one_that_asked(short: VideoSource, slow: Slow) -> None:
    """One of them waits and one works. The asking script has no guard around its main part."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, short.path, slow.source.path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        slow.wait_until_read()
        parent.kill()
    _wait_for(lambda: all(_is_gone(pid) for pid in pids), "its processes' end")


def test_as_many_at_a_time_as_there_are_processes(short: VideoSource) -> None:
    with IsolatedDecoder(3, TIMEOUT_S) as isolated, ThreadPoolExecutor(8) as pool:
        expected = isolated.decode(short, Sampling())
        for clips in pool.map(lambda _: isolated.decode(short, Sampling()), range(60)):
            _same(clips, expected)
        assert 1 <= len(_workers()) <= 3


def test_a_process_starts_without_torch() -> None:
    code = "import fovcache.decode.worker, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"outcomes": [[{}]]},
        {"outcomes": [[{"shape": [1, 2, 2, 3], "pts_s": [0.0, 1.0]}]]},
        {"outcomes": [[{"shape": [1, 2, 2, 4], "pts_s": [0.0]}]]},
        {"outcomes": [[{"shape": [-1, -2, 2, 3], "pts_s": []}]]},
        {"outcomes": [[{"shape": [1, 2, 3, 3], "pts_s": [0.0]}]]},
        {"outcomes": [[{"shape": [1, 2, 1, 3], "pts_s": [0.0]}]]},
        {"outcomes": [{"shape": [1, 2, 2, 3], "pts_s": [0.0]}]},
        {"outcomes": 5},
        {"outcomes": [[{"stage": "decode"}]]},
    ],
)
def test_answers_that_a_process_cannot_have_given(header: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        outcomes_of(header, np.zeros(12, np.uint8))


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"timeout_s": 0.0}, {"memory_bytes": 0}])
def test_senseless_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected each above 0"):
        IsolatedDecoder(**{"num_workers": 1, "timeout_s": 1.0, **options})
