"""Still images to upright RGB by Pillow.

Pillow and not FFmpeg: of one JPEG cut at every byte, FFmpeg decodes a third of the prefixes to wrong
pictures without an error or a corrupt flag; Pillow refuses all of them.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SampleError
from .geometry import Geometry, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})

MAX_PIXELS = 100_000_000
"""An image that declares more is refused before it is decoded (a decompression bomb)."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P3", b"P6")
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_PILLOWS_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def still_decoder() -> dict[str, str]:
    """The decoder's name and version."""
    import PIL

    return {"name": "pillow", "version": PIL.__version__}


def is_still(head: bytes) -> bool:
    """Whether a file that begins so is a still image of a kind that is read here."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


@functools.cache
def _register_formats() -> None:
    """Pillow registers most formats late; those asked for by name must be there."""
    from PIL import (  # noqa: F401 - registers itself
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )


def decode_still(data: bytes, *, size: int | None = None, fit: str = "crop") -> np.ndarray:
    """Decode an image to uint8 [height, width, 3]. Raises SampleError: see `decode_stills`."""
    (pixels,) = decode_stills(data, (Geometry(size=size, fit=fit),))
    if isinstance(pixels, SampleError):
        raise pixels
    return pixels


def decode_stills(data: bytes, geometries: Sequence[Geometry]) -> Pixels:
    """Decode an image once, to each geometry; upright (EXIF orientation applied), transparency dropped.

    Raises SampleError (permanent) for bytes that are not a whole 8-bit image.
    """
    from PIL import Image, UnidentifiedImageError

    _register_formats()
    if not data:
        raise SampleError("decode", "the file is empty", permanent=True)
    try:
        _ignore_pillows_warnings()
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            upright = _upright_rgb(image)
            return tuple(_pixels_or_error(upright, geometry) for geometry in geometries)
    except UnidentifiedImageError:
        raise SampleError("decode", "not an image that can be read", permanent=True) from None
    except Image.DecompressionBombError as error:
        raise SampleError("decode", f"too many pixels: {error}", permanent=True) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        # Pillow's plugins raise all of these on damaged files.
        raise SampleError("decode", f"damaged image: {error}", permanent=True) from error


def _ignore_pillows_warnings() -> None:
    """Pillow warns about odd metadata; the pixels decide here.

    For the whole process: `warnings.catch_warnings` on several threads leaves the filters as any one of them had them.
    """
    if _PILLOWS_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOWS_WARNINGS[3].pattern)


def _upright_rgb(image: Image) -> Image:
    from PIL import ImageOps

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise SampleError("decode", f"{width}×{height} is over the limit of {MAX_PIXELS} pixels", permanent=True)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO's further pictures are a phone's previews
        raise SampleError("decode", f"an animation of {frames} frames, expected a still image", permanent=True)
    if _is_deep(image):
        raise SampleError("decode", "it has more than 8 bits a channel", permanent=True)
    if image.mode not in _EIGHT_BIT_MODES:
        raise SampleError("decode", f"pixel mode {image.mode} is not 8 bits a channel", permanent=True)
    image.load()
    return ImageOps.exif_transpose(image).convert("RGB")


def _is_deep(image: Image) -> bool:
    """Whether the file has more than 8 bits a channel although the mode has 8: Pillow drops the rest without a word."""
    for tile in getattr(image, "tile", ()):
        raw, *rest = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if (image.format == "PPM" and rest and rest[0] > 255) or (image.format != "BMP" and ";16" in str(raw)):
            return True
    return False


def _pixels_or_error(image: Image, geometry: Geometry) -> np.ndarray | SampleError:
    try:
        return np.asarray(_resize(image, geometry))
    except SampleError as error:
        return error


def _resize(image: Image, geometry: Geometry) -> Image:
    from PIL import Image as PillowImage

    size = geometry.size
    resampling = PillowImage.Resampling[geometry.interpolation.upper()]
    if geometry.short_side is not None and size is not None:
        scaled = image.resize(geometry.scaled(*image.size, MAX_PIXELS), resampling)
        at_x, at_y = (scaled.width - size) // 2, (scaled.height - size) // 2
        return scaled.crop((at_x, at_y, at_x + size, at_y + size))
    if size is None or image.size == (size, size):
        return image
    if geometry.fit == "squash":
        return image.resize((size, size), resampling)
    width, height = image.size
    if geometry.fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # Resizing out of a box never makes a picture larger than asked for, whatever the aspect ratio.
        return image.resize((size, size), resampling, box=(left, top, left + side, top + side))
    side = max(width, height)
    scaled = image.resize((max(1, round(width * size / side)), max(1, round(height * size / side))), resampling)
    padded = PillowImage.new("RGB", (size, size))
    padded.paste(scaled, ((size - scaled.width) // 2, (size - scaled.height) // 2))
    return padded
