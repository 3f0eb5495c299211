"""From a layer's output to the row that is stored."""

from __future__ import annotations

import pytest
import torch

from fovcache.errors import EncoderError, LayerError
from fovcache.extract.extractor import TokenLayout
from fovcache.extract.pooling import default_pooling, pool

PLAIN = TokenLayout()
CLS_AND_FOUR_REGISTERS = TokenLayout(has_class_token=True, num_prefix_tokens=5)


def test_the_mean_leaves_out_class_and_register_tokens() -> None:
    tokens = torch.randn(2, 5 + 9, 8)
    tokens[:, :5] = 1e6
    assert torch.equal(pool(tokens, "mean", CLS_AND_FOUR_REGISTERS, "x"), tokens[:, 5:].mean(1))


def test_the_class_token_is_the_first() -> None:
    tokens = torch.randn(2, 14, 8)
    assert torch.equal(pool(tokens, "cls", CLS_AND_FOUR_REGISTERS, "x"), tokens[:, 0])


@pytest.mark.parametrize("shape", [(2, 8, 3, 4), (2, 8, 3, 4, 5)])
def test_maps_are_averaged_over_space(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape)
    expected = maps.flatten(2).mean(2)
    assert torch.equal(pool(maps, "mean", PLAIN, "x"), expected)


def test_vectors_stay_and_tokens_keep_everything() -> None:
    vectors, tokens = torch.randn(2, 8), torch.randn(2, 14, 8)
    assert torch.equal(pool(vectors, "mean", PLAIN, "x"), vectors)
    assert pool(tokens, "tokens", CLS_AND_FOUR_REGISTERS, "x") is tokens


def test_half_precision_is_averaged_in_float32() -> None:
    maps = torch.full((1, 1, 64, 64), 3.0, dtype=torch.float16)
    maps[0, 0, 0, 0] = 60000  # 4,096 of these sum to more than float16 holds
    assert pool(maps, "mean", PLAIN, "x").dtype == torch.float32
    assert pool(maps, "mean", PLAIN, "x").item() == pytest.approx((4095 * 3 + 60000) / 4096, rel=1e-3)


@pytest.mark.parametrize("shape", [(2, 14, 8), (2, 8, 3, 3), (2, 8)])
def test_cls_without_a_class_token_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="class token"):
        pool(torch.randn(shape), "cls", PLAIN, "x")


def test_a_sequence_of_nothing_but_prefix_tokens_has_no_mean() -> None:
    with pytest.raises(LayerError, match="no patch tokens"):
        pool(torch.randn(2, 5, 8), "mean", CLS_AND_FOUR_REGISTERS, "x")


def test_the_default_is_cls_where_there_is_one() -> None:
    assert (default_pooling(CLS_AND_FOUR_REGISTERS), default_pooling(PLAIN)) == ("cls", "mean")


def test_a_layout_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(EncoderError, match="at least 1"):
        TokenLayout(has_class_token=True, num_prefix_tokens=0)
