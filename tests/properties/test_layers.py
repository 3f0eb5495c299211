"""Layer globs against a matcher written another way."""

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import LayerError
from fovcache.extract.layers import select_layers

NAMES = st.lists(st.sampled_from(["a", "b", "ab", "0", "1", "11", "blocks"]), min_size=1, max_size=3).map(".".join)


@st.composite
def patterns_and_names(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Names, and patterns made of some of them by putting wildcards (and letters that only a regex knows) in."""
    known = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    patterns = []
    for name in draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)):
        begin = draw(st.integers(0, len(name)))
        end = draw(st.integers(begin, len(name)))
        patterns.append(name[:begin] + draw(st.sampled_from(["*", "**", "?", "", ".", "[", "+"])) + name[end:])
    return patterns, known


def matches(pattern: str, name: str) -> bool:
    """Letter by letter: `**` takes anything, `*` anything but dots, `?` one letter but a dot."""
    if not pattern:
        return not name
    if pattern.startswith("**"):
        return any(matches(pattern[2:], name[at:]) for at in range(len(name) + 1))
    if pattern[0] == "*":
        most = len(name.partition(".")[0])
        return any(matches(pattern[1:], name[at:]) for at in range(most + 1))
    if not name or (pattern[0] == "?" and name[0] == "."):
        return False
    return pattern[0] in ("?", name[0]) and matches(pattern[1:], name[1:])


@examples(200)
@given(patterns_and_names())
def test_globs_choose_what_they_match_in_the_encoders_order(drawn: tuple[list[str], list[str]]) -> None:
    patterns, known = drawn
    expected = tuple(name for name in known if any(matches(pattern, name) for pattern in patterns))
    if all(any(matches(pattern, name) for name in known) for pattern in patterns):
        assert select_layers(patterns, known) == expected
    else:
        with pytest.raises(LayerError, match="no layer matches"):
            select_layers(patterns, known)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_two_stars_choose_everything_and_names_themselves(known: list[str]) -> None:
    assert select_layers(["**"], known) == tuple(known)
    assert select_layers(known[::-1], known) == tuple(known)
