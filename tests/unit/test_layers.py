"""Layers by glob."""

from __future__ import annotations

import pytest

from fovcache.errors import LayerError
from fovcache.extract.layers import layer_order, select_layers

KNOWN = ("embed", "blocks.0", "blocks.1", "blocks.1.attn", "blocks.10", "norm")


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["blocks.*"], ("blocks.0", "blocks.1", "blocks.10")),
        (["blocks.**"], ("blocks.0", "blocks.1", "blocks.1.attn", "blocks.10")),
        (["blocks.?"], ("blocks.0", "blocks.1")),
        (["norm", "embed"], ("embed", "norm")),
        (["**"], KNOWN),
        (["*"], ("embed", "norm")),
        (["embed", "embed"], ("embed",)),
    ],
)
def test_a_star_stops_at_a_dot_and_two_do_not(patterns: list[str], chosen: tuple[str, ...]) -> None:
    assert select_layers(patterns, KNOWN) == chosen


@pytest.mark.parametrize("pattern", ["block.*", "blocks.+", "Norm", "", "blocks"])
def test_a_pattern_that_matches_nothing_names_what_is_near(pattern: str) -> None:
    with pytest.raises(LayerError, match=r"no layer matches.*(nearest|there are): "):
        select_layers([pattern], KNOWN)


def test_brackets_are_one_of_these() -> None:
    known = ("blocks.0", "blocks.1", "blocks.3", "blocks.10", "a-b")
    assert select_layers(["blocks.[01]"], known) == ("blocks.0", "blocks.1")
    assert select_layers(["blocks.[0-2]*"], known) == ("blocks.0", "blocks.1", "blocks.10")
    assert select_layers(["a[-.]b"], known) == ("a-b",)
    with pytest.raises(LayerError, match=r"layer glob 'blocks.\[3-0\]' is not one"):
        select_layers(["blocks.[3-0]"], known)


def test_layers_are_in_the_order_of_their_numbers_and_embed_comes_first() -> None:
    names = ["norm", "blocks.10", "blocks.9", "embed"]
    assert sorted(names, key=layer_order) == ["embed", "blocks.9", "blocks.10", "norm"]
