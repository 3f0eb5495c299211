"""A small labelled cache with a known truth: layer `signal` shows the class, `noise.0` to `noise.2` know nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fovcache

LAYERS = ("noise.0", "noise.1", "noise.2", "signal")
CLASSES = ("cat", "dog", "owl")
_SIDE = 8
ENCODER = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.signal = nn.Identity()
        self.noise = nn.ModuleList(nn.Identity() for _ in range(3))

    def forward(self, x):
        strips = x.chunk(4, dim=3)
        for module, strip in zip([self.signal, *self.noise], strips):
            module(strip)
        return strips[0]

def make():
    return Net()
"""


def write_images(folder: Path, num: int = 120, *, seed: int = 0, classes: int = len(CLASSES), **columns: Any) -> Path:
    """`num` images of four strips, of which the first is the brighter the later the class; their manifest.

    `columns` are further columns of the manifest: a function of a sample's number each, or one text for all.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(num):
        pixels = chance.integers(0, 150, (_SIDE, 4 * _SIDE, 3))
        pixels[:, :_SIDE] += 40 * (number % classes)
        square = np.repeat(pixels, 4, axis=0).astype(np.uint8)  # an encoder is fed squares
        Image.fromarray(square).save(folder / f"{number:03d}.png")
        values = {name: column(number) if callable(column) else column for name, column in columns.items()}
        rows.append({"uri": f"{folder.name}/{number:03d}.png", "label": CLASSES[number % classes], **values})
    manifest = folder.with_suffix(".csv")
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def build_signal_cache(folder: Path, manifest: Path, *, dataset: str = "made", **options: Any) -> fovcache.BuildReport:
    """Build all four layers into `folder / "cache"`."""
    encoder = folder / "enc.py"
    encoder.write_text(ENCODER)
    asked: Mapping[str, Any] = {
        "encoder": f"{encoder}:make",
        "layers": LAYERS,
        "pool": "tokens",
        "size": 4 * _SIDE,
        "dataset": dataset,
        "device": "cpu",
        **options,
    }
    return fovcache.open(folder / "cache").build(str(manifest), **asked)
