"""Scaled frames are what one swscale call to `rgb24` gives, whatever path they take."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from fovcache.decode.geometry import INTERPOLATIONS, FrameConverter, Geometry

FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "gray", "rgb24", "gbrp"]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("colorspace", "color_range"), [(2, 0), (1, 1), (5, 2)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_are_those_of_one_call(pixel_format: str, colorspace: int, color_range: int, interpolation: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 44, 3)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(noise.repeat(4, axis=0).repeat(4, axis=1)).reformat(format=pixel_format)
    frame.colorspace, frame.color_range = colorspace, color_range
    widths = set()
    for size in (*range(20, 40), 96, 131, 200):
        geometry = Geometry(size=size, interpolation=interpolation)
        converter = FrameConverter(geometry, max_pixels=1 << 20)
        width, height = geometry.scaled(frame.width, frame.height, 1 << 20)
        expected = VideoReformatter().reformat(
            frame, width=width, height=height, format="rgb24", interpolation=interpolation.upper(), threads=1
        )
        left = (width - size) // 2
        assert np.array_equal(converter.convert(frame), expected.to_ndarray()[:, left : left + size])
        widths.add(width % 2)
    assert widths == {0, 1}
