"""Whatever a video is made of and however it is damaged: the frames of a full sequential decode, or a refusal."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.errors import SampleError

NUM_EXAMPLES = int(os.environ.get("DECODE_EXAMPLES", "250"))

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
    "hevc layers": {"codec": "hevc", "num_b_frames": 3, "options": {"x265-params": "temporal-layers=3:b-adapt=0"}},
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
EVERY = [name for name in CONTAINERS if name != "webm"]


@dataclass(frozen=True)
class Video:
    kind: str
    container: str
    made: MadeVideo


@st.composite
def videos(draw: st.DrawFn) -> Video:
    kind = draw(st.sampled_from(WEIGHTED))
    codec = KINDS[kind]["codec"]
    container = draw(st.sampled_from(FITTING.get(codec, EVERY)))
    num_frames = draw(st.integers(1, 60))
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


@dataclass(frozen=True)
class Sequential:
    """A full decode, first frame to last, by a loop as people write it."""

    frames: list[np.ndarray]
    times_s: np.ndarray
    end_s: float
    num_sound: int
    """Frames before the first corrupt one."""

    def clip(self, ask: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
        """The frames asked for; None where damage comes before the last of them, or none is on the screen."""
        if not self.frames:
            return None
        picks = self.picks(**ask)
        if picks[-1] >= self.num_sound:
            return None
        return np.stack([self.frames[pick] for pick in picks]), self.times_s[picks]

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


def decode_all(path: Path, *, keep: bool = False) -> Sequential:
    """`keep` holds on to decoded frames, so that decoders must take new memory for each."""
    frames: list[np.ndarray] = []
    kept: list[av.VideoFrame] = []
    pts: list[int | None] = []
    duration = 0
    first_fault = math.inf
    rate, time_base = 25.0, Fraction(1)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            rate, time_base = float(stream.average_rate or rate), stream.time_base
            for packet in container.demux(stream):
                for frame in packet.decode():
                    if frame.is_corrupt:
                        first_fault = min(first_fault, len(frames))
                    frames.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
                    pts.append(frame.pts)
                    duration = frame.duration or 0
                    if keep:
                        kept.append(frame)
    except (av.FFmpegError, OSError, ValueError, AttributeError, MemoryError):
        first_fault = min(first_fault, len(frames))
        return Sequential([], np.zeros(0), 0.0, 0)  # how many there are cannot be known
    if len({each for each in pts if each is not None}) == len(frames):
        times_s = np.sort([float(each * time_base) for each in pts])
    else:
        times_s = np.arange(len(frames)) / rate
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / rate
    end_s = (float(times_s[-1]) + (float(duration * time_base) or step)) if frames else 0.0
    return Sequential(frames, times_s, end_s, min(first_fault, len(frames) + 1))


def are_equal(got: tuple[np.ndarray, np.ndarray], want: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(got[0], want[0]) and np.allclose(got[1], want[1], rtol=0, atol=1e-6)


def check(video: Video, damage: Damage, ask: Mapping[str, Any]) -> str:
    """What came of it. Fails when it is neither exact nor refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_video(Path(folder, "whole" + CONTAINERS[video.container][0]), video.made)
        whole = decode_all(path)
        assert len(whole.frames) == video.made.num_frames
        assert whole.num_sound > len(whole.frames)
        if damage == Damage():
            got = ask_for(path, ask, whole)
            assert got is not None or ask.get("start_s", 0) >= whole.end_s - whole.times_s[0] - 1e-5, "refused"
            return "exact" if got is not None else "a window beyond the end"
        broken = path.with_name("broken" + path.suffix)
        broken.write_bytes(damage.apply(path.read_bytes()))
        found = decode_all(broken)
        # What a damaged VP8 frame leaves out is whatever the memory held: then there is no one sequential decode.
        again = [decode_all(broken, keep=True)] if video.kind == "vp8" else []
        got = ask_for(broken, ask, found, whole, *again)
    if damage.cut is not None and video.container in DECLARING:
        length_s = max(whole.end_s - video.made.start_s, video.made.sound_s)
        if not found.frames or found.end_s < whole.end_s - max(0.5, 0.05 * length_s) - 0.15:
            assert got is None, f"cut off at {found.end_s} of {whole.end_s} ({length_s})"
    return "refused" if got is None else "exact, though damaged"


def ask_for(path: Path, ask: Mapping[str, Any], *references: Sequential) -> tuple[np.ndarray, np.ndarray] | None:
    """The clip, if it is one of the references'; None if refused."""
    try:
        got = read_clip(path, **ask)
    except SampleError as error:
        assert error.stage == "decode"
        return None
    clips = [reference.clip(ask) for reference in references]
    assert any(clip is not None and are_equal(got, clip) for clip in clips), "wrong frames" + DIAG(got,ask,references)
    return got
def DIAG(got,ask,refs):
    r=refs[0]
    if not r.frames: return ' ref empty'
    w=r.clip(ask)
    if w is None: return ' fault before'
    a = 'pix=' if np.array_equal(got[0],w[0]) else 'pixDIFF'
    b = 'pts=' if len(got[1])==len(w[1]) and np.allclose(got[1],w[1],atol=1e-6) else 'ptsDIFF'
    bp='bypts='
    for i,t in enumerate(got[1]):
        k=[j for j in range(len(r.frames)) if abs(r.times_s[j]-t)<1e-6]
        if not any(np.array_equal(r.frames[j],got[0][i]) for j in k): bp='bypts!=' 
    return f' {a} {b} {bp} dam={r.num_sound} same_as_whole_n={len(r.frames)==len(refs[-1].frames)}\n{got[1]} {w[1]} {len(r.frames)}'



@settings(max_examples=NUM_EXAMPLES)
@given(videos(), damages, asked)
def test_a_clip_is_exact_or_refused(video: Video, damage: Damage, ask: Mapping[str, Any]) -> None:
    event(check(video, damage, ask))
