"""The validation set follows from what samples are alone; steps are stretches of the epochs' orders."""

import hashlib
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fovcache.keys.digest import bytes_digest
from fovcache.loaders.order import epoch_order
from fovcache.probes.train.config import SplitChoice
from fovcache.probes.train.feeds.sets import TrainSets, divide
from fovcache.probes.train.feeds.steps import shares


def keys_of(contents: list[int]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(str(content).encode()).digest() for content in contents)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def drawn(contents: list[int], num: int) -> TrainSets:
    uris = [str(content) for content in contents]
    return divide(keys_of(contents), [None] * len(contents), SplitChoice(), num, uris=uris)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.randoms(use_true_random=False), st.data())
def test_the_validation_set_does_not_depend_on_the_order_of_the_samples(contents: list[int], chance, data) -> None:
    most = len(contents) - max(contents.count(content) for content in contents)
    if most < 1:
        return
    num = data.draw(st.integers(1, most))
    shuffled = list(contents)
    chance.shuffle(shuffled)
    first, second = drawn(contents, num), drawn(shuffled, num)
    chosen = [contents[at] for at in first.validation.tolist()]
    assert chosen == [shuffled[at] for at in second.validation.tolist()]
    assert first.validation_hash == second.validation_hash
    sorted_keys = b"".join(sorted(bytes(key) for key in keys_of(chosen)))
    assert first.validation_hash == bytes_digest(sorted_keys)
    # Equal content is on one side, all samples are on one, and no more are taken than it needs.
    assert sorted([*first.train.tolist(), *first.validation.tolist()]) == list(range(len(contents)))
    assert not {contents[at] for at in first.train.tolist()} & set(chosen)
    assert len(chosen) >= num > len(chosen) - chosen.count(chosen[-1])


@given(st.sets(st.integers(0, 1000), min_size=12, max_size=40), st.integers(1, 5))
def test_more_samples_only_ever_replace_samples_of_the_validation_set(contents: set[int], num: int) -> None:
    every = sorted(contents)
    whole = [every[at] for at in drawn(every, num).validation.tolist()]
    part = every[: len(every) // 2 + num]
    found = [part[at] for at in drawn(part, num).validation.tolist()]
    assert set(whole) & set(part) <= set(found)


@given(
    num_samples=st.integers(1, 30),
    share=st.integers(1, 9),
    num_ranks=st.integers(1, 4),
    steps_done=st.integers(0, 50),
    seed=st.integers(0, 2**40),
)
def test_steps_are_consecutive_stretches_of_the_epochs_cut_among_ranks(
    num_samples: int, share: int, num_ranks: int, steps_done: int, seed: int
) -> None:
    batch_size, num_steps = share * num_ranks, 4
    parts = [
        list(
            islice(
                shares(
                    num_samples,
                    seed=seed,
                    batch_size=batch_size,
                    samples_seen=steps_done * batch_size,
                    rank=rank,
                    num_ranks=num_ranks,
                ),
                num_steps,
            )
        )
        for rank in range(num_ranks)
    ]
    found = np.concatenate([np.concatenate(step) for step in zip(*parts, strict=True)])
    begin = steps_done * batch_size
    epochs = range(begin // num_samples, (begin + len(found)) // num_samples + 1)
    order = np.concatenate([epoch_order(num_samples, seed=seed, epoch=epoch) for epoch in epochs])
    assert found.tolist() == order[begin - epochs[0] * num_samples :][: len(found)].tolist()
