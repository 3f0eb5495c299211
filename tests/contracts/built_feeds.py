"""Feeds of a small cache of images, to run the contract on, wherever tensors are to lie."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from feed_contract import BATCH, FeedContract
from train_configs import train_config

import fovcache
from fovcache.probes.train.config import ONLINE, DataChoice
from fovcache.probes.train.feeds.cached import CachedFeed
from fovcache.probes.train.feeds.online import OnlineFeed, open_online
from fovcache.probes.train.feeds.opening import OpenedInputs, open_inputs
from fovcache.trainable import FEATURES, LABELS, Need

NEEDS = {
    "frames": Need(kind=FEATURES, what="the encoder's rows"),
    "y": Need(kind=LABELS, what="a class for each sample"),
}
ENCODER = """
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Images, and a cache of their features."""

    images: Path
    cache: Path


def build_images(
    folder: Path, make_images: Callable[..., Path], write_encoder: Callable[..., str], device: str = "cpu"
) -> Built:
    """21 images of three classes, 16 of them to train on, each encoded by itself and stored in float32."""
    images = make_images(folder / "images", 21, classes=("a", "b", "c"))
    fovcache.open(folder / "cache").build(
        str(images),
        encoder=write_encoder(folder / "encoder", ENCODER),
        weights="random:0",
        layers=["3"],
        store_dtype="fp32",
        size=16,
        shard_bytes=1024,
        batch_size=1,
        device=device,
    )
    return Built(images=images, cache=folder / "cache")


class CachedContract(FeedContract):
    residency: str
    device = "cpu"

    @pytest.fixture
    def opened(self, built: Built) -> OpenedInputs:
        return open_inputs(train_config(built.cache), NEEDS)

    def open(self, opened: OpenedInputs, *, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> CachedFeed:
        return CachedFeed(
            opened,
            batch_size=BATCH,
            seed=seed,
            device=torch.device(self.device),
            rank=rank,
            num_ranks=num_ranks,
            residency=self.residency,
        )


class OnlineContract(FeedContract):
    num_ranks = (2,)
    device = "cpu"

    @pytest.fixture
    def opened(self, built: Built) -> Built:
        return built

    def open(self, opened: Built, *, seed: int = 0, rank: int = 0, num_ranks: int = 1) -> OnlineFeed:
        data = DataChoice(kind=ONLINE, sources=(str(opened.images),), encode_batch_size=1)
        return open_online(
            train_config(opened.cache, data=data),
            NEEDS,
            seed=seed,
            device=torch.device(self.device),
            rank=rank,
            num_ranks=num_ranks,
        )
