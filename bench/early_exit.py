"""Thousands of clips that end long before their videos do: no hang, flat memory, no threads or files left behind.

    python -m fovcache.bench.early_exit --clips DIR|generated --n 10000

Decoders that are left in the midst of their work are where threads and frames stay behind, or a lock is never given
back. Each decode here takes one to three frames from the first half second of a video. Exit status 1 if anything grew.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from fovcache.decode.clip import read_clip
from fovcache.errors import SampleError

from .made_videos import MadeVideo, make_video

_GENERATED: Mapping[str, MadeVideo] = {
    "h264.mp4": MadeVideo(num_frames=60, num_b_frames=3, width=128, height=96),
    "h264.mkv": MadeVideo(num_frames=60, sound_s=3.0),
    "h264.ts": MadeVideo(num_frames=60, num_b_frames=2),
    "hevc.mp4": MadeVideo(codec="hevc", num_frames=60, num_b_frames=3),
    "vp8.webm": MadeVideo(codec="vp8", num_frames=60),
    "vp9.webm": MadeVideo(codec="vp9", num_frames=60),
    "av1.mp4": MadeVideo(codec="av1", num_frames=30),
    "mpeg4.avi": MadeVideo(codec="mpeg4", num_frames=60, num_b_frames=2),
    "mjpeg.avi": MadeVideo(codec="mjpeg", num_frames=60, pixel_format="yuvj420p"),
}
_EARLY_S = 0.5
_WARM_UP_SHARE = 0.2
_NUM_PARTS = 10
_SLOWEST_S = 60.0
_GROWTH_BYTES = 48 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the process holds at one moment."""

    num_decodes: int
    """Clips decoded so far."""
    rss_bytes: int
    """Resident memory."""
    num_threads: int
    """Threads of the process, the decoders' own too."""
    num_files: int
    """Open file descriptors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExits:
    """What many early exits came to."""

    footprints: Sequence[Footprint]
    """At even intervals, the first after the warm-up."""
    num_clips: int
    """Decodes that gave a clip."""
    num_refused: int
    """Decodes that were refused, as of damaged files."""
    slowest_s: float
    """The longest single decode."""

    @property
    def complaints(self) -> list[str]:
        """What grew, each as a line; empty when all is well."""
        first, last = self.footprints[0], self.footprints[-1]
        grown_bytes = last.rss_bytes - first.rss_bytes
        found = []
        if grown_bytes > _GROWTH_BYTES:
            found.append(f"memory grew by {grown_bytes / 2**20:.1f} MiB")
        if last.num_threads > first.num_threads:
            found.append(f"threads went from {first.num_threads} to {last.num_threads}")
        if last.num_files > first.num_files:
            found.append(f"open files went from {first.num_files} to {last.num_files}")
        if self.slowest_s > _SLOWEST_S:
            found.append(f"one decode took {self.slowest_s:.1f} s")
        if not self.num_clips:
            found.append("no clip was decoded")
        return found


def generated_clips(folder: Path) -> list[Path]:
    """Small videos of nine kinds."""
    return [make_video(folder / name, made) for name, made in _GENERATED.items()]


def leave_early(
    paths: Sequence[Path], num_decodes: int, *, show: Callable[[Footprint], object] = lambda footprint: None
) -> EarlyExits:
    """Decode early parts of the videos in turn."""
    footprints: list[Footprint] = []
    warm_up = int(num_decodes * _WARM_UP_SHARE)
    marks = {warm_up + (num_decodes - warm_up) * part // _NUM_PARTS for part in range(_NUM_PARTS + 1)}
    num_clips = num_refused = 0
    slowest_s = 0.0
    for number in range(num_decodes + 1):
        if number in marks:
            footprints.append(_footprint(number))
            show(footprints[-1])
        if number == num_decodes:
            break
        start = time.perf_counter()
        try:
            read_clip(paths[number % len(paths)], num_frames=1 + number % 3, end_s=_EARLY_S)
            num_clips += 1
        except SampleError:
            num_refused += 1
        slowest_s = max(slowest_s, time.perf_counter() - start)
    return EarlyExits(footprints=footprints, num_clips=num_clips, num_refused=num_refused, slowest_s=slowest_s)


def _footprint(num_decodes: int) -> Footprint:
    gc.collect()
    process = psutil.Process()
    return Footprint(
        num_decodes=num_decodes,
        rss_bytes=process.memory_info().rss,
        num_threads=process.num_threads(),
        num_files=process.num_fds() if hasattr(process, "num_fds") else 0,
    )


def _line(footprint: Footprint) -> str:
    return (
        f"{footprint.num_decodes:>7} decodes  {footprint.rss_bytes / 2**20:8.1f} MiB  "
        f"{footprint.num_threads} threads  {footprint.num_files} open files\n"
    )


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="generated", metavar="DIR|generated", help="a folder of videos")
    parser.add_argument("--n", type=int, default=10_000, metavar="N", help="how many decodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        is_generated = options.clips == "generated"
        paths = generated_clips(Path(folder)) if is_generated else sorted(Path(options.clips).iterdir())
        exits = leave_early(paths, options.n, show=lambda footprint: sys.stdout.write(_line(footprint)))
    sys.stdout.write(
        f"{exits.num_clips} clips, {exits.num_refused} refused, the slowest in {exits.slowest_s:.2f} s\n"
        f"{'; '.join(exits.complaints) or 'no hang, nothing grew'}\n"
    )
    return 1 if exits.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
