"""A protocol says what seeds decide and what intervals are of, and a trial's key holds all that decides it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from fovcache.errors import SplitError, UsageError
from fovcache.probes.config import AblationConfig, HeadChoice, SplitChoice
from fovcache.probes.protocol import Protocol, make_protocol
from fovcache.probes.result import NO_CONTROL
from fovcache.probes.samples import LabelledSamples

NUM = 120


def protocol(splits: tuple[str, ...] | None = None, **fields: Any) -> Protocol:
    keys = np.frombuffer(b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(NUM)), np.uint8)
    samples = LabelledSamples(
        positions=np.arange(NUM), keys=keys.reshape(NUM, 32), labels=np.arange(NUM) % 2, classes=("cat", "dog"),
        groups=None, splits=splits, uris=tuple(map(str, range(NUM))), num_missing=0,
    )  # fmt: skip
    return make_protocol(AblationConfig(name="made", cache="cache", **{"seeds": (3, 4, 5), **fields}), samples)


def key(made: Protocol, seed: int = 4) -> str:
    return made.key("dataset", ["feature"], NO_CONTROL, seed)


def test_a_resplit_is_another_test_set_for_every_seed() -> None:
    made = protocol()
    assert (made.sampling, made.test_is_fixed) == ("resplit", False)
    assert len({each.test.tobytes() for each in made.partitions.values()}) == 3


def test_a_split_that_seeds_do_not_vary_is_one_test_set_as_if_it_were_given() -> None:
    made = protocol(seeds_vary=("initialisation", "order"), head=HeadChoice(kind="mlp"))
    assert (made.sampling, made.test_is_fixed) == ("given", True)
    assert len({each.test.tobytes() for each in made.partitions.values()}) == 1
    assert made.heads == "heads fitted on this train set, with other first weights and another order of its samples,"
    assert made.seed_varies.endswith("the split is that of the first seed")
    assert len({key(made, seed) for seed in (3, 4, 5)}) == 3
    assert made.partitions[4].test.tolist() == protocol().partitions[3].test.tolist()
    none = protocol(seeds_vary=("order",))  # ridge has no order
    assert none.heads == "the one head that was fitted"
    assert none.seed_varies == "nothing; the split is that of the first seed"
    assert len({key(none, seed) for seed in (3, 4, 5)}) == 1


@pytest.mark.parametrize(
    ("splits", "kind", "heads"),
    [
        (("train",) * 90 + ("test",) * 30, "ridge", "heads fitted on draws from this train set"),
        (("train",) * 80 + ("val",) * 10 + ("test",) * 30, "ridge", "the one head that was fitted"),
        (
            ("train",) * 80 + ("val",) * 10 + ("test",) * 30,
            "linear",
            "heads fitted on this train set, with other first weights and another order of its samples,",
        ),
    ],
)
def test_heads_are_named_by_what_seeds_decide(splits: tuple[str, ...], kind: str, heads: str) -> None:
    made = protocol(splits, head=HeadChoice(kind=kind))
    assert (made.heads, made.sampling) == (heads, "given")


def test_independent_draws_share_no_sample_and_their_key_says_which_part_they_are() -> None:
    made = protocol(split=SplitChoice(kind="independent"))
    assert made.sampling == "independent"
    every = [
        position
        for each in made.partitions.values()
        for side in (each.train, each.validation, each.test)
        for position in side.tolist()
    ]
    assert sorted(every) == list(range(NUM))
    assert made.document()["split"]["num_parts"] == 3
    others = [
        protocol(),
        protocol(split=SplitChoice(kind="independent"), seeds=(3, 4)),  # of larger parts
        protocol(split=SplitChoice(kind="independent"), seeds=(4, 3, 5)),  # of another part
    ]
    assert key(made) not in {key(other) for other in others}
    assert key(protocol(split=SplitChoice(kind="independent"), seeds=(9, 4, 7))) == key(made)


def test_independent_draws_need_seeds_that_vary_the_split_and_samples_enough() -> None:
    with pytest.raises(
        UsageError, match=r'kind = "independent" gives each seed samples of its own, and seeds_vary leaves'
    ):
        protocol(split=SplitChoice(kind="independent"), seeds_vary=("order",))
    with pytest.raises(SplitError, match=r"class 'cat' has 60 different samples, and 25 seeds .* need 75 at least"):
        protocol(split=SplitChoice(kind="independent"), seeds=tuple(range(25)))


def test_shots_are_in_the_key_and_the_partition() -> None:
    made = protocol(split=SplitChoice(shots=4))
    assert [len(each.train) for each in made.partitions.values()] == [8] * 3
    assert len({key(protocol()), key(made), key(protocol(split=SplitChoice(shots=5)))}) == 3
    assert "which 4 of each class train keeps" in made.seed_varies
