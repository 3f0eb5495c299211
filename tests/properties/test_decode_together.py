"""Whatever several inputs ask of a sample, one decode gives each what it would read alone."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.isolate import IsolatedDecoder
from fovcache.decode.limits import Limits
from fovcache.decode.sampling import Sampling, Window
from fovcache.decode.video_file import VideoSource
from fovcache.errors import SampleError
from fovcache.extract.clips import ClipInput
from fovcache.extract.extractor import Item
from fovcache.extract.frames import FrameInput
from fovcache.extract.together import read_together, read_windows_together

KINDS: Mapping[str, tuple[str, MadeVideo]] = {
    "h264": ("a.mp4", MadeVideo(num_b_frames=3)),
    "h264, turned": ("a.mov", MadeVideo(width=98, height=62, rotation=90, num_b_frames=2)),
    "h264, late": ("a.mkv", MadeVideo(width=63, height=65, pixel_format="yuv444p", start_s=40.0, rate=Fraction(10))),
    "hevc": ("a.mkv", MadeVideo(codec="hevc", width=128, height=64, num_b_frames=3)),
    "vp9": ("a.webm", MadeVideo(codec="vp9")),
    "av1": ("a.mp4", MadeVideo(codec="av1", width=96, height=64)),
    "mjpeg": ("a.avi", MadeVideo(codec="mjpeg", pixel_format="yuvj420p")),
    "counted in avi": ("a.avi", MadeVideo(codec="mpeg4", num_b_frames=2)),
    "counted in ts": ("a.ts", MadeVideo(num_b_frames=2)),
    "cut": ("cut.mp4", MadeVideo(num_b_frames=2, container_options={"movflags": "faststart"})),
    "damaged": ("damaged.mp4", MadeVideo(num_b_frames=2)),
}
LIMITS = Limits(max_pixels=40_000, max_clip_bytes=800_000)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, VideoSource]:
    """By the names of KINDS."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for number, (name, (file, what)) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        made[name] = _harmed(make_video(folder / str(number) / file, what), name)
    return made


def _harmed(path: Path, name: str) -> VideoSource:
    data = bytearray(path.read_bytes())
    if name == "cut":
        del data[len(data) * 2 // 3 :]
    if name == "damaged":
        data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    return VideoSource(path=str(path))


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(1, 120.0) as decoder:
        yield decoder


@st.composite
def geometries(draw: st.DrawFn) -> FrameInput:
    """Inputs that differ in geometry, and in what makes no difference to a decode."""
    size = draw(st.sampled_from([None, 1, 16, 31, 224]))
    fit = draw(st.sampled_from(["crop", "crop", "squash", "pad"]))
    short_side = None
    if size is not None and fit == "crop":
        short_side = draw(st.none() | st.sampled_from([0, 1, 17]).map(lambda more: size + more))
    interpolation = draw(st.sampled_from(["bicubic", "bilinear"]))
    mean = draw(st.sampled_from([None, (0.5, 0.4, 0.3)]))
    return FrameInput(size=size, fit=fit, short_side=short_side, interpolation=interpolation, mean=mean)


many = st.lists(geometries(), min_size=1, max_size=4)
samplings = st.sampled_from([Sampling(num_frames=3), Sampling(num_frames=40), Sampling(num_frames=None, fps=7.0)])
windows = st.lists(
    st.sampled_from(
        [Window(), Window(start_s=0.3), Window(end_s=0.2), Window(start_s=0.4, end_s=0.5), Window(start_s=99.0)]
    ),
    min_size=1,
    max_size=3,
)


def _assert_same(ours: Sequence[Item | SampleError], theirs: Sequence[Item | SampleError]) -> None:
    for own, other in zip(ours, theirs, strict=True):
        if isinstance(other, SampleError):
            assert isinstance(own, SampleError), other
            assert (own.stage, own.reason, own.permanent) == (other.stage, other.reason, other.permanent)
        else:
            assert not isinstance(own, SampleError), own
            assert own.dtype == other.dtype == np.uint8
            assert np.array_equal(own, other)


def _alone(spec: ClipInput, source: VideoSource, windows: Sequence[Window]) -> list[Item | SampleError]:
    try:
        return list(spec.read_windows(source, windows))
    except SampleError as error:
        return [error] * len(windows)


def _check_clips(specs: Sequence[ClipInput], source: VideoSource, windows: Sequence[Window]) -> None:
    together = read_windows_together(specs, source, windows)
    assert len(together) == len(specs)
    for spec, items in zip(specs, together, strict=True):
        _assert_same(items, _alone(spec, source, windows))
        for other, others in zip(specs, together, strict=True):
            if other.geometry == spec.geometry:
                assert all(item is same for item, same in zip(items, others, strict=True))


@given(st.sampled_from([*KINDS]), many, samplings, windows)
@examples(60)
def test_clips_by_pyav(
    videos: Mapping[str, VideoSource], kind: str, frames: list[FrameInput], sampling: Sampling, windows: list[Window]
) -> None:
    _check_clips([ClipInput.like(each, sampling=sampling, backend="pyav") for each in frames], videos[kind], windows)


@given(st.sampled_from([*KINDS]), many, samplings, windows)
@examples(12)
def test_clips_by_ffmpeg(
    videos: Mapping[str, VideoSource], kind: str, frames: list[FrameInput], sampling: Sampling, windows: list[Window]
) -> None:
    _check_clips([ClipInput.like(each, sampling=sampling, backend="ffmpeg") for each in frames], videos[kind], windows)


@given(st.sampled_from([*KINDS]), many, samplings, windows)
@examples(20)
def test_clips_decoded_elsewhere(
    isolated: IsolatedDecoder,
    videos: Mapping[str, VideoSource],
    kind: str,
    frames: list[FrameInput],
    sampling: Sampling,
    windows: list[Window],
) -> None:
    decode = functools.partial(isolated.decode, backend="pyav")
    here = [ClipInput.like(each, sampling=sampling, backend="pyav") for each in frames]
    there = [replace(each, decode=decode) for each in here]
    source = videos[kind]
    for spec, ours in zip(here, read_windows_together(there, source, windows), strict=True):
        _assert_same(ours, _alone(spec, source, windows))


@given(st.sampled_from([*KINDS]), many, samplings, windows)
@examples(30)
def test_what_is_over_a_limit_is_refused_alike(
    videos: Mapping[str, VideoSource], kind: str, frames: list[FrameInput], sampling: Sampling, windows: list[Window]
) -> None:
    """Except what is over it only together: that is refused for now."""
    specs = [ClipInput.like(each, sampling=sampling, backend="pyav", limits=LIMITS) for each in frames]
    source = videos[kind]
    for spec, ours in zip(specs, read_windows_together(specs, source, windows), strict=True):
        for own, other in zip(ours, _alone(spec, source, windows), strict=True):
            if isinstance(own, SampleError) and "one encoder at a time" in own.reason:
                assert not own.permanent
                assert len({spec.geometry for spec in specs}) > 1
            else:
                _assert_same([own], [other])


@st.composite
def stills(draw: st.DrawFn) -> bytes:
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = generator.integers(0, 256, (*draw(st.tuples(st.integers(1, 90), st.integers(1, 90))), 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, draw(st.sampled_from(["PNG", "JPEG", "WEBP"])))
    data = target.getvalue()
    return data[: len(data) // 2] if draw(st.integers(0, 9)) == 0 else data


@given(stills(), many)
@examples(50)
def test_stills(isolated: IsolatedDecoder, data: bytes, frames: list[FrameInput]) -> None:
    decode = functools.partial(isolated.decode, backend="pillow")
    there = [replace(each, decode=decode) for each in frames]
    alone: list[Item | SampleError] = []
    for spec in frames:
        try:
            alone.append(spec.read(data, "name"))
        except SampleError as error:
            alone.append(error)
    _assert_same(read_together(frames, data, "name"), alone)
    _assert_same(read_together(there, data, "name"), alone)
    _assert_same(read_together([*frames, *there], data, "name"), [*alone, *alone])
