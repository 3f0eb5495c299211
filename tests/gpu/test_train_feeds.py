"""Feeds on a GPU keep their contract, and what they hand over is there when it is used."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from built_feeds import NEEDS, Built, CachedContract, OnlineContract, build_images
from train_configs import train_config

from fovcache.probes.train.config import ONLINE, DataChoice
from fovcache.probes.train.feeds.kinds import open_feed

SLEEP_CYCLES = 2_000_000
"""About a millisecond."""


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path], write_encoder: Callable[..., str]
) -> Built:
    return build_images(tmp_path_factory.mktemp("feeds"), make_images, write_encoder, "cuda")


class TestOnTheDevice(CachedContract):
    residency, device = "device", "cuda"


class TestInHostMemory(CachedContract):
    residency, device = "host", "cuda"


class TestInShards(CachedContract):
    residency, device = "stream", "cuda"


class TestOnline(OnlineContract):
    device = "cuda"


@pytest.mark.parametrize("kind", ["cached", ONLINE])
def test_a_slow_model_gets_the_rows_of_its_own_samples(built: Built, kind: str) -> None:
    """Rows are not written over while kernels that use them wait, nor read before they are there."""
    device = torch.device("cuda")
    expected = {}
    for batch in islice(
        open_feed(train_config(built.cache), NEEDS, seed=0, device=torch.device("cpu")).train_batches(0), 9
    ):
        expected |= {bytes(key): row for key, row in zip(batch.keys, batch.tensors["frames"], strict=True)}
    data = DataChoice(kind=kind, sources=(str(built.images),) if kind == ONLINE else ())
    feed = open_feed(train_config(built.cache, data=data), NEEDS, seed=0, device=device)
    found = []
    with torch.cuda.stream(torch.cuda.Stream(device)):
        for batch in islice(feed.train_batches(0), 30):
            torch.cuda._sleep(SLEEP_CYCLES)
            found.append((batch.keys, batch.tensors["frames"] + 0))
    torch.cuda.synchronize()
    feed.close()
    for keys, rows in found:
        wanted = torch.stack([expected[bytes(key)] for key in keys])
        torch.testing.assert_close(rows.cpu(), wanted, rtol=1e-3, atol=1e-3)
