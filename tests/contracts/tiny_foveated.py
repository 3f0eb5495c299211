"""Tiny foveated models and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from fovcache.models.foveated.model import make
from fovcache.models.foveated.module import FoveatedModel
from fovcache.trainable import InputInfo

SAMPLES, FRAMES, TOKENS, WIDTH = 3, 5, 17, 32
TINY: dict[str, Any] = {"size": "tiny", "width": 32, "inner_width": 48, "heads": ["labels"], "alphabet": "ABCD"}
EVERY_HEAD = {"labels": 1.0, "caption": 0.5, "reconstruction": 2.0}
EXTRACTOR = {"tokens": {"class": True, "prefix": 1}}
BYTES = {"extractor": {"name": "bytes", "vocabulary": 257, "end": 256}}


def infos(num_frames: int = FRAMES) -> dict[str, InputInfo]:
    latents = {"extractor": {"scaling_factor": 0.5, "shift_factor": None}, "posterior": {"kind": "mean"}}
    return {
        "frames": InputInfo(
            row_shape=(num_frames, TOKENS, WIDTH), dtype="fp32", recipe={"extractor": EXTRACTOR}, weights=None
        ),
        "latents": InputInfo(row_shape=(num_frames, 4, 6, 6), dtype="fp32", recipe=latents),
        "captions": InputInfo(row_shape=(7,), dtype="int64", recipe=BYTES),
        "frame_labels": InputInfo(row_shape=(num_frames + 1,), dtype="int64", recipe=BYTES),
        "text": InputInfo(row_shape=(4,), dtype="int64", recipe=BYTES),
    }


def built(num_frames: int = FRAMES, seed: int = 0, **settings: Any) -> FoveatedModel:
    given = {**TINY, **settings}
    if "labels" not in given["heads"]:
        del given["alphabet"]
    trainable = make(given)
    needed = {name: info for name, info in infos(num_frames).items() if name in trainable.needs()}
    return trainable.build(needed, seed).eval()


def made_batch(num_frames: int = FRAMES, num_samples: int = SAMPLES, seed: int = 0) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    letters = torch.randint(ord("A"), ord("E"), (num_samples, num_frames), generator=drawn)
    letters[:, 0] = ord(".")
    if num_frames == 1:
        letters[:] = ord("B")
    captions = torch.randint(0, 256, (num_samples, 7), generator=drawn)
    texts = torch.randint(0, 256, (num_samples, 4), generator=drawn)
    for row in range(num_samples):
        captions[row, 3 + row] = 256
        captions[row, 4 + row :] = -1
        texts[row, 1 + row % 3] = 256
        texts[row, 2 + row % 3 :] = -1
    return {
        "frames": torch.randn(num_samples, num_frames, TOKENS, WIDTH, generator=drawn),
        "latents": torch.randn(num_samples, num_frames, 4, 6, 6, generator=drawn),
        "captions": captions,
        "text": texts,
        "frame_labels": functional.pad(letters, (0, 1), value=256),
    }
