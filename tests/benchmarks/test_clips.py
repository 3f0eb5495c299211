"""Decoding: eight frames of a clip, and a photograph."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.made_videos import MadeVideo, make_video
from fovcache.decode.clip import read_clip
from fovcache.decode.stills import decode_still


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_read_a_clip(benchmark: BenchmarkFixture, tmp_path: Path, codec: str) -> None:
    path = tmp_path / "clip.mp4"
    make_video(path, MadeVideo(codec=codec, width=320, height=240, num_frames=150, gop=50))
    frames, _ = benchmark(read_clip, path, size=224)
    assert frames.shape == (8, 224, 224, 3)


def test_decode_a_jpeg(benchmark: BenchmarkFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
    assert benchmark(decode_still, file.getvalue(), size=224).shape == (224, 224, 3)
