"""A figure's pixels, and the rectangles of one colour among them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

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


class Drawn:
    """A figure with its pixels, and where in them a place of its axes is."""

    def __init__(self, draw: Callable[..., Any], result: object, theme: Theme = LIGHT) -> None:
        with drawing(theme):
            self.figure = draw(result, theme)
            image = Image.open(io.BytesIO(png(self.figure)))
            image.load()
        self.pixels = np.asarray(image.convert("RGB"))

    def is_there(self, axes: int, x: float, y: float, colour: str, *, off: tuple[int, int] = (0, 0)) -> bool:
        """Whether the pixel at x and y of the axes' data, `off` by so many to the right and down, has this colour."""
        left, bottom = self.figure.axes[axes].transData.transform((x, y))
        row, column = len(self.pixels) - 1 - round(bottom - 0.5) + off[1], round(left - 0.5) + off[0]
        return bool((np.abs(self.pixels[row, column].astype(int) - rgb(colour)) <= 3).all())
