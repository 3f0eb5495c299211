"""A figure as reports hold it: light and dark, with its caption, and its content in words."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from .figures import drawing, png
from .palette import DARK, LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Result = TypeVar("_Result")
Draw: TypeAlias = "Callable[[_Result, Theme], Figure | None]"
Words: TypeAlias = Callable[[_Result], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure in the page."""

    name: str
    """Of its PNG file, without the ending."""
    caption: str
    """How to read it."""
    alt: str
    """What it shows, for those who cannot see it."""
    light: bytes
    """PNG on a light background."""
    dark: bytes
    """PNG on a dark one, of the same size."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height on the page: half of the picture's own."""
        width, height = (int.from_bytes(self.light[at : at + 4], "big") for at in (16, 20))  # in a PNG's header
        return width // 2, height // 2

    @staticmethod
    def uri(data: bytes) -> str:
        """A `data:` URI."""
        return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def draw_picture(
    result: _Result, name: str, draw: Draw[_Result], caption: Words[_Result], alt: Words[_Result]
) -> Picture | None:
    """The figure of a result in both themes; None where it has nothing to show."""
    images = []
    for theme in (LIGHT, DARK):
        with drawing(theme):
            figure = draw(result, theme)
            if figure is None:
                return None
            images.append(png(figure))
    return Picture(name=name, caption=caption(result), alt=alt(result), light=images[0], dark=images[1])
