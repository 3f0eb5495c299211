"""What every feed promises about the batches that come out: which samples, in which order, from where on."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch

from fovcache.keys.digest import bytes_digest
from fovcache.probes.train.feed import Feed, FeedBatch

BATCH = 6
NUM_STEPS = 9
"""Enough to cross the ends of several epochs."""


def keys_of(batches: list[FeedBatch]) -> list[list[bytes]]:
    return [[bytes(key) for key in batch.keys] for batch in batches]


def flat(batches: Iterable[list[bytes]]) -> list[bytes]:
    return list(chain.from_iterable(batches))


def steps_of(feed: Feed, num_steps: int = NUM_STEPS, samples_seen: int = 0) -> list[FeedBatch]:
    iterator = feed.train_batches(samples_seen)
    with closing(iterator) if hasattr(iterator, "close") else closing(_Closed()):
        return list(islice(iterator, num_steps))


class _Closed:
    def close(self) -> None:
        """Nothing."""


class FeedContract:
    """Subclass it with `feed`: a feed of at least 2 · BATCH training samples and several to validate with."""

    num_ranks = (1, 2, 3)
    """Numbers of processes that there can be."""

    @pytest.fixture
    @abstractmethod
    def opened(self, request: pytest.FixtureRequest) -> Any:
        """What `feed` opens feeds of."""

    @abstractmethod
    def open(self, opened: Any, *, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> Feed:
        """A new feed of steps of BATCH samples; the caller closes it."""

    @pytest.fixture
    def feed(self, opened: Any) -> Iterator[Feed]:
        with closing(self.open(opened)) as feed:
            yield feed

    def test_the_same_seed_gives_the_same_steps(self, opened: Any, feed: Feed) -> None:
        with closing(self.open(opened)) as again:
            first, second = steps_of(feed), steps_of(again)
        assert keys_of(first) == keys_of(second)
        for one, other in zip(first, second, strict=True):
            assert one.tensors.keys() == other.tensors.keys()
            assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)

    def test_another_seed_gives_another_order_of_the_same_samples(self, opened: Any, feed: Feed) -> None:
        with closing(self.open(opened, seed=1)) as other:
            assert keys_of(steps_of(feed)) != keys_of(steps_of(other))
            assert feed.validation_hash == other.validation_hash

    def test_each_tensor_has_a_row_for_each_key_as_the_inputs_say(self, feed: Feed) -> None:
        for batch in [*steps_of(feed), *feed.validation_batches()]:
            assert batch.keys.dtype == np.uint8
            assert batch.keys.shape == (len(batch), 32)
            assert {len(tensor) for tensor in batch.tensors.values()} == {len(batch)}
            for name, info in feed.inputs.items():
                assert batch.tensors[name].shape[1:] == info.row_shape

    def test_equal_samples_have_equal_rows_wherever_they_come(self, feed: Feed) -> None:
        seen: dict[bytes, torch.Tensor] = {}
        for batch in steps_of(feed):
            for key, row in zip(batch.keys, batch.tensors["frames"], strict=True):
                assert torch.equal(seen.setdefault(bytes(key), row), row)

    def test_every_step_is_whole(self, feed: Feed) -> None:
        assert [len(batch) for batch in steps_of(feed)] == [BATCH] * NUM_STEPS

    def test_an_epoch_has_every_sample_once_and_ends_within_a_step(self, feed: Feed) -> None:
        if feed.num_train is None:
            pytest.skip("a stream has no epochs")
        num_epochs, rest = divmod(NUM_STEPS * BATCH, feed.num_train)
        assert num_epochs >= 2
        assert rest
        keys = flat(keys_of(steps_of(feed)))
        epochs = [
            sorted(keys[at : at + feed.num_train]) for at in range(0, num_epochs * feed.num_train, feed.num_train)
        ]
        assert epochs == [epochs[0]] * num_epochs
        assert len(set(epochs[0])) == feed.num_train

    def test_ranks_have_the_parts_of_each_step(self, opened: Any, feed: Feed) -> None:
        whole = keys_of(steps_of(feed))
        for num_ranks in self.num_ranks:
            parts = []
            for rank in range(num_ranks):
                with closing(self.open(opened, rank=rank, num_ranks=num_ranks)) as own:
                    parts.append(keys_of(steps_of(own)))
            assert [flat(step) for step in zip(*parts, strict=True)] == whole
            assert {len(step) for part in parts for step in part} == {BATCH // num_ranks}

    @pytest.mark.parametrize("num_steps", [0, 1, 4, 7])
    def test_a_run_goes_on_where_it_was(self, opened: Any, feed: Feed, num_steps: int) -> None:
        whole = keys_of(steps_of(feed))
        with closing(self.open(opened)) as first:
            assert keys_of(steps_of(first, num_steps)) == whole[:num_steps]
            state = first.state()
        with closing(self.open(opened)) as resumed:
            resumed.load_state(state)
            rest = steps_of(resumed, NUM_STEPS - num_steps, num_steps * BATCH)
            assert keys_of(rest) == whole[num_steps:]
            assert resumed.document() == feed.document()

    def test_the_validation_set_is_the_same_whatever_was_trained(self, opened: Any, feed: Feed) -> None:
        before = keys_of(list(feed.validation_batches()))
        steps = feed.train_batches(0)
        next(steps)
        between = keys_of(list(feed.validation_batches()))
        next(steps)
        assert before == between == keys_of(list(feed.validation_batches()))
        with closing(self.open(opened, seed=5)) as other:
            assert keys_of(list(other.validation_batches())) == before
        keys = flat(before)
        assert len(keys) == feed.num_validation
        assert bytes_digest(b"".join(sorted(keys))) == feed.validation_hash

    def test_no_sample_is_trained_on_and_validated_with(self, feed: Feed) -> None:
        trained = {key for step in keys_of(steps_of(feed)) for key in step}
        assert not trained & {key for batch in keys_of(list(feed.validation_batches())) for key in batch}

    def test_ranks_share_the_validation_set(self, opened: Any, feed: Feed) -> None:
        whole = sorted(flat(keys_of(list(feed.validation_batches()))))
        for num_ranks in self.num_ranks:
            found: list[bytes] = []
            for rank in range(num_ranks):
                with closing(self.open(opened, rank=rank, num_ranks=num_ranks)) as own:
                    found += flat(keys_of(list(own.validation_batches())))
                    assert own.num_validation == len(whole)
                    assert own.validation_hash == feed.validation_hash
            assert sorted(found) == whole
