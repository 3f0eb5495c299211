"""`random:SEED` means the same everywhere: golden values, so that another library version cannot change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fovcache.errors import WeightsError
from fovcache.extract.seeded_init import seeded_tensors
from fovcache.extract.weights import apply_weights, parse_seed
from fovcache.keys.digest import bytes_digest

SHAPES = {
    "blocks.0.norm.weight": (8,),
    "blocks.0.norm.bias": (8,),
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.0.ls1.gamma": (8,),
    "patch_embed.proj.weight": (8, 3, 4, 4),
    "cls_token": (1, 1, 8),
    "pos_embed": (1, 5, 8),
    "embeddings.word_embeddings.weight": (10, 8),
    "bn.running_mean": (8,),
    "bn.running_var": (8,),
}

GOLDEN_FIRST = [-0.0877622589468956, -0.009463569149374962, -0.6874549388885498]
GOLDEN_DIGEST = "21911fbf45a0830f0275e387ead0d012c2d9c238621c950fe5932a55ab398d52"


def test_golden_values_of_seed_0() -> None:
    tensors = seeded_tensors(SHAPES, 0)
    assert tensors["blocks.0.attn.qkv.weight"].ravel()[:3].tolist() == pytest.approx(GOLDEN_FIRST, abs=0)
    assert bytes_digest(b"".join(tensors[name].tobytes() for name in sorted(tensors))) == GOLDEN_DIGEST


def test_each_tensor_is_filled_by_its_kind() -> None:
    shapes = {
        "fc.weight": (300, 400),
        "conv.weight": (64, 16, 5, 5),
        "cls_token": (1, 1, 20000),
        "emb.weight": (99, 99),
    }
    tensors = seeded_tensors({**SHAPES, **shapes}, 3, embeddings=frozenset({"emb.weight"}))
    assert tensors["fc.weight"].std() == pytest.approx(1 / math.sqrt(400), rel=0.02)
    assert tensors["conv.weight"].std() == pytest.approx(1 / math.sqrt(16 * 25), rel=0.02)
    assert tensors["cls_token"].std() == pytest.approx(0.02, rel=0.02)
    assert tensors["emb.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert (tensors["blocks.0.norm.weight"] == 1).all()
    assert (tensors["blocks.0.norm.bias"] == 0).all()
    assert (tensors["blocks.0.ls1.gamma"] == 1).all()
    assert (tensors["bn.running_mean"] == 0).all()
    assert (tensors["bn.running_var"] == 1).all()


def test_the_order_of_the_names_given_does_not_matter_and_the_seed_does() -> None:
    forwards, backwards = seeded_tensors(SHAPES, 1), seeded_tensors(dict(reversed(SHAPES.items())), 1)
    assert all(np.array_equal(forwards[name], backwards[name]) for name in SHAPES)
    assert not np.array_equal(seeded_tensors(SHAPES, 2)["pos_embed"], forwards["pos_embed"])


def test_a_module_is_filled_whole_and_keeps_its_constant_buffers() -> None:
    module = nn.Sequential(nn.Embedding(50, 40), nn.Linear(40, 30), nn.BatchNorm1d(30))
    module.register_buffer("table", torch.arange(3))
    apply_weights(module, "random:7")
    again = nn.Sequential(nn.Embedding(50, 40), nn.Linear(40, 30), nn.BatchNorm1d(30))
    apply_weights(again, "random:7")
    assert all(torch.equal(value, again.state_dict().get(name, value)) for name, value in module.state_dict().items())
    assert module[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert module.table.tolist() == [0, 1, 2]


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:1.5", "random:" + "9" * 16])
def test_a_malformed_seed_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="seed"):
        parse_seed(text)
    assert parse_seed("weights/random.safetensors") is None
