"""A figure's pixels, and the rectangles of one colour among them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from fovcache.reports.figures import drawing, png
from fovcache.reports.palette import LIGHT, Theme


def picture(draw: Callable[..., object], result: object, theme: Theme = LIGHT) -> np.ndarray:
    """The figure as it is written: uint8 [height, width, 3]."""
    with drawing(theme):
        data = png(draw(result, theme))
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(image.convert("RGB"))


def runs(pixels: np.ndarray, colour: str, *, least: int = 6) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the rectangles of one colour; `least` pixels high."""
    hit = (pixels == rgb(colour)).all(axis=2)
    found = []
    for top, bottom in spans_of(hit.sum(axis=1) > 1):
        if bottom - top >= least:
            middle = hit[(top + bottom) // 2]
            found += [(top, left, bottom - top, right - left) for left, right in spans_of(middle)]
    return found


def rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def spans_of(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
