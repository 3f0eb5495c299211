"""Whatever a video is made of and however it is damaged: the frames of a full sequential decode, or a refusal."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from examples import examples
from hypothesis import event, given
from hypothesis import strategies as st

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.errors import SampleError

KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"codec": "h264"},
    "pyramid": {"codec": "h264", "num_b_frames": 3, "options": {"b-pyramid": "normal"}},
    "open gop": {"codec": "h264", "num_b_frames": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "intra refresh": {"codec": "h264", "options": {"intra-refresh": "1"}},
    "many references": {"codec": "h264", "num_b_frames": 5, "options": {"refs": "6", "b-pyramid": "strict"}},
    "interlaced": {"codec": "h264", "num_b_frames": 2, "options": {"x264-params": "tff=1"}},
    "slices": {"codec": "h264", "num_b_frames": 1, "options": {"slices": "3"}},
    "parameter sets in band": {"codec": "h264", "num_b_frames": 2, "options": {"x264-params": "repeat-headers=1"}},
    "ten bits": {"codec": "h264", "num_b_frames": 2, "pixel_format": "yuv420p10le"},
    "hevc": {"codec": "hevc", "num_b_frames": 3},
    "hevc open gop": {"codec": "hevc", "num_b_frames": 4, "options": {"x265-params": "open-gop=1"}},
    "hevc layers": {"codec": "hevc", "num_b_frames": 3, "options": {"x265-params": "temporal-layers=3"}},
    "hevc intra refresh": {"codec": "hevc", "options": {"x265-params": "intra-refresh=1"}},
    "vp8": {"codec": "vp8", "options": {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "good"}},
    "vp9": {"codec": "vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"}},
    "av1": {"codec": "av1"},
    "mpeg4": {"codec": "mpeg4", "num_b_frames": 2},
    "mpeg4 without b": {"codec": "mpeg4"},
    "mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}
WEIGHTED = [*KINDS, *(kind for kind in KINDS if kind not in ("av1", "vp9", "mjpeg")), "open gop", "pyramid", "hevc"]
_FAST_START = {"movflags": "faststart"}
CONTAINERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "mp4": (".mp4", {}),
    "mp4, index first": (".mp4", _FAST_START),
    "mp4 in fragments": (".mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": (".mov", _FAST_START),
    "mkv": (".mkv", {}),
    "webm": (".webm", {}),
    "avi": (".avi", {}),
    "ts": (".ts", {}),
}
DECLARING = {"mp4", "mp4, index first", "mov", "mkv", "webm", "avi"}
FITTING = {
    "vp8": ["mkv", "webm", "avi"],
    "vp9": ["mp4", "mp4, index first", "mkv", "webm", "mp4 in fragments"],
    "av1": ["mp4", "mp4, index first", "mkv", "webm", "mp4 in fragments"],
    "hevc": [name for name in CONTAINERS if name not in ("webm", "avi")],
    "mjpeg": ["mp4", "mp4, index first", "mov", "mkv", "avi"],
}
ALL = [name for name in CONTAINERS if name != "webm"]


@dataclass(frozen=True)
class Video:
    kind: str
    container: str
    made: MadeVideo


@st.composite
def videos(draw: st.DrawFn) -> Video:
    kind = draw(st.sampled_from(WEIGHTED))
    codec = KINDS[kind]["codec"]
    container = draw(st.sampled_from(FITTING.get(codec, ALL)))
    # x265 gives too few frames odd times; a stream of a few hundred bytes is not seen to be one.
    num_frames = draw(st.integers(3 if codec == "hevc" else 8 if container == "ts" else 1, 60))
    ticks: tuple[int, ...] = ()
    if container not in ("avi", "ts") and draw(st.booleans()):
        steps = draw(st.lists(st.integers(5, 120), min_size=num_frames, max_size=num_frames))
        ticks = tuple(itertools.accumulate(steps, initial=0))[1:]
    options = dict(KINDS[kind])
    width, height = draw(st.tuples(st.integers(32, 96), st.integers(32, 96)))
    if codec == "av1" or kind in ("interlaced", "ten bits"):
        width, height = max(64, width // 4 * 4), max(64, height // 4 * 4)
    if codec == "hevc":
        width = max(64, width)
    if codec in ("h264", "hevc") and kind != "ten bits" and (width % 2 or height % 2):
        options["pixel_format"] = "yuv444p"
    made = MadeVideo(
        **options,
        width=width,
        height=height,
        num_frames=num_frames,
        gop=draw(st.sampled_from([1, 3, 8, 12, 25, 250])),
        rate=draw(st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(10), Fraction(60)])),
        ticks=ticks,
        start_s=draw(st.sampled_from([0.0, 0.0, 1.6, 40.0])) if container != "avi" else 0.0,
        sound_s=draw(st.sampled_from([0.0, 0.0, 0.0, 1.0, 4.0])) if container != "webm" else 0.0,
        container_options=CONTAINERS[container][1],
        seed=draw(st.integers(0, 99)),
    )
    return Video(kind, container, made)


@dataclass(frozen=True)
class Damage:
    """Where the file is cut, and which of its bytes are changed by how much, as parts of its length."""

    cut: float | None = None
    flips: tuple[tuple[float, int], ...] = ()

    def apply(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for place, mask in self.flips:
            changed[int(place * len(data))] ^= mask
        return bytes(changed if self.cut is None else changed[: int(self.cut * len(data))])


places = st.floats(0, 1, exclude_max=True)
flips = st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4).map(tuple)
damages = st.one_of(
    st.just(Damage()), places.map(lambda cut: Damage(cut=cut)), flips.map(lambda some: Damage(flips=some))
)
asked = st.one_of(
    st.fixed_dictionaries({"num_frames": st.sampled_from([1, 2, 4, 8, 13])}),
    st.fixed_dictionaries({"fps": st.sampled_from([2.0, 12.5, 40.0])}),
    st.fixed_dictionaries(
        {"num_frames": st.integers(1, 4), "start_s": st.floats(0, 2), "end_s": st.floats(2.1, 3) | st.none()}
    ),
)


Clip = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Sequential:
    """A full decode, first frame to last, by a loop as people write it."""

    frames: list[np.ndarray | None]
    """None where the decoder calls a frame corrupt."""
    times_s: np.ndarray
    end_s: float
    num_errors: int
    own_times_s: np.ndarray
    """As each frame has it; `times_s` are these in order."""
    packet_times_s: np.ndarray
    """Those of the packets, in order: more than frames, where damage took some."""

    def by_time(self) -> Sequential:
        """In the order of the container's times, where damage made it another than the decoder's."""
        order = np.argsort(self.own_times_s, kind="stable")
        return replace(self, frames=[self.frames[number] for number in order])

    def clip(self, ask: Mapping[str, Any], numbering: Sequential) -> Clip | None:
        """The frames that `numbering` picks, by their times; None unless each was decoded undamaged."""
        if not len(numbering.times_s):
            return None
        return self.at(numbering.times_s[numbering.picks(**ask)])

    def at(self, times_s: np.ndarray) -> Clip | None:
        if not self.frames:
            return None
        picked = [int(np.argmin(np.abs(self.times_s - time_s))) for time_s in times_s]
        frames = [self.frames[pick] for pick in picked]
        if np.abs(self.times_s[picked] - times_s).max() > 1e-6 or any(frame is None for frame in frames):
            return None
        return np.stack(frames), times_s

    def picks(
        self, num_frames: int = 0, fps: float = 0.0, start_s: float = 0.0, end_s: float | None = None
    ) -> list[int]:
        since_s = self.times_s - self.times_s[0]
        length_s = self.end_s - self.times_s[0]
        if fps:
            moments = [number / fps for number in range(max(1, math.ceil(length_s * fps - 1e-6)))]
            return [max(i for i, at in enumerate(since_s) if at <= moment + 1e-6) for moment in moments]
        end = math.inf if end_s is None else end_s
        inside = [i for i, at in enumerate(since_s) if start_s - 1e-6 <= at < end - 1e-6]
        inside = inside or [max(i for i, at in enumerate(since_s) if at <= start_s + 1e-6)]
        n, N = len(inside), num_frames
        if N == 1:
            return [inside[n // 2]]
        return [inside[math.floor(Fraction(2 * i * (n - 1) + N - 1, 2 * (N - 1)))] for i in range(N)]


def decode_all(path: Path) -> Sequential:
    """Goes on after errors."""
    frames: list[np.ndarray | None] = []
    pts: list[int | None] = []
    packet_pts: list[int] = []
    duration = num_errors = 0
    rate, time_base = 25.0, Fraction(1)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            rate, time_base = float(stream.average_rate or rate), stream.time_base
            for packet in container.demux(stream):
                if packet.pts is not None and not packet.is_discard:
                    packet_pts.append(packet.pts)
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    num_errors += 1
                    if stream.codec_context.codec.canonical_name == "av1":
                        stream.codec_context.flush_buffers()  # else it keeps what it choked on and takes no more
                    continue
                for frame in decoded:
                    rgb = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    frames.append(None if frame.is_corrupt else rgb)
                    pts.append(frame.pts)
                    duration = frame.duration or 0
    except (av.FFmpegError, OSError, ValueError, AttributeError, IndexError, MemoryError):
        num_errors += 1
    if len({each for each in pts if each is not None}) == len(frames):
        own_times_s = np.array([float(each * time_base) for each in pts])
    else:
        own_times_s = np.arange(len(frames)) / rate
    times_s = np.sort(own_times_s)
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / rate
    end_s = (float(times_s[-1]) + (float(duration * time_base) or step)) if frames else 0.0
    return Sequential(frames, times_s, end_s, num_errors, own_times_s, np.sort(packet_pts) * float(time_base))


def are_equal(got: Clip, want: Clip | None) -> bool:
    return want is not None and np.array_equal(got[0], want[0]) and np.allclose(got[1], want[1], rtol=0, atol=1e-6)


def check(video: Video, damage: Damage, ask: Mapping[str, Any]) -> str:
    """What came of it. Fails when it is neither exact nor refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_video(Path(folder, "whole" + CONTAINERS[video.container][0]), video.made)
        whole = decode_all(path)
        lossy = video.container == "ts" or video.made.codec == "mpeg4"  # a tiny end is lost there, or an odd time
        assert len(whole.frames) == video.made.num_frames or (lossy and whole.frames)
        assert not whole.num_errors
        if damage == Damage():
            return check_whole(path, whole, ask)
        broken = path.with_name("broken" + path.suffix)
        broken.write_bytes(damage.apply(path.read_bytes()))
        found = decode_all(broken)
        got = clip_or_none(broken, ask)
        if got is None:
            return "refused"
        # The frames of this very file, by their own number, or by that of packets or undamaged frames, where damage
        # took some that were not needed; or the undamaged ones.
        as_packets = replace(found, times_s=found.packet_times_s)
        clips = [whole.clip(ask, whole), found.clip(ask, whole), found.clip(ask, as_packets)]
        clips += [] if found.num_errors else [found.clip(ask, found)]
        if damage.flips and video.container != "avi":
            clips.append(found.by_time().clip(ask, found))
    is_exact = any(are_equal(got, clip) for clip in clips)
    assert is_exact or (damage.flips and are_sound(got, whole, found)), "wrong frames"
    if damage.cut is not None and video.container in DECLARING:
        length_s = max(whole.end_s - whole.times_s[0], video.made.sound_s)
        assert found.end_s >= whole.end_s - max(0.5, 0.05 * length_s) - 0.15, "not seen to be cut off"
    return "exact, though damaged" if is_exact else "undamaged frames exact, others as the memory was"


def are_sound(got: Clip, whole: Sequential, found: Sequential) -> bool:
    """Whether all frames that the damage did not reach are right, and on time.

    FFmpeg decodes some damaged frames without a word to whatever its memory held: twice the same file, two pictures.
    And a decoder that failed gives a sequential reader nothing for the rest, where one that began later goes on.
    """
    for number in range(len(got[1])):
        frame, time_s = got[0][number : number + 1], got[1][number : number + 1]
        reached, undamaged = found.at(time_s), whole.at(time_s)
        if are_equal((frame, time_s), reached) or are_equal((frame, time_s), undamaged):
            continue
        if undamaged is None or (reached is not None and are_equal(reached, undamaged)):
            return False
    return True


def check_whole(path: Path, whole: Sequential, ask: Mapping[str, Any]) -> str:
    got = clip_or_none(path, ask)
    if ask.get("start_s", 0) >= whole.end_s - whole.times_s[0] - 1e-5:
        assert got is None
        return "a window beyond the end"
    assert got is not None, "refused"
    assert are_equal(got, whole.clip(ask, whole)), "wrong frames"
    return "exact"


def clip_or_none(path: Path, ask: Mapping[str, Any]) -> Clip | None:
    try:
        return read_clip(path, **ask)
    except SampleError as error:
        fault = error
    assert (fault.stage, fault.permanent) == ("decode", True)
    return None


@examples(100)
@given(videos(), damages, asked)
def test_a_clip_is_exact_or_refused(video: Video, damage: Damage, ask: Mapping[str, Any]) -> None:
    event(check(video, damage, ask))
