"""Decoding by a subprocess of the ffmpeg command, as people's scripts do it.

Which frames are wanted comes from the same frame table as for PyAV. ffmpeg selects them by their times, so that a
frame it does not find is missing and never another one; it counts only where no times can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import SampleError, UsageError
from .ffmpeg_process import FfmpegRun, Selection
from .frame_table import FrameTable, read_table
from .geometry import FITS, FrameConverter
from .limits import Limits
from .sampling import WHOLE, Sampling, Window
from .video import ClipOrError, CountedVideo, FoundFrames, clip_of, decode_video, pick_frames, union_of
from .video_file import VideoSource, open_video

TIMEOUT_S = 3600.0
"""An ffmpeg that takes longer is killed. Pipelines have watchdogs that notice earlier."""

_MOST_RANGES = 400
"""Ranges of frames in one expression. With more, frames between some of them come along and are dropped."""


def decode_by_ffmpeg(
    source: VideoSource,
    sampling: Sampling,
    windows: Sequence[Window] = (WHOLE,),
    *,
    size: int | None = None,
    fit: str = "crop",
    limits: Limits | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[ClipOrError]:
    """`decode_video` by ffmpeg: the same frames and the same refusals; scaled pixels differ a little.

    What is damaged is for PyAV to say: where ffmpeg stops, PyAV decodes each window to learn whether the damage lies
    on its way. Raises SampleError where the whole file is at fault, UsageError where there is no ffmpeg.
    """
    limits = limits or Limits()
    if fit not in FITS:
        raise UsageError(f"fit {fit!r} is not one of {', '.join(FITS)}")
    with open_video(source, limits) as video:
        context = video.stream.codec_context
        if size is not None:
            FrameConverter(size, fit, max_pixels=limits.max_pixels).scaled(context.width, context.height)
        table = read_table(video, limits)
        run = FfmpegRun(
            source=source,
            stream=video.stream.index,
            shape=_shape(size, fit),
            max_pixels=limits.max_pixels,
            timeout_s=timeout_s,
        )
    if not table.is_exact:
        return _by_number(run, sampling, windows, limits)
    picks = [pick_frames(sampling, table.times_s, table.end_s, window) for window in windows]
    selection = _by_time(table, union_of(picks))
    try:
        pixels = run.frames(selection, stop_at_damage=True)
    except SampleError as error:
        if not error.permanent:
            raise
        return [_where_it_stops(run, sampling, window, limits, table) for window in windows]
    return [clip_of(pick, FoundFrames(pixels=pixels), table.times_s) for pick in picks]


def _where_it_stops(
    run: FfmpegRun, sampling: Sampling, window: Window, limits: Limits, table: FrameTable
) -> ClipOrError:
    """A window of a video that ffmpeg does not decode to its last wanted frame without complaint."""
    (judged,) = decode_video(run.source, sampling, [window], size=1, limits=limits)
    if isinstance(judged, SampleError):
        return judged
    pick = sampling.positions(table.times_s, table.end_s, window)
    if not np.array_equal(judged.pts_s, table.times_s[pick]):  # the packets are not the frames
        return _by_number(run, sampling, [window], limits)[0]
    selection = _by_time(table, union_of([pick]))
    try:
        pixels = run.frames(selection)
    except SampleError as error:
        return error
    return clip_of(pick, FoundFrames(pixels=pixels), table.times_s)


def _by_number(run: FfmpegRun, sampling: Sampling, windows: Sequence[Window], limits: Limits) -> list[ClipOrError]:
    """Windows of a video whose frames must all be decoded to be known: PyAV counts them, and finds none damaged."""
    counted = CountedVideo(run.source, limits)
    if len(counted.sizes) > 1:  # ffmpeg would begin to count again at each
        raise SampleError("decode", "its frames change their size on the way, use backend 'pyav'", permanent=True)
    picks = [pick_frames(sampling, counted.times_s, counted.end_s, window) for window in windows]
    wanted = union_of(picks)
    num = len(counted.times_s)
    ranges = _ranges([*wanted, num - 1])
    # Any frame beyond the last is taken too, so that one too many is noticed.
    expression = _any([*(f"between(n,{first},{last})" for first, last in ranges), f"gte(n,{num})"])
    selection = Selection(
        expression=expression, positions=_positions(ranges), kept=frozenset(wanted), is_by_number=True
    )
    pixels = run.frames(selection)
    return [clip_of(pick, FoundFrames(pixels=pixels), counted.times_s) for pick in picks]


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


def _shape(size: int | None, fit: str) -> str:
    """The filters behind the selection. Frames are upright there: ffmpeg turns them first."""
    if size is None:
        return "format=rgb24"
    if fit == "squash":
        return f"scale={size}:{size}:flags=bicubic,format=rgb24"
    side = "min(iw,ih)" if fit == "crop" else "max(iw,ih)"
    sides = (f"'max(1,floor((2*{length}*{size}+{side})/(2*{side})))'" for length in ("iw", "ih"))
    scale = f"scale={':'.join(sides)}:flags=bicubic,format=rgb24"
    if fit == "crop":
        return f"{scale},crop={size}:{size}:floor((iw-ow)/2):floor((ih-oh)/2):exact=1"
    return f"{scale},pad={size}:{size}:floor((ow-iw)/2):floor((oh-ih)/2):black"
