"""Feeds keep their contract, wherever rows come from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from built_feeds import NEEDS, Built, CachedContract, OnlineContract, build_images
from train_configs import train_config

from fovcache.errors import UsageError
from fovcache.probes.train.config import ONLINE, DataChoice
from fovcache.probes.train.feeds.kinds import open_feed
from fovcache.probes.train.feeds.online import open_online

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path], write_encoder: Callable[..., str]
) -> Built:
    return build_images(tmp_path_factory.mktemp("feeds"), make_images, write_encoder)


class TestOnTheDevice(CachedContract):
    residency = "device"


class TestInHostMemory(CachedContract):
    residency = "host"


class TestInShards(CachedContract):
    residency = "stream"


class TestOnline(OnlineContract):
    pass


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("encode_batch_size", [1, 4, None])
def test_online_batches_have_the_rows_of_cached_ones(
    built: Built, encode_batch_size: int | None, overlapped: bool
) -> None:
    data = DataChoice(kind=ONLINE, sources=(str(built.images),), encode_batch_size=encode_batch_size)
    cached = open_feed(train_config(built.cache), NEEDS, seed=3, device=CPU)
    online = open_online(train_config(built.cache, data=data), NEEDS, seed=3, device=CPU, overlapped=overlapped)
    for one, other, _ in zip(cached.train_batches(12), online.train_batches(12), range(6), strict=False):
        assert one.keys.tolist() == other.keys.tolist()
        assert one.tensors.keys() == other.tensors.keys() == NEEDS.keys()
        assert torch.equal(one.tensors["y"], other.tensors["y"])
        if encode_batch_size == 1:  # as the cache was built
            assert torch.equal(one.tensors["frames"], other.tensors["frames"])
        torch.testing.assert_close(one.tensors["frames"], other.tensors["frames"])
    online.close()


def test_rows_are_handed_over_as_they_are_stored(built: Built) -> None:
    feed = open_feed(train_config(built.cache), NEEDS, seed=0, device=CPU)
    batch = next(feed.train_batches(0))
    assert batch.tensors["frames"].dtype == torch.float32
    assert batch.tensors["y"].dtype == torch.int64


def test_a_train_set_smaller_than_a_step_is_told_of(built: Built, caplog: pytest.LogCaptureFixture) -> None:
    feed = open_feed(train_config(built.cache, {"batch_size": 20}), NEEDS, seed=0, device=CPU)
    assert "batch_size is 20 and the train set has 16 samples" in caplog.text
    assert len(next(feed.train_batches(0))) == 20


def test_the_state_of_another_feed_is_refused(built: Built) -> None:
    feed = open_feed(train_config(built.cache), NEEDS, seed=0, device=CPU)
    with pytest.raises(UsageError, match="the state of a cached feed is empty, and this has starts"):
        feed.load_state({"starts": [0]})
