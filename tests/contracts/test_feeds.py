"""Feeds keep their contract, wherever rows come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from feed_contract import BATCH, FeedContract
from train_configs import train_config

import fovcache
from fovcache.probes.train.cached import CachedFeed
from fovcache.probes.train.config import ONLINE, DataChoice
from fovcache.probes.train.feeds import open_feed
from fovcache.probes.train.online import OnlineFeed, open_online
from fovcache.probes.train.opening import OpenedInputs, open_inputs
from fovcache.trainable import FEATURES, LABELS, Need

NEEDS = {
    "frames": Need(kind=FEATURES, what="the encoder's rows"),
    "y": Need(kind=LABELS, what="a class for each sample"),
}
CPU = torch.device("cpu")
ENCODER = """
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Images, and a cache of their features."""

    images: Path
    cache: Path


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path], write_encoder: Callable[..., str]
) -> Built:
    """21 images of three classes; 16 of them to train on."""
    folder = tmp_path_factory.mktemp("feeds")
    images = make_images(folder / "images", 21, classes=("a", "b", "c"))
    encoder = write_encoder(folder / "encoder", ENCODER)
    cache = fovcache.open(folder / "cache")
    cache.build(str(images), encoder=encoder, layers=["3"], store_dtype="fp32", size=16, shard_bytes=1024, batch_size=1)
    return Built(images=images, cache=folder / "cache")


class CachedContract(FeedContract):
    residency: str

    @pytest.fixture
    def opened(self, built: Built) -> OpenedInputs:
        return open_inputs(train_config(built.cache), NEEDS)

    def open(self, opened: OpenedInputs, *, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> CachedFeed:
        return CachedFeed(
            opened,
            batch_size=BATCH,
            seed=seed,
            device=CPU,
            rank=rank,
            num_ranks=num_ranks,
            residency=self.residency,
        )


class TestOnTheDevice(CachedContract):
    residency = "device"


class TestInHostMemory(CachedContract):
    residency = "host"


class TestInShards(CachedContract):
    residency = "stream"


class OnlineContract(FeedContract):
    overlapped: bool

    @pytest.fixture
    def opened(self, built: Built) -> Built:
        return built

    def open(self, opened: Built, *, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> OnlineFeed:
        data = DataChoice(kind=ONLINE, sources=(str(opened.images),), encode_batch_size=1)
        config = train_config(opened.cache, data=data)
        return open_online(
            config, NEEDS, seed=seed, device=CPU, rank=rank, num_ranks=num_ranks, overlapped=self.overlapped
        )


class TestOnline(OnlineContract):
    overlapped = True


class TestOnlineOneStageAtATime(OnlineContract):
    overlapped = False


def test_online_batches_are_cached_ones_bit_for_bit(built: Built) -> None:
    data = DataChoice(kind=ONLINE, sources=(str(built.images),), encode_batch_size=1)
    cached = open_feed(train_config(built.cache), NEEDS, seed=3, device=CPU)
    online = open_feed(train_config(built.cache, data=data), NEEDS, seed=3, device=CPU)
    for one, other, _ in zip(cached.train_batches(12), online.train_batches(12), range(6), strict=False):
        assert one.keys.tolist() == other.keys.tolist()
        assert one.tensors.keys() == other.tensors.keys() == NEEDS.keys()
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in NEEDS)
    online.close()
