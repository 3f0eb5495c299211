"""A profile trains a configuration's model as `fovbench train` does, on encoders that give what it needs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import ToyFeed

from fovcache.bench.profiler.configured import TEXT_TOKENS, ConfiguredTrainee
from fovcache.bench.profiler.trainee import Batch
from fovcache.builder.encoders import Encoders
from fovcache.errors import UsageError
from fovcache.probes.train.config import read_cell, read_top
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.stepping.processes import open_processes
from fovcache.probes.train.stepping.trainer import Trainer

CPU = torch.device("cpu")
NET = """
class Net(nn.Module):
    image_size = 32

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 24)
        self.top = nn.Linear(24, 24)

    def forward(self, x):
        return self.top(self.stem(x.flatten(2).transpose(1, 2)))


def make():
    return Net()
"""
CONFIG = """
cache = "features"
[model]
kind = "foveated"
size = "tiny"
heads = ["reconstruction", "caption"]
[inputs.latents]
encoder = "latent.py:make"
[train]
batch_size = 3
learning_rate = 1e-3
warmup_samples = 0
schedule = "constant"
clip_norm = 0.5
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def trainee(config: Path, tmp_path: Path, write_encoder: Callable[..., str]) -> Callable[..., ConfiguredTrainee]:
    """`trainee(*names, layers=…, pool=…)`: with encoders of these names, of which layers and pool are asked for."""

    def make(*names: str, layers: str = "top", pool: str = "tokens") -> ConfiguredTrainee:
        paths = [write_encoder(tmp_path / "encoders", NET, name=f"{name}.py") for name in names]
        asked = {paths[0]: pool, **dict.fromkeys(paths[1:], "tokens")}
        globs = {paths[0]: [layers], **{path: ["top"] for path in paths[1:]}}
        encoders = Encoders(encoders=tuple(paths), weights={"": "random:0"}, layers=globs, pool=asked)
        return ConfiguredTrainee(config, encoders.resolve(), CPU)

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_steps_are_the_trainers(trainee: Callable[..., ConfiguredTrainee], config: Path, precision: str) -> None:
    config.write_text(f'{CONFIG}precision = "{precision}"\n')
    frames, latents = torch.randn(3, 4, 17, 64).bfloat16(), torch.randn(3, 4, 4, 8, 8).bfloat16()
    profiled = trainee("grid", "latent")
    for _ in range(3):
        batch = Batch(keys=[], outputs={"grid.py:make": {"top": frames}, "latent.py:make": {"top": latents}})
        for _, _, run in profiled.parts():
            batch = run(batch)
    assert profiled.module is not None

    cell = read_cell(read_top(config), config.parent)
    text = torch.arange(TEXT_TOKENS).expand(3, -1)
    step = FeedBatch(tensors={"frames": frames, "latents": latents, "captions": text}, keys=np.zeros((3, 32), np.uint8))
    with open_processes(cell.train, "cpu") as processes:
        infos = profiled.infos({"frames": frames, "latents": latents})
        trainer = Trainer(cell.trainable().build(infos, 0), ToyFeed(), cell.train, processes)
        for _ in range(3):
            trainer.step(step)
    found = dict(profiled.module.named_parameters())
    for name, expected in trainer.module.named_parameters():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        (["grid"], {}, "the frames' VAE latents of 'latent.py:make', and there is grid.py:make"),
        (["grid", "net", "latent"], {}, "the encoder's final tokens of one of grid.py:make, net.py:make"),
        (["grid", "latent"], {"layers": "*"}, "are one layer, and grid.py:make has stem, top: --layers "),
        (["grid", "latent"], {"pool": "mean"}, "are with pooling 'tokens', and grid.py:make has 'mean': --pool "),
    ],
)
def test_encoders_that_do_not_give_what_it_needs(
    trainee: Callable[..., ConfiguredTrainee], names: list[str], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        trainee(*names, **asked)


def test_an_encoder_that_it_does_not_read(trainee: Callable[..., ConfiguredTrainee], config: Path) -> None:
    config.write_text(CONFIG.replace('["reconstruction", "caption"]', '["caption"]').replace("latents", "frames"))
    with pytest.raises(UsageError, match=r"reads nothing of grid\.py:make under these settings"):
        trainee("grid", "latent")


def test_labels_of_frames_are_made_up_of_the_alphabet(
    trainee: Callable[..., ConfiguredTrainee], config: Path, tmp_path: Path
) -> None:
    heads = 'heads = ["labels"]\nalphabet = "ab"'
    config.write_text(CONFIG.replace('heads = ["reconstruction", "caption"]', heads).replace("latents", "frames"))
    config.write_text(config.read_text().replace("latent.py", "grid.py"))
    profiled = trainee("grid")
    batch = Batch(keys=[], outputs={"grid.py:make": {"top": torch.randn(3, 5, 17, 64).bfloat16()}})
    for _, _, run in profiled.parts():
        batch = run(batch)
    assert batch.loss is not None
    assert torch.isfinite(batch.loss)
