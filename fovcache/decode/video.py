"""Decoding the wanted frames of a video, exactly and without the work that can be spared.

The frame table says which packets hold wanted frames. Decoding begins at the keyframe before each and stops at it;
H.264 and HEVC frames that no other frame needs are passed over. Where the table cannot be trusted, or a wanted frame
does not arrive, every frame is decoded in order instead: that is what decides what is right and what is damaged.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import SampleError
from .frame_table import FrameTable, read_table
from .geometry import NATIVE, Convert, Geometry, Pixels, converter_to
from .limits import Limits
from .sampling import WHOLE, Sampling, Window
from .video_file import OpenVideo, VideoSource, open_video, packets_of, said

if TYPE_CHECKING:
    import av

_FRAME_OVERHEAD_BYTES = 4096
_KEPT_FRAME_BYTES = 128 << 20
"""Decoded frames are kept up to this while they are counted, so that most videos are decoded once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedClip:
    """The frames of one clip."""

    frames: np.ndarray
    """uint8 [frames, height, width, 3], upright RGB."""
    pts_s: np.ndarray
    """float64 [frames]: when each is shown, in the file's own time."""


ClipOrError: TypeAlias = DecodedClip | SampleError


def decode_video(
    source: VideoSource,
    sampling: Sampling,
    windows: Sequence[Window] = (WHOLE,),
    geometries: Sequence[Geometry] = (NATIVE,),
    *,
    limits: Limits | None = None,
) -> list[list[ClipOrError]]:
    """For each geometry one clip for each window of a video, all of them in one pass: no frame is decoded twice.

    A clip that cannot be had is a SampleError in its place; raises SampleError where the whole file is at fault.
    """
    limits = limits or Limits()
    convert = converter_to(geometries, max_pixels=limits.max_pixels)
    with open_video(source, limits) as video:
        check = check_of(video, geometries, limits)
        table = read_table(video, limits)
        if table.is_exact:
            picks = pick_frames(sampling, table.times_s, table.end_s, windows, check)
            found = _decode_runs(video, source, limits, table, union_of(picks), convert)
            if found is None:
                with _in_order(source, limits) as frames:
                    found = _take_by_table(frames, table, union_of(picks), convert)
            if found is not None:
                return clips_of(picks, found, table.times_s)
    counted = CountedVideo(source, limits)
    picks = pick_frames(sampling, counted.times_s, counted.end_s, windows, check)
    return clips_of(picks, counted.take(union_of(picks), convert), counted.times_s)


Pick: TypeAlias = "np.ndarray | SampleError"
Check: TypeAlias = "Callable[[int], Sequence[SampleError | None]]"
PacketGetter: TypeAlias = "Callable[[int], av.Packet[av.VideoStream] | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFrames:
    """Pixels of wanted frames by their position in presentation order, and what ended the decoding early."""

    pixels: dict[int, Pixels]
    """By position: in each geometry."""
    fault: SampleError | None = None
    """Why frames are missing; None where none are."""


def check_of(video: OpenVideo, geometries: Sequence[Geometry], limits: Limits) -> Check:
    """A function from a clip's number of frames to what is refused of it, for each geometry."""
    context = video.stream.codec_context
    sizes = [geometry.returned(context.width, context.height) for geometry in geometries]
    return functools.partial(limits.refusals, sizes=sizes)


def pick_frames(
    sampling: Sampling, times_s: np.ndarray, end_s: float, windows: Sequence[Window], check: Check
) -> list[list[Pick]]:
    """For each geometry, positions of the frames of each window, or why there are none."""
    by_window = [_pick(sampling, times_s, end_s, window, check) for window in windows]
    return [[picks[number] for picks in by_window] for number in range(len(check(0)))]


def _pick(sampling: Sampling, times_s: np.ndarray, end_s: float, window: Window, check: Check) -> list[Pick]:
    try:
        pick = sampling.positions(times_s, end_s, window)
    except SampleError as error:
        return [error for _ in check(0)]
    return [pick if refusal is None else refusal for refusal in check(len(pick))]


def union_of(picks: Iterable[Iterable[Pick]]) -> list[int]:
    """All picked positions, ascending."""
    distinct = {id(pick): pick for pick in itertools.chain(*picks) if not isinstance(pick, SampleError)}
    return sorted({position for pick in distinct.values() for position in pick.tolist()})


def clips_of(picks: Sequence[Sequence[Pick]], found: FoundFrames, times_s: np.ndarray) -> list[list[ClipOrError]]:
    """For each geometry the clips of what was picked; what is missing is the fault's."""
    return [[_clip_of(pick, found, times_s, number) for pick in each] for number, each in enumerate(picks)]


def _clip_of(pick: Pick, found: FoundFrames, times_s: np.ndarray, geometry: int) -> ClipOrError:
    if isinstance(pick, SampleError):
        return pick
    frames = []
    for position in pick.tolist():
        if position not in found.pixels:
            assert found.fault is not None, "a frame did not arrive, and nothing says why"
            return found.fault
        frame = found.pixels[position][geometry]
        if isinstance(frame, SampleError):
            return frame
        frames.append(frame)
    if len({frame.shape for frame in frames}) > 1:
        return SampleError("decode", "its frames change their size on the way; set a size", permanent=True)
    return DecodedClip(frames=np.stack(frames), pts_s=times_s[pick])


def _decode_runs(
    video: OpenVideo, source: VideoSource, limits: Limits, table: FrameTable, wanted: Sequence[int], convert: Convert
) -> FoundFrames | None:
    """Decode only what the wanted frames need. None when a frame is corrupt or missing: others must judge."""
    import av

    wanted_packets = table.shown[list(wanted)]
    position_of = dict(zip(table.pts[wanted_packets].tolist(), wanted, strict=True))
    is_taken = table.is_needed.copy()
    is_taken[wanted_packets] = True
    pixels: dict[int, Pixels] = {}
    try:
        with _packets(source, limits, table) as packet_of:
            for run in _runs(table, wanted_packets.tolist()):
                begin_pts = int(table.pts[run.start])
                due = _due_pts(table, run, is_taken)
                for frame in _decode_run(video, run, is_taken, packet_of):
                    if frame.pts is not None and frame.pts < begin_pts:  # it needs what comes before the keyframe
                        continue
                    # Each packet gives its frame, in order, and the first is a keyframe, whatever the container says.
                    if frame.is_corrupt or frame.pts != next(due, None):
                        return None
                    if run.start and frame.pts == begin_pts and not frame.key_frame:
                        return None
                    if frame.pts in position_of:
                        pixels[position_of[frame.pts]] = convert(frame)
                if next(due, None) is not None:
                    return None
    except av.FFmpegError:
        return None
    return FoundFrames(pixels=pixels)


def _runs(table: FrameTable, wanted_packets: Sequence[int]) -> list[range]:
    """Ranges of packets to decode: from the last keyframe that each wanted frame can be decoded from, up to it."""
    keys = np.flatnonzero(table.is_key)
    needs = []
    for packet in wanted_packets:
        before = keys[: np.searchsorted(keys, packet, side="right")]
        # A frame shown before a keyframe that comes earlier in the file needs the keyframe before that.
        needs.append((int(before[table.pts[before] <= table.pts[packet]][-1]), packet + 1))
    runs: list[range] = []
    for start, stop in sorted(needs):
        if runs and start <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, max(runs[-1].stop, stop))
        else:
            runs.append(range(start, stop))
    return runs


def _due_pts(table: FrameTable, run: range, is_taken: np.ndarray) -> Iterator[int]:
    """When the frames of a run are shown, in order: all that must come out of the decoder."""
    part = slice(run.start, run.stop)
    is_due = is_taken[part] & table.is_shown[part] & (table.pts[part] >= table.pts[run.start])
    return iter(np.sort(table.pts[part][is_due]).tolist())


def _decode_run(video: OpenVideo, run: range, is_taken: np.ndarray, packet_of: PacketGetter) -> Iterator[av.VideoFrame]:
    context = video.stream.codec_context
    for number in run:
        if is_taken[number]:
            yield from context.decode(packet_of(number))
    yield from context.decode(None)  # what was decoded on the way and waits for its turn
    context.flush_buffers()


@contextlib.contextmanager
def _packets(source: VideoSource, limits: Limits, table: FrameTable) -> Iterator[PacketGetter]:
    """A function from numbers, in ascending order, to packets."""
    if table.packets is not None:
        yield table.packets.__getitem__
        return
    with open_video(source, limits) as again:
        numbered = enumerate(packets_of(again))
        yield lambda wanted: next((packet for number, packet in numbered if number == wanted), None)


@contextlib.contextmanager
def _in_order(source: VideoSource, limits: Limits) -> Iterator[Iterator[av.VideoFrame]]:
    """All shown frames in presentation order. The iterator raises SampleError at the first sign of damage."""
    with open_video(source, limits) as video:
        yield _frames(video)


def _frames(video: OpenVideo) -> Iterator[av.VideoFrame]:
    import av

    context, time_base = video.stream.codec_context, float(video.stream.time_base or 0)
    last_s = 0.0
    try:
        for packet in itertools.chain(packets_of(video), [None]):
            if packet is not None and packet.is_corrupt:  # half a JPEG decodes to a frame without a word
                raise SampleError("decode", f"damaged: what follows {last_s:.3f} s is cut off", permanent=True)
            for frame in context.decode(packet):
                last_s = frame.pts * time_base if frame.pts is not None else last_s
                if frame.is_corrupt:
                    raise SampleError("decode", f"damaged: the frame at {last_s:.3f} s is corrupt", permanent=True)
                yield frame
    except av.FFmpegError as error:
        reason = f"damaged: decoding fails after {last_s:.3f} s: {said(error)}"
        raise SampleError("decode", reason, permanent=True) from error


def _take_by_table(
    frames: Iterator[av.VideoFrame], table: FrameTable, wanted: Sequence[int], convert: Convert
) -> FoundFrames | None:
    """Decode everything up to the last wanted frame. None when the frames are not those of the table."""
    pixels: dict[int, Pixels] = {}
    asked = set(wanted)
    try:
        for position, frame in enumerate(frames):
            if position >= len(table.shown) or frame.pts != int(table.pts[table.shown[position]]):
                return None
            if position in asked:
                pixels[position] = convert(frame)
                if len(pixels) == len(asked):
                    return FoundFrames(pixels=pixels)
    except SampleError as error:
        return FoundFrames(pixels=pixels, fault=error)
    return None


class CountedVideo:
    """A video whose frames can only be known by decoding them all. Raises SampleError when any is damaged."""

    def __init__(self, source: VideoSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._kept: list[av.VideoFrame] | None = []
        self.sizes: set[tuple[int, int]] = set()
        num_bytes = num_frames = 0
        pts: list[int | None] = []
        duration_s = 0.0
        with open_video(source, limits) as video:
            # Not the frame's own time base: those that leave a decoder last have none.
            time_base = float(video.stream.time_base or 0)
            rate = float(video.stream.average_rate or 25)
            for frame in _frames(video):
                num_frames += 1
                limits.check_count(num_frames)
                pts.append(frame.pts)
                duration_s = (frame.duration or 0) * time_base
                self.sizes.add((frame.width, frame.height))
                if self._kept is not None:
                    num_bytes += _FRAME_OVERHEAD_BYTES + sum(plane.buffer_size for plane in frame.planes)
                    self._kept.append(frame)
                    if num_bytes > _KEPT_FRAME_BYTES:
                        self._kept = None
        if not num_frames:
            raise SampleError("decode", "damaged: no frame can be decoded", permanent=True)
        known = np.array([each for each in pts if each is not None], np.int64)
        # AVI's times are those of frames in decoding order: sorted they are right, one by one they are not.
        are_known = len(np.unique(known)) == num_frames
        self.times_s = np.sort(known) * time_base if are_known else np.arange(num_frames) / rate
        between_s = float(np.median(np.diff(self.times_s))) if num_frames > 1 else 1 / rate
        self.end_s = float(self.times_s[-1]) + (duration_s or between_s)

    def take(self, wanted: Sequence[int], convert: Convert) -> FoundFrames:
        """Convert the wanted frames, decoding again what was not kept."""
        asked = set(wanted)
        if self._kept is not None:
            return FoundFrames(pixels={position: convert(self._kept[position]) for position in asked})
        pixels: dict[int, Pixels] = {}
        with _in_order(self._source, self._limits) as frames:
            for position, frame in enumerate(itertools.islice(frames, max(asked, default=-1) + 1)):
                if position in asked:
                    pixels[position] = convert(frame)
        return FoundFrames(pixels=pixels)
