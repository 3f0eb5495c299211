"""Decoding by a subprocess of the ffmpeg command, as people's scripts do it.

Which frames are wanted comes from the same frame table as for PyAV. ffmpeg selects them by their times, so that a
frame it does not find is missing and never another one; it counts only where no times can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import SampleError
from .ffmpeg_process import FfmpegRun, Selection
from .frame_table import FrameTable, read_table
from .geometry import NATIVE, Geometry
from .limits import Limits
from .sampling import WHOLE, Sampling, Window
from .video import (
    Check,
    ClipOrError,
    CountedVideo,
    FoundFrames,
    check_of,
    clips_of,
    decode_video,
    pick_frames,
    union_of,
)
from .video_file import VideoSource, open_video

TIMEOUT_S = 3600.0
"""An ffmpeg that takes longer is killed. Pipelines have watchdogs that notice earlier."""

_MOST_RANGES = 400
"""Ranges of frames in one expression. With more, frames between some of them come along and are dropped."""


def decode_by_ffmpeg(
    source: VideoSource,
    sampling: Sampling,
    windows: Sequence[Window] = (WHOLE,),
    geometries: Sequence[Geometry] = (NATIVE,),
    *,
    limits: Limits | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[list[ClipOrError]]:
    """`decode_video` by ffmpeg: the same frames and the same refusals; scaled pixels differ a little.

    What is damaged is for PyAV to say: where ffmpeg stops, PyAV decodes each window to learn whether the damage lies
    on its way. Raises SampleError where the whole file is at fault, UsageError where there is no ffmpeg.
    """
    limits = limits or Limits()
    with open_video(source, limits) as video:
        sides = video.stream.codec_context.width, video.stream.codec_context.height
        refusals = {geometry: geometry.refusal(*sides, limits.max_pixels) for geometry in geometries}
        taken = [geometry for geometry in geometries if refusals[geometry] is None]
        table = read_table(video, limits)
        job = _Job(
            run=FfmpegRun(
                source=source,
                stream=video.stream.index,
                shapes=tuple(_shape(geometry, sides) for geometry in taken),
                max_pixels=limits.max_pixels,
                timeout_s=timeout_s,
            ),
            sampling=sampling,
            limits=limits,
            check=check_of(video, taken, limits),
        )
    clips = iter(_decode(job, windows, table) if taken else ())
    return [
        next(clips) if refusal is None else [refusal] * len(windows)
        for refusal in (refusals[geometry] for geometry in geometries)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is done with a video, whatever the window."""

    run: FfmpegRun
    sampling: Sampling
    limits: Limits
    check: Check


def _decode(job: _Job, windows: Sequence[Window], table: FrameTable) -> list[list[ClipOrError]]:
    if not table.is_exact:
        return _by_number(job, windows)
    picks = pick_frames(job.sampling, table.times_s, table.end_s, windows, job.check)
    try:
        pixels = job.run.frames(_by_time(table, union_of(picks)), stop_at_damage=True)
    except SampleError as error:
        if not error.permanent:
            raise
        by_window = [_where_it_stops(job, window, table) for window in windows]
        return [[clips[number] for clips in by_window] for number in range(len(job.run.shapes))]
    return clips_of(picks, FoundFrames(pixels=pixels), table.times_s)


def _where_it_stops(job: _Job, window: Window, table: FrameTable) -> list[ClipOrError]:
    """A window of a video that ffmpeg does not decode to its last wanted frame without complaint."""
    ((judged,),) = decode_video(job.run.source, job.sampling, [window], [Geometry(size=1)], limits=job.limits)
    if isinstance(judged, SampleError):
        return [judged] * len(job.run.shapes)
    picks = pick_frames(job.sampling, table.times_s, table.end_s, [window], job.check)
    pick = job.sampling.positions(table.times_s, table.end_s, window)
    if not np.array_equal(judged.pts_s, table.times_s[pick]):  # the packets are not the frames
        return [clip for (clip,) in _by_number(job, [window])]
    try:
        pixels = job.run.frames(_by_time(table, union_of(picks)))
    except SampleError as error:
        return [error] * len(picks)
    return [clip for (clip,) in clips_of(picks, FoundFrames(pixels=pixels), table.times_s)]


def _by_number(job: _Job, windows: Sequence[Window]) -> list[list[ClipOrError]]:
    """Windows of a video whose frames must all be decoded to be known: PyAV counts them, and finds none damaged."""
    counted = CountedVideo(job.run.source, job.limits)
    if len(counted.sizes) > 1:  # ffmpeg would begin to count again at each
        raise SampleError("decode", "its frames change their size on the way, use backend 'pyav'", permanent=True)
    picks = pick_frames(job.sampling, counted.times_s, counted.end_s, windows, job.check)
    wanted = union_of(picks)
    num = len(counted.times_s)
    ranges = _ranges([*wanted, num - 1])
    # Any frame beyond the last is taken too, so that one too many is noticed.
    expression = _any([*(f"between(n,{first},{last})" for first, last in ranges), f"gte(n,{num})"])
    selection = Selection(
        expression=expression, positions=_positions(ranges), kept=frozenset(wanted), is_by_number=True
    )
    pixels = job.run.frames(selection)
    return clips_of(picks, FoundFrames(pixels=pixels), counted.times_s)


def _by_time(table: FrameTable, wanted: Sequence[int]) -> Selection:
    pts = table.pts[table.shown]
    if not wanted:
        return Selection(expression="0", positions=[], kept=frozenset())
    # What is decoded up to the last wanted packet can be shown after its frame. All of it must arrive undamaged.
    on_the_way = np.flatnonzero(table.shown <= table.shown[list(wanted)].max())
    ranges = _ranges([*wanted, int(on_the_way[-1])])
    expression = _any([f"between(pts,{pts[first]},{pts[last]})" for first, last in ranges])
    return Selection(expression=expression, positions=_positions(ranges), kept=frozenset(wanted))


def _ranges(positions: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of each run of positions, the narrowest gaps closed where there are too many."""
    ordered = np.unique(positions)
    gaps = np.diff(ordered)
    widest = np.sort(np.argsort(-gaps, kind="stable")[: _MOST_RANGES - 1])
    parts = np.split(ordered, widest[gaps[widest] > 1] + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def _any(terms: Sequence[str]) -> str:
    """Whether one of them is true; ffmpeg refuses long sums unless they are balanced."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_any(terms[:half])}+{_any(terms[half:])})"


def _positions(ranges: Sequence[tuple[int, int]]) -> list[int]:
    return [position for first, last in ranges for position in range(first, last + 1)]


def _shape(geometry: Geometry, sides: tuple[int, int]) -> str:
    """The filters behind the selection. Frames are upright there: ffmpeg turns them first."""
    size, fit = geometry.size, geometry.fit
    if size is None:
        return "format=rgb24"
    to_rgb = f"flags={geometry.interpolation},format=rgb24"
    if fit == "squash":
        return f"scale={size}:{size}:{to_rgb}"
    side = "min(iw,ih)" if fit == "crop" else "max(iw,ih)"
    if geometry.short_side is None:
        lengths = [f"'max(1,floor((2*{length}*{size}+{side})/(2*{side})))'" for length in ("iw", "ih")]
    else:
        lengths = [f"'floor({length}*{geometry.short_side}/{side})'" for length in ("iw", "ih")]
    before = "format=rgb24," if geometry.scales_rgb(*sides) else ""
    scale = f"{before}scale={':'.join(lengths)}:{to_rgb}"
    if fit == "crop":
        return f"{scale},crop={size}:{size}:floor((iw-ow)/2):floor((ih-oh)/2):exact=1"
    return f"{scale},pad={size}:{size}:floor((ow-iw)/2):floor((oh-ih)/2):black"
