"""Layer globs against a matcher written another way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import LayerError
from fovcache.extract.layers import select_layers

NAMES = st.lists(st.sampled_from(["a", "b", "ab", "0", "1", "11", "blocks"]), min_size=1, max_size=3).map(".".join)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "0", "1", "blocks", ".", "*", "**", "?", "+", "[", "("]), min_size=1, max_size=5
).map("".join)


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


@given(st.lists(PATTERNS, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_globs_choose_what_they_match_in_the_encoders_order(patterns: list[str], known: list[str]) -> None:
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
