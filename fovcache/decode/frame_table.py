"""The frames of a video as its packets tell them, without decoding one.

Headers lie about counts and durations; packets say which frames there are, when each is shown, which of them edit
lists hide, and where decoding can begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SampleError
from .limits import Limits
from .nal_units import unit_reader
from .video_file import OpenVideo, packets_of

if TYPE_CHECKING:
    import av

_TRUSTED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose packets are one frame each, with true times. AVI's times lie; streams without an index may begin
anywhere."""

_TRUSTED_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mjpeg", "prores", "ffv1"})
"""Codecs of which every packet gives one frame and keyframes stand alone. VP8 and MPEG-4 have packets that show
nothing, and what MPEG-4's decoder takes for damage depends on the frames it saw before."""

_UNIT_CODECS = frozenset({"h264", "hevc"})
"""Codecs whose packets tell by themselves where decoding can begin and which frames no other needs."""

_KEPT_BYTES = 256 << 20
_PACKET_OVERHEAD_BYTES = 700
"""Packets are kept in memory up to this, so that they are read once; each takes somewhat more than its bytes."""

_DECLARING_FORMATS = (*_TRUSTED_FORMATS, "avi", "flv", "asf")
"""Containers whose headers say how long they are. Of the others FFmpeg guesses from what there is."""

_LATE_S, _LATE_SHARE = 0.5, 0.05
"""A video is cut off when its last packet ends before its declared duration by more than the larger of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTable:
    """The packets of a stream, in decoding order, and what they say of the frames."""

    pts: np.ndarray
    """int64 [packets], in units of `time_base`; meaningless where `is_exact` is false."""
    is_key: np.ndarray
    """bool [packets]: decoding can begin here, and frames shown later are the same as if it had begun earlier."""
    is_needed: np.ndarray
    """bool [packets]: other frames may need this one; it is decoded even where it is not wanted."""
    shown: np.ndarray
    """int64 [shown frames]: for each frame in presentation order its packet."""
    time_base: Fraction
    """Seconds in a unit."""
    end_s: float
    """When the last shown frame ends."""
    is_exact: bool
    """Whether the packets can be trusted to be the frames."""
    packets: Sequence[av.Packet[av.VideoStream]] | None
    """The packets themselves; None when they were too many to keep."""

    @property
    def is_shown(self) -> np.ndarray:
        """bool [packets]: false for those that edit lists hide."""
        mask = np.zeros(len(self.pts), bool)
        mask[self.shown] = True
        return mask

    @property
    def times_s(self) -> np.ndarray:
        """float64 [shown frames]: when each is shown."""
        times: np.ndarray = self.pts[self.shown] * float(self.time_base)
        return times


def read_table(video: OpenVideo, limits: Limits) -> FrameTable:
    """Read all packets of a video. Raises SampleError when it is damaged, cut off, or over the limits."""
    scan = _Scan(video)
    for packet in packets_of(video):
        scan.add(packet)
        limits.check_count(len(scan.pts))
    if not scan.pts:
        raise SampleError("decode", "damaged: it has a video stream and no frames", permanent=True)
    table = scan.table()
    limits.check_duration(table.end_s - (float(table.times_s[0]) if len(table.shown) else 0.0))
    _check_not_cut_off(video, scan.start_s(), scan.end_s(), limits)
    return table


class _Scan:
    def __init__(self, video: OpenVideo) -> None:
        context = video.stream.codec_context
        self.codec = context.codec.canonical_name
        self.format = video.container.format.name
        assert video.stream.time_base is not None
        self.time_base = video.stream.time_base
        self.units = unit_reader(self.codec, context.extradata) if self.codec in _UNIT_CODECS else None
        self.ticks_per_frame = round(1 / ((video.stream.average_rate or 25) * self.time_base))
        is_trusted = self.format in _TRUSTED_FORMATS and self.codec in _TRUSTED_CODECS
        self.packets: list[av.Packet[av.VideoStream]] | None = [] if is_trusted else None
        self.pts: list[int] = []
        self.durations: list[int] = []
        self.is_key: list[bool] = []
        self.is_hidden: list[bool] = []
        self.is_orderly = is_trusted
        self.is_needed: list[bool] = []
        self.is_base_layer = True
        self.num_bytes = 0

    def add(self, packet: av.Packet[av.VideoStream]) -> None:
        self.is_orderly &= packet.pts is not None and not packet.is_corrupt and not packet.has_sidedata("new_extradata")
        self.pts.append(packet.pts if packet.pts is not None else packet.dts or 0)
        self.durations.append(packet.duration or 0)
        self.is_hidden.append(packet.is_discard)
        is_key, is_needed = packet.is_keyframe, True
        if self.units is not None:
            view = memoryview(packet)
            units = self.units.read(view)
            self.is_orderly &= units.is_plain
            self.is_base_layer &= units.is_base_layer
            is_needed = units.is_needed
            is_key = is_key and self.units.can_begin(view)
        elif self.codec in _UNIT_CODECS:
            is_key = False
        self.is_key.append(is_key)
        self.is_needed.append(is_needed)
        if self.packets is not None:
            self.num_bytes += packet.size + _PACKET_OVERHEAD_BYTES
            self.packets.append(packet)
            if self.num_bytes > _KEPT_BYTES:
                self.packets = None

    def start_s(self) -> float:
        return float(min(self.pts) * self.time_base)

    def end_s(self) -> float:
        last = max(pts + duration for pts, duration in zip(self.pts, self.durations, strict=True))
        return float(last * self.time_base)

    def table(self) -> FrameTable:
        pts, is_hidden = np.array(self.pts, np.int64), np.array(self.is_hidden)
        visible = np.flatnonzero(~is_hidden)
        # Whether a keyframe is one is checked on the frame, which hidden ones do not show.
        is_key = np.array(self.is_key) & ~is_hidden
        is_key[0] = True  # from the start there is no other way
        shown = visible[np.argsort(pts[visible], kind="stable")]
        is_exact = (
            self.is_orderly
            and len(shown) > 0
            and len(np.unique(pts)) == len(pts)
            and int(pts.min()) == self.pts[0]  # frames shown before the first keyframe cannot be decoded
        )
        return FrameTable(
            pts=pts,
            is_key=is_key,
            is_needed=np.array(self.is_needed) | (not self.is_base_layer),
            shown=shown,
            time_base=self.time_base,
            end_s=self._shown_end_s(pts, shown),
            is_exact=is_exact,
            packets=self.packets,
        )

    def _shown_end_s(self, pts: np.ndarray, shown: np.ndarray) -> float:
        if not len(shown):
            return self.end_s()
        last = int(shown[-1])
        between = int(np.median(np.diff(pts[shown]))) if len(shown) > 1 else 0
        return float((int(pts[last]) + (self.durations[last] or between or self.ticks_per_frame)) * self.time_base)


def _check_not_cut_off(video: OpenVideo, start_s: float, end_s: float, limits: Limits) -> None:
    declared_s = _declared_end_s(video)
    if declared_s is None:
        return
    length_s = declared_s - start_s
    limits.check_duration(length_s)
    allowed_s = max(_LATE_S, _LATE_SHARE * length_s)
    if end_s >= declared_s - allowed_s or _sound_end_s(video) >= declared_s - allowed_s:
        return
    reason = f"damaged: its last frame ends at {end_s:.2f} s of the {declared_s:.2f} s that it declares"
    raise SampleError("decode", reason, permanent=True)


def _declared_end_s(video: OpenVideo) -> float | None:
    """When the stream should end by its headers; None where a demuxer only guesses."""
    stream, container = video.stream, video.container
    if container.format.name not in _DECLARING_FORMATS:
        return None
    durations_s = []
    if container.duration is not None:
        durations_s.append(container.duration / 1e6)
    if stream.duration is not None and stream.time_base is not None:
        durations_s.append(float(stream.duration * stream.time_base))
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        durations_s = [float(stream.frames / stream.average_rate)]  # FFmpeg fits the others to what there is
    if not durations_s or min(durations_s) <= 0:
        return None
    # Matroska's duration counts from zero, the others' from the first frame.
    starts_at_zero = container.format.name == "matroska,webm" or stream.start_time is None
    start_s = 0.0 if starts_at_zero else float((stream.start_time or 0) * (stream.time_base or 0))
    return start_s + min(durations_s)


def _sound_end_s(video: OpenVideo) -> float:
    """When the other streams end: sound may go on after the last picture."""
    import av

    others = [stream for stream in video.container.streams if stream.type == "audio"]
    if not others:
        return -1.0
    try:
        video.container.seek(0)
        return max(
            (
                float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in video.container.demux(others)
                if packet.pts is not None and packet.time_base is not None
            ),
            default=-1.0,
        )
    except (av.FFmpegError, OSError):
        return -1.0
