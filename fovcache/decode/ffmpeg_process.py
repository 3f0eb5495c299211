"""The ffmpeg command: where it is, which it is, and frames out of it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from io import BufferedReader, FileIO
from typing import cast

import numpy as np

from ..errors import SampleError, UsageError, environment_failure
from .geometry import Pixels
from .video_file import FORMATS, PROTOCOLS, VideoSource

_running: set[subprocess.Popen[bytes]] = set()
_is_ending = threading.Event()

_INSTALL = "install it (on Debian: apt install ffmpeg), or pip install imageio-ffmpeg, or use backend 'pyav'"
_KEPT_CHUNKS = 4
"""Of what it complains of, the last few chunks are kept."""


def ffmpeg_executable() -> str:
    """The `ffmpeg` on the PATH, else the one that imageio-ffmpeg brings. Raises UsageError where there is none."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise UsageError(f"backend 'ffmpeg' needs the ffmpeg command, and there is none: {_INSTALL}") from None


def ffmpeg_version() -> dict[str, str]:
    """The name and version of the ffmpeg that decodes. Raises UsageError where there is none."""
    return {"name": "ffmpeg", "version": _version_of(ffmpeg_executable())}


@functools.cache
def _version_of(executable: str) -> str:
    try:
        done = subprocess.run(
            [executable, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{executable} does not run ({error}): {_INSTALL}") from error
    match = re.match(rb"ffmpeg version (\S+)", done.stdout)
    if match is None:
        raise UsageError(f"{executable} is not ffmpeg, it says {done.stdout[:80]!r}: {_INSTALL}")
    return match[1].decode(errors="replace")


def _keep_all_frames(version: str) -> tuple[str, str]:
    """The option that keeps ffmpeg from repeating and dropping frames."""
    match = re.match(r"n?(\d+)\.(\d+)", version)
    is_old = match is not None and (int(match[1]), int(match[2])) < (5, 1)
    return ("-vsync" if is_old else "-fps_mode", "passthrough")


@atexit.register
def end_running() -> None:
    """A process that ends while threads of it are still decoding takes their decoders with it."""
    _is_ending.set()
    for process in list(_running):
        process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which frames ffmpeg is to give."""

    expression: str
    """For its filter `select`: true for these frames."""
    positions: Sequence[int]
    """Their positions in presentation order."""
    kept: Collection[int]
    """Those of the positions whose pixels are wanted."""
    is_by_number: bool = False
    """Whether frames are numbered by ffmpeg. All are decoded then, so that one too many is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FfmpegRun:
    """How ffmpeg is run on one video."""

    source: VideoSource
    """The video."""
    stream: int
    """Which of its streams."""
    shapes: tuple[str, ...]
    """The filters that selected frames go through, one chain for each geometry."""
    max_pixels: int
    """Pixels of a frame, as stored and as returned."""
    timeout_s: float
    """When it is killed."""

    def frames(self, selection: Selection, *, stop_at_damage: bool = False) -> dict[int, Pixels]:
        """By position: uint8 [height, width, 3] of each shape. Raises SampleError when not just the selected arrive.

        One process decodes for all shapes that scale, one for all that begin with RGB: together, ffmpeg would turn
        frames to RGB before it rotates them, for those that scale too.
        """
        if not selection.positions:
            return {}
        by_shape: dict[str, dict[int, np.ndarray]] = {}
        for begins_with_rgb in (False, True):
            shapes = tuple(shape for shape in self.shapes if shape.startswith("format=") is begins_with_rgb)
            if shapes:
                found = replace(self, shapes=shapes)._by_one_process(selection, stop_at_damage)
                by_shape |= zip(shapes, found, strict=True)
        found = [by_shape[shape] for shape in self.shapes]
        return {position: tuple(frames[position] for frames in found) for position in found[0]}

    def _by_one_process(self, selection: Selection, stop_at_damage: bool) -> list[dict[int, np.ndarray]]:
        with self._input() as (url, descriptors):
            command = functools.partial(self._command, url, selection, stop_at_damage)
            num = len(self.shapes)
            with (
                ThreadPoolExecutor(num, thread_name_prefix="ffmpeg's output") as readers,
                _Process(command, num, descriptors, self.timeout_s) as process,
            ):
                read = functools.partial(self._read, process, selection)
                if num == 1:
                    return [read(process.outputs[0])]
                # All at a time: which of them it writes next is its own affair.
                futures = [readers.submit(read, output) for output in process.outputs]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
                return [future.result() for future in futures]

    def _read(self, process: _Process, selection: Selection, output: BufferedReader) -> dict[int, np.ndarray]:
        pixels: dict[int, np.ndarray] = {}
        num = len(selection.positions)
        for number, position in enumerate(selection.positions):
            frame = _read_ppm(output, self.max_pixels)
            if frame is None:
                raise process.failure(number, num)
            if position in selection.kept:
                pixels[position] = frame
        if output.read(1):
            raise SampleError("decode", f"ffmpeg gives more than {num} frames", permanent=True)
        return pixels

    @contextlib.contextmanager
    def _input(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """What ffmpeg opens, and the descriptors that it needs for that."""
        target = self.source.target()
        if isinstance(target, str):
            yield target, ()
            return
        with tempfile.TemporaryFile() as file:  # it has no name, so nothing is left behind whoever is killed
            file.write(target.getbuffer())
            file.flush()
            yield f"file:/dev/fd/{file.fileno()}", (file.fileno(),)

    def _command(self, url: str, selection: Selection, stop_at_damage: bool, outputs: Sequence[int]) -> list[str]:
        executable = ffmpeg_executable()
        command = [executable, "-nostdin", "-v", "error", "-filter_threads", "1"]
        if stop_at_damage:
            command += ["-xerror"]
        # -copyts: times as in the file, by which frames are selected.
        command += ["-threads", "1", "-max_pixels", str(self.max_pixels), "-copyts"]
        command += ["-format_whitelist", FORMATS, "-protocol_whitelist", PROTOCOLS, "-i", url]
        ending = [] if selection.is_by_number else ["-frames:v", str(len(selection.positions))]
        ending += [*_keep_all_frames(_version_of(executable)), "-f", "image2pipe", "-c:v", "ppm"]
        select = f"select='{selection.expression}'"
        if len(self.shapes) == 1:
            return [*command, "-map", f"0:{self.stream}", "-vf", f"{select},{self.shapes[0]}", *ending, "pipe:1"]
        names = [f"[{name}{number}]" for name in ("in", "out") for number in range(len(self.shapes))]
        ins, outs = names[: len(self.shapes)], names[len(self.shapes) :]
        chains = [f"{start}{shape}{end}" for start, shape, end in zip(ins, self.shapes, outs, strict=True)]
        graph = f"[0:{self.stream}]{select},split={len(ins)}{''.join(ins)};{';'.join(chains)}"
        command += ["-filter_complex_threads", "1", "-filter_complex", graph]
        for name, output in zip(outs, outputs, strict=True):
            command += ["-map", name, *ending, f"pipe:{output}"]
        return command


class _Process:
    """A running ffmpeg, which does not outlive its context."""

    def __init__(
        self,
        command: Callable[[Sequence[int]], Sequence[str]],
        num_outputs: int,
        descriptors: Sequence[int],
        timeout_s: float,
    ) -> None:
        """`command` is told the descriptors to write to."""
        with contextlib.ExitStack() as stack:
            try:
                pipes = [_pipe(stack) for _ in range(num_outputs - 1)]
                written = [writing.fileno() for _, writing in pipes]
                self._process = subprocess.Popen(
                    command([1, *written]),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(*descriptors, *written),
                )
            except OSError as error:
                raise environment_failure(error, "start ffmpeg") from error
            for _, writing in pipes:
                writing.close()
            stack.pop_all()
        assert self._process.stdout is not None
        self.outputs = [cast("BufferedReader", self._process.stdout), *(reading for reading, _ in pipes)]
        self._said: deque[bytes] = deque(maxlen=_KEPT_CHUNKS)
        self._listener = threading.Thread(target=self._listen, name="ffmpeg's stderr", daemon=True)
        self._timeout_s = timeout_s
        self._is_late = False
        self._timer = threading.Timer(timeout_s, self._end_late)
        self._timer.daemon = True

    def __enter__(self) -> _Process:
        _running.add(self._process)
        if _is_ending.is_set():
            self._process.kill()
        self._listener.start()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        _running.discard(self._process)
        self._listener.join()
        for output in self.outputs:
            output.close()

    def failure(self, number: int, num: int) -> SampleError:
        """Why it ended after `number` of `num` frames."""
        status = self._process.wait()
        self._listener.join()
        if self._is_late:
            return SampleError("decode", f"ffmpeg took longer than {self._timeout_s:g} s", permanent=False)
        lines = b"".join(self._said).decode(errors="replace").strip().splitlines()
        said = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] |file:\S+: ", "", lines[-1]) if lines else f"status {status}"
        return SampleError("decode", f"ffmpeg gives {number} of {num} frames: {said}", permanent=True)

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while chunk := stream.read(1024):
                self._said.append(chunk)


def _pipe(stack: contextlib.ExitStack) -> tuple[BufferedReader, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(os.fdopen(reading, "rb")), stack.enter_context(FileIO(writing, "wb"))


def _read_ppm(stream: BufferedReader, max_pixels: int) -> np.ndarray | None:
    """The next picture; None where the stream ends."""
    lines = [stream.readline(32) for _ in range(3)]
    if not lines[2].endswith(b"\n"):
        return None
    match = re.fullmatch(rb"P6\n(\d+) (\d+)\n255\n", b"".join(lines))
    if match is None or int(match[1]) * int(match[2]) > max_pixels:
        raise SampleError("decode", f"ffmpeg gives a picture that begins with {lines!r}", permanent=True)
    picture = np.empty((int(match[2]), int(match[1]), 3), np.uint8)
    is_whole = stream.readinto(picture.data.cast("B")) == picture.nbytes
    return picture if is_whole else None
