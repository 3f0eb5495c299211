"""What the foveated model refuses: settings, inputs, token ids and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny_foveated import EVERY_HEAD, EXTRACTOR, SAMPLES, TINY, built, infos, made_batch

from fovcache.errors import UsageError
from fovcache.models.foveated.model import make
from fovcache.trainable import InputInfo


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mod": "fine"}, "no setting 'mod'; nearest: mode"),
        ({"mode": "corse"}, "mode = 'corse'; nearest: coarse"),
        ({"heads": ["captions"]}, "heads = 'captions'; nearest: caption"),
        ({"heads": []}, "heads = \\[\\], expected at least one"),
        ({"heads": "labels"}, "expected a list of names"),
        ({"heads": {"labels": 0}}, "heads.labels = 0, expected a weight"),
        ({"heads": ["caption"]}, "alphabet = 'ABCD' is read by the head `labels` alone"),
        ({"alphabet": "AA"}, "alphabet = 'AA', expected at least two"),
        ({"alphabet": None}, "alphabet = None, expected at least two"),
        ({"alphabet": "A."}, "not '.'"),
        ({"reconstruction_channels": 8}, "is read by the head `reconstruction` alone"),
        ({"encoder": "dinov2-base"}, 'is read by attention = "deep" alone'),
        ({"attention": "deep", "attention_heads": 2}, 'is read by attention = "shallow" alone'),
        ({"attention": "deep", "encoder": "dinov2-smal"}, "nearest: dinov2-small"),
        ({"mode": "coarse", "queries": "random"}, "queries = 'random' is for mode = \"fine\""),
        ({"mode": "autoregressive", "fine_passes": 2}, "fine_passes = 2 is for"),
        ({"fine_passes": 0}, "fine_passes = 0, expected a whole number"),
        ({"width": 30}, "width = 30, expected a multiple"),
        ({"key_value_heads": 3}, "expected a divisor of language_heads = 4"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"visual_scale": -1}, "visual_scale = -1"),
        ({"coarse_weight": "1"}, "coarse_weight = '1'"),
    ],
)
def test_settings_that_are_unknown_unread_or_wrong_are_refused(change: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make({**TINY, **change}).needs()


@pytest.mark.parametrize(
    ("change", "name", "info", "said"),
    [
        ({}, "frames", InputInfo(row_shape=(5, 32), dtype="fp32"), "--pool tokens"),
        ({}, "frames", InputInfo(row_shape=(5, 1, 32), dtype="fp32", recipe={"extractor": EXTRACTOR}), "1 tokens"),
        ({"attention_heads": 5}, None, None, "attention_heads = 5, expected a divisor of the encoder's width 32"),
        ({}, "frame_labels", InputInfo(row_shape=(4,), dtype="int64"), "expected a character a frame"),
        (
            {"heads": EVERY_HEAD},
            "latents",
            InputInfo(row_shape=(4, 4, 6, 6), dtype="fp32"),
            "with as many frames as the encoder's tokens have, 5",
        ),
        (
            {"heads": EVERY_HEAD},
            "latents",
            InputInfo(row_shape=(5, 8, 6, 6), dtype="fp32", recipe={"posterior": {"kind": "mean+logvar"}}),
            "log-variance",
        ),
        (
            {"heads": EVERY_HEAD},
            "captions",
            InputInfo(row_shape=(7,), dtype="int64", recipe={"extractor": {"vocabulary": 513, "end": 0}}),
            "a tokenizer that disagrees with the language model: it has 513 tokens and the model 512",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    change: Mapping[str, Any], name: str | None, info: InputInfo | None, said: str
) -> None:
    given = {**infos(), **({} if name is None or info is None else {name: info})}
    with pytest.raises(UsageError, match=said):
        make({**TINY, **change}).build(given, 0)


def test_ids_and_labels_that_mean_nothing_are_refused() -> None:
    module, batch = built(heads=EVERY_HEAD), made_batch()
    with pytest.raises(UsageError, match=r"a tokenizer that disagrees .* token 512, and the model has 512"):
        module({**batch, "captions": batch["captions"].clamp(max=255) * 0 + 512})
    for row, said in [
        (b"ABxD.", "'ABxD.' is no text of 5 labels"),
        (b"ABCD", "'ABCD'"),
        (b"ABCDAB", "'ABCDAB'"),
        (b".....", "at least one label"),
    ]:
        labels = torch.full((SAMPLES, 7), -1)
        labels[:, :6] = torch.tensor([*b"ABCDA", 256])
        labels[1] = -1
        labels[1, : len(row) + 1] = torch.tensor([*row, 256])
        with pytest.raises(UsageError, match=said):
            module({**batch, "frame_labels": labels})
