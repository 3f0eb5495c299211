"""Layers by glob."""

from __future__ import annotations

import pytest

from fovcache.errors import LayerError
from fovcache.extract.layers import select_layers

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
