"""Training online is training cached, to the last bit, where rows are stored as they are computed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from feed_contract import steps_of
from train_configs import train_config

import fovcache
from fovcache.errors import UsageError
from fovcache.probes.train.config import CACHED, ONLINE, DataChoice, InputChoice, TrainConfig
from fovcache.probes.train.feeds.kinds import open_feed
from fovcache.probes.train.result import DONE
from fovcache.probes.train.run import train_run
from fovcache.trainable import FEATURES, LABELS, Need

NUM_STEPS = 200
CPU = torch.device("cpu")
ENCODER = """
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8))
"""
NEEDS = {"features": Need(kind=FEATURES, what="rows"), "y": Need(kind=LABELS, what="labels")}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads that wait for each other take longer over such small tensors, the more so beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, write_encoder: Callable[..., str]) -> dict[str, Any]:
    path = write_encoder(tmp_path_factory.mktemp("encoder"), ENCODER)
    return {"encoder": path, "weights": "random:0", "layers": ["3"], "size": 16, "batch_size": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), 24, classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, images: Path, encoder: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    for store_dtype in ("fp32", "bf16"):
        fovcache.open(folder).build(str(images), store_dtype=store_dtype, **encoder)
    return folder


def config(cache: Path, kind: str, images: Path, store_dtype: str = "fp32", steps: int = NUM_STEPS) -> TrainConfig:
    data = DataChoice() if kind == CACHED else DataChoice(kind=kind, sources=(str(images),), encode_batch_size=1)
    return train_config(
        cache,
        {"samples": steps * 4, "batch_size": 4, "evaluate_every": 400},
        kind="projection",
        model={"layers": 2, "hidden": 16},
        device="cpu",
        data=data,
        inputs={"features": InputChoice(store_dtype=store_dtype)},
    )


@pytest.mark.parametrize(("store_dtype", "steps"), [("fp32", NUM_STEPS), ("bf16", 20)])
def test_cached_and_online_training_end_in_the_same_bits(
    tmp_path: Path, cache: Path, images: Path, store_dtype: str, steps: int
) -> None:
    ends = {}
    for kind in (CACHED, ONLINE):
        run = train_run(config(cache, kind, images, store_dtype, steps), tmp_path / kind, seed=1)
        assert (run.state, run.steps) == (DONE, steps)
        (checkpoint,) = (tmp_path / kind / "checkpoints").glob("samples-*")
        model = checkpoint / "model.safetensors"
        ends[kind] = model.read_bytes(), run.validation_hash, [each.values for each in run.evaluations]
    assert ends[CACHED] == ends[ONLINE]


def test_images_that_changed_are_told_of(tmp_path: Path, make_images: Callable[..., Path], encoder: Any) -> None:
    images = make_images(tmp_path / "images", 24, classes=("a", "b", "c"))
    fovcache.open(tmp_path / "cache").build(str(images), store_dtype="fp32", **encoder)
    feed = open_feed(config(tmp_path / "cache", ONLINE, images), NEEDS, seed=0, device=CPU)
    for image in images.glob("*/*.png"):
        image.write_bytes(b"other bytes")
    with pytest.raises(UsageError, match=r"\d{4}\.png is in the cache and cannot be read again: fetch: .*changed"):
        steps_of(feed, 1)
    feed.close()
    with pytest.raises(
        UsageError, match=r"24 of 24 samples of dataset 'images' are not in the sources \(a/0000\.png, "
    ):
        open_feed(config(tmp_path / "cache", ONLINE, images), NEEDS, seed=0, device=CPU)


def test_another_encoder_under_the_same_name_is_refused(
    tmp_path: Path, images: Path, write_encoder: Callable[..., str]
) -> None:
    encoder = write_encoder(tmp_path, ENCODER)
    fovcache.open(tmp_path / "cache").build(
        str(images), encoder=encoder, layers=["3"], size=16, store_dtype="fp32", weights="random:0"
    )
    write_encoder(tmp_path, ENCODER.replace("ReLU", "GELU"))
    with pytest.raises(UsageError, match=r"encoder\.py:make is not what it was when features were computed"):
        open_feed(config(tmp_path / "cache", ONLINE, images), NEEDS, seed=0, device=CPU)
