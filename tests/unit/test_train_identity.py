"""What a resumed run must have in common with the run that began."""

import pytest

from fovcache.errors import UsageError
from fovcache.probes.train.saving.identity import MAY_DIFFER, check_same

BEGAN = {
    "seed": 0,
    "device": "cuda:0",
    "cache": "/a",
    "model.kind": "projection",
    "train.learning_rate": 3e-05,
    "train.betas": (0.9, 0.999),
    "train.keep": 3,
    "feed.dataset": "abc",
}


def test_what_decides_nothing_may_differ() -> None:
    check_same(BEGAN, dict(reversed(BEGAN.items())))
    check_same(BEGAN, {**BEGAN, "train.betas": [0.9, 0.999], "device": "cuda:1"})
    check_same(BEGAN, {**BEGAN, **dict.fromkeys(MAY_DIFFER, "else")})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train.learning_rate": 1e-4}, "train.learning_rate was 3e-05 when the run began, and is 0.0001 now"),
        ({"device": "cpu"}, 'device was "cuda" when the run began, and is "cpu" now'),
        ({"train.betas": (0.8, 0.999)}, "train.betas was [0.9, 0.999] when the run began, and is [0.8, 0.999] now"),
        ({"model.width": None}, "model.width was not there when the run began, and is null now"),
        ({"feed.dataset": "abd", "seed": 1}, 'seed was 0 when the run began, and is 1 now; feed.dataset was "abc"'),
    ],
)
def test_each_field_that_differs_is_named_with_both_values(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_same(BEGAN, {**BEGAN, **changed})
    assert said in str(refused.value)
    assert "begin a new run" in str(refused.value)
    unchanged = BEGAN.keys() - changed.keys()
    assert not [name for name in unchanged if name in str(refused.value)]


def test_a_field_that_is_gone_is_named() -> None:
    with pytest.raises(UsageError, match="seed was 0 when the run began, and is not there now"):
        check_same(BEGAN, {name: value for name, value in BEGAN.items() if name != "seed"})
