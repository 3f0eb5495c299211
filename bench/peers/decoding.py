"""Decoding 8 uniform frames at 256² from clips of 3 s or more, one thread each, beside other ways to get them.

python -m fovcache.bench.peers.decoding [--clips DIR] [--rounds 12] [--out DIR]

Others are told for nothing which frames to take. The ffmpeg commands are those that scripts run:

ffmpeg -nostdin -v error -threads 1 -i CLIP -map 0:STREAM -vf "select='eq(n,0)+eq(n,41)+…',SHAPE" -fps_mode passthrough
    -frames:v 8 -f rawvideo -pix_fmt rgb24 pipe:1
ffmpeg … -vf "fps=RATE,SHAPE" -frames:v 8 …                     frames at equal distances, not the same ones
ffmpeg … -ss SECONDS -i CLIP … -frames:v 1 …                    once for each frame

with SHAPE scale=WIDTH:HEIGHT:flags=bicubic,crop=256:256.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
import torch

from fovcache.decode.clip import read_clip
from fovcache.decode.ffmpeg_process import ffmpeg_executable, ffmpeg_version
from fovcache.decode.frame_table import read_table
from fovcache.decode.geometry import FrameConverter, Geometry
from fovcache.decode.limits import Limits
from fovcache.decode.sampling import uniform_positions
from fovcache.decode.video_file import VideoSource, open_video
from fovcache.errors import SampleError, UsageError

from ..made_videos import MadeVideo, make_video
from .comparison import Comparison, Method, Timing, compare, finish

if TYPE_CHECKING:
    from av.video.stream import VideoStream

NUM_FRAMES = 8
SIZE = 256
SHORTEST_S = 3.0
OURS = "read_clip"
SEQUENTIAL = "PyAV, every frame in order"
FFMPEG = ("ffmpeg, select", "ffmpeg, fps", "ffmpeg, seeks")
TORCHCODEC = ("torchcodec exact, Resize", "torchcodec exact, torch's interpolate")
FFMPEG_BAR = 1.65
TORCHCODEC_BAR = 1.05
THREADS_BAR = 0.85
NEAR = 10.0
"""Mean difference of 8-bit values up to which two frames are the same one, scaled by different code."""

CLIPS = Path("../shared/data/clips")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip and what the others are told about it."""

    path: Path
    """The file."""
    stream: int
    """Its best video stream."""
    positions: tuple[int, ...]
    """The wanted frames' numbers in presentation order."""
    times_s: tuple[float, ...]
    """When they are shown, in the file's own time."""
    start_s: float
    """When the first frame is shown."""
    duration_s: float
    """From the first frame to the end of the last."""
    scaled: tuple[int, int]
    """Width and height before the crop."""
    frames: np.ndarray
    """What `read_clip` gives, uint8 [frames, SIZE, SIZE, 3]."""


def open_clips(folder: Path | None, made: Path) -> list[Clip]:
    """The clips of a folder that can be decoded and are long enough; some generated into `made` without a folder."""
    paths = sorted(folder.iterdir()) if folder is not None else _make_clips(made)
    clips = [clip for path in paths if path.is_file() and (clip := _open_clip(path)) is not None]
    if not clips:
        raise UsageError(f"{folder or made} has no clip of {SHORTEST_S:g} s or more that can be decoded")
    return clips


def _make_clips(folder: Path) -> list[Path]:
    kinds = {
        "h264.mp4": MadeVideo(width=640, height=360, num_frames=125, gop=50, num_b_frames=3),
        "h264.mkv": MadeVideo(width=480, height=270, num_frames=200, gop=250, num_b_frames=2, rate=Fraction(30)),
        "hevc.mp4": MadeVideo(codec="hevc", width=480, height=270, num_frames=100, gop=50, num_b_frames=3),
        "vp9.webm": MadeVideo(codec="vp9", width=480, height=270, num_frames=100, gop=50),
    }
    return [make_video(folder / name, what) for name, what in kinds.items()]


def _open_clip(path: Path) -> Clip | None:
    limits = Limits()
    try:
        frames, times_s = read_clip(path, num_frames=NUM_FRAMES, size=SIZE)
        with open_video(VideoSource(path=str(path)), limits) as video:
            table = read_table(video, limits)
            context, stream = video.stream.codec_context, video.stream.index
            scaled = Geometry(size=SIZE).scaled(context.width, context.height, limits.max_pixels)
    except SampleError:
        return None
    start_s = float(table.times_s[0])
    if table.end_s - start_s < SHORTEST_S:
        return None
    positions = uniform_positions(len(table.shown), NUM_FRAMES)
    clip = Clip(
        path=path,
        stream=stream,
        positions=tuple(positions.tolist()),
        times_s=tuple(times_s.tolist()),
        start_s=start_s,
        duration_s=table.end_s - start_s,
        scaled=scaled,
        frames=frames,
    )
    _check_native(clip)
    return clip


def _check_native(clip: Clip) -> None:
    """Native frames are those of a full decode in order, bit for bit."""
    wanted = set(clip.positions)
    expected = {}
    with av.open(str(clip.path)) as container:
        stream = cast("VideoStream", container.streams[clip.stream])
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                plain = frame.to_ndarray(format="rgb24")
                expected[number] = np.rot90(plain, round(frame.rotation / 90)), frame.time
    frames, times_s = read_clip(clip.path, num_frames=NUM_FRAMES)
    for frame, time_s, number in zip(frames, times_s, clip.positions, strict=True):
        assert np.array_equal(frame, expected[number][0])
        assert abs(time_s - expected[number][1]) < 1e-6


def by_read_clip(clip: Clip) -> np.ndarray:
    """Ours."""
    return read_clip(clip.path, num_frames=NUM_FRAMES, size=SIZE)[0]


def by_pyav(clip: Clip) -> np.ndarray:
    """Every frame up to the last wanted one, those wanted converted."""
    wanted, found = set(clip.positions), {}
    convert = FrameConverter(Geometry(size=SIZE), max_pixels=Limits().max_pixels).convert
    with av.open(str(clip.path)) as container:
        stream = cast("VideoStream", container.streams[clip.stream])
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found[number] = convert(frame)
                if len(found) == len(wanted):
                    break
    return np.stack([found[number] for number in clip.positions])


def by_ffmpeg_select(clip: Clip) -> np.ndarray:
    """One process that decodes all and keeps the wanted frames by number."""
    chosen = "+".join(f"eq(n,{number})" for number in sorted(set(clip.positions)))
    return _ffmpeg(clip, [], f"select='{chosen}',", NUM_FRAMES)


def by_ffmpeg_fps(clip: Clip) -> np.ndarray:
    """One process that decodes all and keeps frames at a fixed rate."""
    return _ffmpeg(clip, [], f"fps={NUM_FRAMES / clip.duration_s:.6f},", NUM_FRAMES)


def by_ffmpeg_seeks(clip: Clip) -> np.ndarray:
    """A process for each frame, which seeks to the keyframe before it."""
    frames = []
    for time_s in clip.times_s:
        at_s = max(0.0, time_s - clip.start_s - 0.004)  # it takes the first frame at that time or after it
        frames.append(_ffmpeg(clip, ["-ss", f"{at_s:.6f}"], "", 1))
    return np.concatenate(frames)


def _ffmpeg(clip: Clip, before: Sequence[str], choice: str, num_frames: int) -> np.ndarray:
    shape = f"scale={clip.scaled[0]}:{clip.scaled[1]}:flags=bicubic,crop={SIZE}:{SIZE}"
    command = [ffmpeg_executable(), "-nostdin", "-v", "error", "-threads", "1", *before, "-i", str(clip.path)]
    command += ["-map", f"0:{clip.stream}", "-vf", choice + shape, *_every_frame(choice), "-frames:v", str(num_frames)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(output, np.uint8).reshape(-1, SIZE, SIZE, 3)


def _every_frame(choice: str) -> list[str]:
    return ["-fps_mode", "passthrough"] if choice.startswith("select") else []


def torchcodec_methods() -> dict[str, Callable[[Clip], np.ndarray]] | str:
    """torchcodec with an exact index, with its own Resize and with torch's; or why it cannot be loaded."""
    try:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import CenterCrop, Resize
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchcodec cannot be loaded ({str(error).strip().splitlines()[0]})"

    def decode(clip: Clip, transforms: Sequence[Any] = ()) -> torch.Tensor:
        decoder = VideoDecoder(
            str(clip.path),
            stream_index=clip.stream,
            num_ffmpeg_threads=1,
            seek_mode="exact",
            transforms=list(transforms) or None,
        )
        batch = decoder.get_frames_at(list(clip.positions))
        assert np.allclose(batch.pts_seconds.numpy(), clip.times_s, atol=1e-5)
        frames: torch.Tensor = batch.data
        return frames

    def resized(clip: Clip) -> np.ndarray:
        return decode(clip, [Resize(clip.scaled[::-1]), CenterCrop((SIZE, SIZE))]).permute(0, 2, 3, 1).numpy()

    def interpolated(clip: Clip) -> np.ndarray:
        width, height = clip.scaled
        scaled = torch.nn.functional.interpolate(decode(clip), (height, width), mode="bicubic", antialias=True)
        top, left = (height - SIZE) // 2, (width - SIZE) // 2
        return scaled[..., top : top + SIZE, left : left + SIZE].permute(0, 2, 3, 1).numpy()

    return dict(zip(TORCHCODEC, (resized, interpolated), strict=True))


def measure(clips: Sequence[Clip], *, rounds: int) -> Comparison:
    """Each clip by each way, in an order of its own in every round; their geometric mean is what is compared."""
    ways = {OURS: by_read_clip, SEQUENTIAL: by_pyav}
    ways |= dict(zip(FFMPEG, (by_ffmpeg_select, by_ffmpeg_fps, by_ffmpeg_seeks), strict=True))
    codec = torchcodec_methods()
    left_out = codec if isinstance(codec, str) else ""
    if not isinstance(codec, str):
        ways |= codec
    farthest = dict.fromkeys(ways, 0.0)
    methods = [
        Method(
            name=f"{name} · {clip.path.name}",
            run=lambda way=way, clip=clip: way(clip),  # type: ignore[misc]
            check=lambda output, name=name, clip=clip: _check(farthest, name, clip, output),  # type: ignore[misc]
            amount=1,
        )
        for name, way in ways.items()
        for clip in clips
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = compare("", methods, unit="clips", rounds=rounds)
    finally:
        torch.set_num_threads(threads)
    comparison = Comparison(
        title=_title(clips, farthest, left_out),
        unit="clips",
        timings=tuple(_geometric_mean(single, name, clips) for name in ways),
        bars=[],
    )
    fastest = comparison.fastest(FFMPEG)
    comparison.judge(OURS, fastest, FFMPEG_BAR)
    if not left_out:
        comparison.judge(OURS, comparison.fastest(TORCHCODEC), TORCHCODEC_BAR)
    judged = {bar.other for bar in comparison.bars}
    for name in ways:
        if name != OURS and name not in judged:
            comparison.judge(OURS, name)
    return comparison


def _check(farthest: dict[str, float], name: str, clip: Clip, output: np.ndarray) -> None:
    if name == FFMPEG[1]:
        assert abs(len(output) - NUM_FRAMES) <= 1  # its rate is rounded
        return
    assert output.shape == clip.frames.shape
    differences = [_difference(frame, own) for frame, own in zip(output, clip.frames, strict=True)]
    farthest[name] = max(farthest[name], max(differences))
    assert farthest[name] <= (0 if name in (OURS, SEQUENTIAL) else NEAR), (name, clip.path.name, differences)


def _difference(frame: np.ndarray, own: np.ndarray) -> float:
    """Mean absolute difference where the crops overlap: half a pixel is rounded up by some and down by others."""
    inside = frame[1:-1, 1:-1].astype(np.int16)
    shifts = [(0, 0)] if np.array_equal(frame, own) else [(down, right) for down in (0, 1, -1) for right in (0, 1, -1)]
    return min(
        float(np.abs(inside - own[1 + down : SIZE - 1 + down, 1 + right : SIZE - 1 + right]).mean())
        for down, right in shifts
    )


def _geometric_mean(single: Comparison, name: str, clips: Sequence[Clip]) -> Timing:
    each = [single.timing(f"{name} · {clip.path.name}").seconds for clip in clips]
    seconds = tuple(math.exp(math.fsum(map(math.log, times)) / len(times)) for times in zip(*each, strict=True))
    return Timing(name=name, amount=1, seconds=seconds)


def _title(clips: Sequence[Clip], farthest: dict[str, float], left_out: str) -> str:
    names = ", ".join(clip.path.name for clip in clips)
    far = ", ".join(f"{name} {value:.2f}" for name, value in farthest.items() if value)
    versions = [f"PyAV {av.__version__}", f"ffmpeg {ffmpeg_version()['version']}"]
    try:
        versions.append(f"torchcodec {version('torchcodec')}")
    except PackageNotFoundError:
        left_out = left_out and "torchcodec is not installed"
    return (
        f"{NUM_FRAMES} uniform frames at {SIZE}² of {len(clips)} clips ({names}), 1 thread, geometric means; "
        f"{', '.join(versions)}; largest mean difference of a frame to ours: {far}{'; ' if left_out else ''}{left_out}"
    )


def measure_threads(clips: Sequence[Clip], *, rounds: int, num_threads: int, repeats: int = 8) -> Comparison:
    """The clips over and over in one thread and in as many as there are cores."""
    jobs = sorted([*clips] * repeats, key=lambda clip: -clip.duration_s * clip.scaled[0])  # long ones first
    many = f"{num_threads} threads"

    def check(outputs: list[np.ndarray]) -> None:
        for clip, output in zip(jobs, outputs, strict=True):
            assert np.array_equal(output, clip.frames)

    with ThreadPoolExecutor(num_threads) as pool:
        runs: dict[str, Callable[[], list[np.ndarray]]] = {
            "1 thread": lambda: [by_read_clip(clip) for clip in jobs],
            many: lambda: list(pool.map(by_read_clip, jobs)),
        }
        methods = [Method(name=name, run=run, check=check, amount=len(jobs)) for name, run in runs.items()]
        title = f"{OURS}, {len(clips)} clips {repeats} times each"
        comparison = compare(title, methods, unit="clips", rounds=rounds)
    comparison.judge(many, "1 thread", THREADS_BAR * num_threads)
    return comparison


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS if CLIPS.is_dir() else None, help="folder of clips")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of the second comparison")
    parser.add_argument("--out", help="folder for decoding.json and decoding.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        clips = open_clips(options.clips, Path(made))
        comparisons = [measure(clips, rounds=options.rounds)]
        comparisons.append(measure_threads(clips, rounds=options.rounds, num_threads=options.threads))
    finish("decoding", comparisons, options.out)


if __name__ == "__main__":
    main()
