"""What frames are brought to: the sides, the pixels of Hugging Face's processors, and what a recipe says of it."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.decode.geometry import Geometry
from fovcache.decode.sampling import Sampling
from fovcache.decode.stills import MAX_PIXELS, decode_stills
from fovcache.errors import EncoderError, SampleError, UsageError
from fovcache.extract.clips import ClipInput
from fovcache.extract.frames import FrameInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2 = FrameInput(size=224, short_side=256, mean=MEAN, std=STD)
SIDES = [(480, 640), (641, 359), (256, 256), (255, 257), (100, 700), (224, 224), (90, 51), (1001, 999)]
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def photograph(height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: slopes, edges and noise."""
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    slopes[:, :, 2] += np.random.default_rng(0).normal(0, 20, (height, width))
    slopes[height // 3 : height // 2, width // 4 : width // 2] = (250, 10, 120)
    return slopes.clip(0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def by_pillow(pixels: np.ndarray, size: int, short_side: int, interpolation: str) -> np.ndarray:
    """The shorter side to `short_side`, then the centre, as processors are described to do it."""
    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = int(short_side * long / short)
    sides = (longer, short_side) if width > height else (short_side, longer)
    scaled = np.asarray(Image.fromarray(pixels).resize(sides, RESAMPLING[interpolation]))
    top, left = (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2
    return scaled[top : top + size, left : left + size]


def processor(**changes: Any) -> Any:
    """DINOv2's own, without torchvision."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, "BitImageProcessorPil", None) or transformers.BitImageProcessor
    options = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    return kind(**(options | {"image_mean": MEAN, "image_std": STD} | changes))


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize(("size", "short_side"), [(224, 256), (224, 224), (223, 256), (31, 77)])
def test_stills_are_scaled_and_cut_as_by_pillow(size: int, short_side: int, interpolation: str) -> None:
    spec = FrameInput(size=size, short_side=short_side, interpolation=interpolation)
    for height, width in SIDES:
        pixels = photograph(height, width)
        expected = by_pillow(pixels, size, short_side, interpolation)
        assert np.array_equal(spec.read(png(pixels), "a.png")[0], expected)


def test_stills_are_those_of_dinov2s_processor() -> None:
    plain = processor(do_rescale=False, do_normalize=False)
    for sides in SIDES:
        pixels = photograph(*sides)
        (theirs,) = plain(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
        ours = DINOV2.read(png(pixels), "a.png")[0]
        assert np.abs(theirs.transpose(1, 2, 0).astype(int) - ours).max() <= 1


def _assert_close(path: Path, spec: ClipInput) -> None:
    native, _ = read_clip(path, num_frames=4)
    plain = processor(resample=int(RESAMPLING[spec.interpolation]))
    theirs = plain(list(native), return_tensors="np")["pixel_values"].reshape(4, -1).astype(float)
    ours = spec.prepare(spec.collate([spec.read(path.read_bytes(), path.name)])).numpy().reshape(4, -1).astype(float)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / norms).min() >= 0.999


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize(("width", "height", "rotation"), [(64, 48, 0), (254, 256, 90), (400, 300, 0), (360, 502, 270)])
def test_frames_of_videos_are_close_to_the_processors(
    tmp_path: Path, width: int, height: int, rotation: int, interpolation: str
) -> None:
    options = {"width": width, "height": height, "rotation": rotation, "num_frames": 6}
    path = make_video(tmp_path / "a.mp4", MadeVideo(**options))
    frames = FrameInput(size=224, short_side=256, mean=MEAN, std=STD, interpolation=interpolation)
    _assert_close(path, ClipInput.like(frames, sampling=Sampling(num_frames=4), backend="pyav"))


@pytest.mark.needs_shared
@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_frames_of_real_clips_are_close_to_the_processors(shared: Path, interpolation: str) -> None:
    paths = [path for path in sorted((shared / "data/clips").iterdir()) if path.name != "corrupted.mp4"]
    assert paths
    frames = FrameInput(size=224, short_side=256, mean=MEAN, std=STD, interpolation=interpolation)
    for path in paths:
        _assert_close(path, ClipInput.like(frames, sampling=Sampling(num_frames=4), backend="pyav"))


@pytest.mark.parametrize("backend", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("short_side", [24, 40, 90])
def test_the_centre_is_cut_out_of_frames_as_they_are_shown(tmp_path: Path, backend: str, short_side: int) -> None:
    """Against the same frames squashed by Pillow: an offset of a pixel would be seen."""
    path = make_video(tmp_path / "a.mp4", MadeVideo(width=90, height=64, rotation=90, pixel_format="yuv444p"))
    spec = ClipInput(size=24, short_side=short_side, backend=backend, sampling=Sampling(num_frames=3))
    native, _ = read_clip(path, num_frames=3)
    ours = spec.read(path.read_bytes(), path.name).astype(int)
    for frame, own in zip(native, ours, strict=True):
        expected = by_pillow(frame, 24, short_side, "bicubic").astype(int)
        away = np.abs(own - expected).mean()
        assert away < 4
        for axis, step in itertools.product((0, 1), (-1, 1)):
            assert np.abs(np.roll(own, step, axis)[1:-1, 1:-1] - expected[1:-1, 1:-1]).mean() > 1.5 * away


def test_sides_are_rounded_down_with_a_short_side_and_halves_up_without() -> None:
    assert Geometry(size=224, short_side=256).scaled(480, 270, MAX_PIXELS) == (455, 256)
    assert Geometry(size=256).scaled(480, 270, MAX_PIXELS) == (455, 256)
    assert Geometry(size=224, short_side=256).scaled(333, 517, MAX_PIXELS) == (256, 397)
    assert Geometry(size=256).scaled(1000, 1501, MAX_PIXELS) == (256, 384)
    assert Geometry(size=256, short_side=256).scaled(1000, 1499, MAX_PIXELS) == (256, 383)
    assert Geometry(size=256).scaled(1000, 1499, MAX_PIXELS) == (256, 384)


def test_a_still_that_would_grow_beyond_the_limit_is_refused_where_it_would() -> None:
    sliver = png(np.zeros((1, 2000, 3), np.uint8))
    grown, squashed = decode_stills(sliver, [Geometry(size=224, short_side=256), Geometry(size=16, fit="squash")])
    assert isinstance(grown, SampleError)
    assert "2000×1 scaled to 512000×256 is over the limit" in grown.reason
    assert grown.permanent
    assert isinstance(squashed, np.ndarray)
    with pytest.raises(SampleError, match="over the limit"):
        DINOV2.read(sliver, "a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; expected 1 to 8192 pixels"),
        ({"size": 8193}, "size is 8193; expected"),
        ({"size": 8, "fit": "stretch"}, "fit 'stretch' is not one of crop, squash, pad"),
        ({"size": 8, "interpolation": "nearest"}, "interpolation 'nearest' is not one of bicubic, bilinear"),
        ({"short_side": 8}, "short_side 8 goes with a size and fit 'crop'"),
        ({"size": 8, "short_side": 9, "fit": "pad"}, "short_side 9 goes with a size and fit 'crop', not 'pad'"),
        ({"size": 8, "short_side": 7}, r"short_side is 7; expected 8 \(the size\) to 8192 pixels"),
        ({"size": 8, "short_side": 8193}, "short_side is 8193; expected"),
    ],
)
def test_geometries_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Geometry(**options)
    with pytest.raises(EncoderError, match=message):
        FrameInput(**options)


def test_a_recipe_says_of_it_what_is_not_usual() -> None:
    usual, short = FrameInput(size=224).document()["clip"], DINOV2.document()["clip"]
    assert short == {**usual, "short_side": 256}
    assert "short_side" not in usual
    assert usual["interpolation"] == "bicubic, antialiased"
    bilinear = FrameInput(size=224, interpolation="bilinear")
    assert bilinear.document()["clip"] == {**usual, "interpolation": "bilinear, antialiased"}
    clips = [
        ClipInput.like(frames, sampling=Sampling(), backend="pyav").document()["clip"]
        for frames in (FrameInput(size=224), DINOV2, bilinear)
    ]
    assert clips[1] == {**clips[0], "short_side": 256}
    assert clips[2] == {**clips[0], "interpolation": "swscale bilinear"}
    native = FrameInput(interpolation="bilinear")
    assert native.document() == FrameInput().document()
    assert native.geometry == FrameInput(fit="pad").geometry


def test_what_a_user_asks_for_takes_the_place_of_the_encoders_geometry() -> None:
    assert DINOV2.with_geometry(size=None, fit=None) == DINOV2
    assert DINOV2.with_geometry(size=None, fit="crop") == DINOV2
    asked = DINOV2.with_geometry(size=196, fit=None)
    assert (asked.size, asked.fit, asked.short_side, asked.mean) == (196, "crop", None, MEAN)
    padded = DINOV2.with_geometry(size=None, fit="pad")
    assert (padded.size, padded.fit, padded.short_side) == (224, "pad", None)
