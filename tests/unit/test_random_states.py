"""Generators: seeded apart, taken and put back exactly, and left alone by a block with a seed of its own."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
import torch

from fovcache.probes.train.saving.random_states import RandomStates, own_random, put_back_random, seed_all, take_random
from fovcache.typed_json import revive


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    with own_random(0):
        yield


def draw() -> tuple[float, ...]:
    """Some of everything, an odd number of normal ones, of which generators keep the second."""
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        *torch.rand(3).tolist(),
        float(torch.randn(())),
    )


def test_states_go_through_json_and_back_exactly() -> None:
    seed_all(3)
    draw()
    states = take_random()
    assert states == take_random()  # nothing is drawn
    expected = [draw() for _ in range(5)]
    seed_all(4)
    put_back_random(revive(RandomStates, json.loads(json.dumps(asdict(states)))))
    assert [draw() for _ in range(5)] == expected


def test_seeds_and_ranks_have_streams_of_their_own() -> None:
    drawn = []
    for seed, rank in ((0, 0), (0, 1), (1, 0), (2**40, 0)):
        seed_all(seed, rank)
        drawn.append(draw())
        seed_all(seed, rank)
        assert draw() == drawn[-1]
    assert len({value for values in drawn for value in values}) == 4 * len(drawn[0])


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_with_its_own_seed_leaves_no_trace(fails: bool) -> None:
    seed_all(0)
    draw()
    before = take_random()
    found = []
    for _ in range(2):
        try:
            with own_random(7):
                found.append(draw())
                assert not fails
        except AssertionError:
            pass
        assert take_random() == before
    assert found[0] == found[1]
