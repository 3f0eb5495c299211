"""scikit-learn's bundled digits as image files, so that the demo downloads nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fovcache.keys.digest import bytes_digest

_TEST_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitFiles:
    """The digits in a folder: `train/DIGIT/NUMBER.png` and `test/DIGIT/NUMBER.png`."""

    num_train: int
    """Files in `train`."""
    num_test: int
    """Files in `test`."""
    num_written: int
    """Files that were not there, or not whole, and were written now."""


def write_digits(folder: Path) -> DigitFiles:
    """Write the 1,797 digits below `folder`; files that are there already are left alone.

    An image's content decides its split, so equal images are never on both sides.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = {"train": 0, "test": 0}
    num_written = 0
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = np.round(image * (255 / 16)).astype(np.uint8)  # scikit-learn's go from 0 to 16
        split = split_of(pixels)
        counts[split] += 1
        num_written += _write_if_other(folder / split / str(label) / f"{number:04d}.png", _png(pixels))
    return DigitFiles(num_train=counts["train"], num_test=counts["test"], num_written=num_written)


def split_of(pixels: np.ndarray) -> str:
    """`test` for about a quarter of all images, by their content."""
    return "test" if int(bytes_digest(pixels.tobytes())[:8], 16) < _TEST_SHARE * 2**32 else "train"


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write_if_other(path: Path, data: bytes) -> bool:
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True
