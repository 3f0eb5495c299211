"""What a model reads is found in the cache, or it is said which command builds it."""

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from train_configs import train_config

import fovcache
from fovcache.builder.request import BuildOptions
from fovcache.builder.run import run_build
from fovcache.cli import app
from fovcache.errors import SelectionError, UsageError
from fovcache.options import encoders_of
from fovcache.probes.train.config import InputChoice
from fovcache.probes.train.feeds.opening import OpenedInputs, open_inputs
from fovcache.trainable import FEATURES, LABELS, TEXT, Need

FRAMES = Need(kind=FEATURES, what="the encoder's tokens", encoder="encoder.py:make", pool="tokens")
DEEP = Need(kind=FEATURES, what="hidden states", layers=("1", "3"))
CAPTIONS = Need(kind=TEXT, what="caption token ids")
CLASSES = Need(kind=LABELS, what="a class for each sample")
ENCODER = """
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.ReLU(), nn.Linear(5, 5))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_encoder: Callable[..., str]) -> dict[str, Any]:
    """An encoder with layers 1 and 3, both of 5 numbers."""
    encoder = write_encoder(tmp_path_factory.mktemp("encoder"), ENCODER)
    return {"encoder": encoder, "weights": "random:0", "size": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), 12)


Manifest = Callable[..., str]


@pytest.fixture
def manifest(images: Path, tmp_path: Path) -> Manifest:
    """`manifest(**columns)`: JSON lines of the images, each column a function of the image's number."""

    def write(**columns: Callable[[int], Any]) -> str:
        path = tmp_path / "samples.jsonl"
        rows = (
            {"uri": str(image)} | {key: value(number) for key, value in columns.items()}
            for number, image in enumerate(sorted(images.iterdir()))
        )
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def opened(
    cache: Path, needs: Mapping[str, Need], inputs: Mapping[str, InputChoice] = {}, **fields: Any
) -> OpenedInputs:
    return open_inputs(train_config(cache, inputs=dict(inputs), **fields), needs)


def test_each_input_is_what_the_info_says(tmp_path: Path, manifest: Manifest, tiny: dict[str, Any]) -> None:
    source = manifest(label=lambda number: number % 4, caption=lambda number: "é" + "a" * number)
    cache = fovcache.open(tmp_path / "cache")
    cache.build(source, layers=["1", "3"], pool="tokens", **tiny)
    cache.build(source, encoder="bytes")
    needs = {"frames": FRAMES, "states": DEEP, "captions": CAPTIONS, "classes": CLASSES}
    found = opened(tmp_path / "cache", needs, {"frames": InputChoice(layer="3")})

    assert found.features.keys() == {"frames", "states/1", "states/3"}
    assert found.tables.keys() == {"captions", "y"}
    samples = {sample.key: sample for sample in cache.features(layer="3").samples}
    own = [samples[bytes(key).hex()] for key in found.keys]
    assert found.tables["y"].tolist() == [sample.label for sample in own]
    for sample, ids in zip(own, found.tables["captions"].tolist(), strict=True):
        expected = [*sample.caption.encode(), 256]
        assert ids == expected + [-1] * (2 + 11 + 1 - len(expected))

    infos = found.infos
    assert infos["classes"].num_classes == 4
    assert infos["captions"].row_shape == (14,)
    assert infos["captions"].recipe["extractor"]["name"] == "bytes"
    assert infos["frames"].row_shape == found.features["frames"].row_shape
    assert infos["frames"].dtype == "bf16"
    assert infos["frames"].weights == "random:0"
    assert infos["frames"].recipe["extractor"]["name"] == "encoder.py:make"
    assert infos["states"] == infos["states/1"]
    assert set(found.digests) == {"frames", "states/1", "states/3", "captions"}


def test_long_texts_are_cut_and_it_is_said(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    cache = fovcache.open(tmp_path / "cache")
    cache.build(manifest(caption=lambda number: "a" * (number + 1)), encoder="bytes")
    with caplog.at_level(logging.WARNING):
        found = opened(tmp_path / "cache", {"captions": CAPTIONS}, {"captions": InputChoice(max_tokens=4)})
    assert found.tables["captions"].shape == (12, 4)
    assert found.infos["captions"].row_shape == (4,)
    assert "captions: 9 of 12 texts are longer than 4 tokens and cut" in caplog.text


def test_weights_are_found_from_where_the_configuration_stands(tmp_path: Path, images: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "weights").mkdir()
    encoder = tmp_path / "encoder.py"
    encoder.write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, 4))\n"
    )
    save_file({"1.weight": torch.ones(4, 768), "1.bias": torch.zeros(4)}, tmp_path / "weights" / "model.safetensors")
    weights = str(tmp_path / "weights" / "model.safetensors")
    fovcache.open(tmp_path / "cache").build(
        str(images), encoder=f"{encoder}:make", weights=weights, layers=["1"], size=16
    )
    need = {"frames": Need(kind=FEATURES, what="rows")}
    choice = {"frames": InputChoice(weights="weights/model.safetensors")}
    found = opened(Path("cache"), need, choice, folder=tmp_path)
    assert found.infos["frames"].weights == weights
    assert opened(Path("cache"), need, folder=tmp_path).infos["frames"].weights == weights


def test_several_fitting_features_are_refused_with_what_tells_them_apart(
    tmp_path: Path, images: Path, tiny: dict[str, Any]
) -> None:
    cache = fovcache.open(tmp_path / "cache")
    for store_dtype in ("bf16", "fp32"):
        cache.build(str(images), layers=["3"], pool="tokens", store_dtype=store_dtype, **tiny)
    with pytest.raises(
        SelectionError, match=r"the encoder's tokens: 2 features .*differ in store_dtype: .*inputs\.frames"
    ):
        opened(tmp_path / "cache", {"frames": FRAMES})
    found = opened(tmp_path / "cache", {"frames": FRAMES}, {"frames": InputChoice(store_dtype="fp32")})
    assert found.infos["frames"].dtype == "fp32"


def test_layers_of_one_need_are_of_one_recipe(tmp_path: Path, images: Path, tiny: dict[str, Any]) -> None:
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(images), layers=["1", "3"], **tiny)
    cache.build(str(images), layers=["3"], **{**tiny, "weights": "random:1"})
    found = opened(tmp_path / "cache", {"states": DEEP})
    assert found.infos["states"].weights == "random:0"


def build_again(message: str) -> list[str]:
    """Runs the command that an error names, without what it says."""
    words = shlex.split(message.partition(" with: ")[2].partition("; or take")[0])
    assert words[:2] == ["fovcache", "build"]
    command = typer.main.get_command(app).commands["build"]
    asked = command.make_context("build", words[2:]).params
    storage = fovcache.open(asked["cache"]).storage
    run_build(storage, asked["sources"], encoders_of(asked), BuildOptions(dataset=asked["dataset"]))
    return words


def test_a_missing_feature_is_built_by_the_command_that_the_error_names(
    tmp_path: Path, images: Path, tiny: dict[str, Any]
) -> None:
    cache = tmp_path / "a cache"
    fovcache.open(cache).build(str(images), encoder="pixels", dataset="mine")
    choice = {"frames": InputChoice(layer="3", encoder=tiny["encoder"], weights="random:3", store_dtype="fp32")}
    with pytest.raises(
        UsageError, match=r"the model needs the encoder's tokens .*no feature of dataset 'mine'"
    ) as error:
        opened(cache, {"frames": FRAMES}, choice)
    words = build_again(str(error.value))
    assert words[2] == str(images)
    assert opened(cache, {"frames": FRAMES}, choice).infos["frames"].dtype == "fp32"


def test_samples_that_lack_an_input_are_counted_and_named_with_the_command(
    tmp_path: Path, images: Path, make_images: Callable[..., Path], tiny: dict[str, Any]
) -> None:
    cache = tmp_path / "cache"
    own = make_images(tmp_path / "own", 10)
    fovcache.open(cache).build(str(own), layers=["3"], pool="tokens", **tiny)
    make_images(own / "more", 2, seed=5)
    fovcache.open(cache).build(str(own), encoder="pixels")
    with pytest.raises(UsageError, match=r"of the 12 samples.* 2 lack the encoder's tokens \(more/0000.png;") as error:
        opened(cache, {"frames": FRAMES})
    build_again(str(error.value))
    assert len(opened(cache, {"frames": FRAMES}).keys) == 12


def test_samples_that_could_not_be_built_are_refused_with_the_reason(
    tmp_path: Path, make_images: Callable[..., Path], tiny: dict[str, Any]
) -> None:
    own = make_images(tmp_path / "own", 10)
    (own / "broken.png").write_bytes(b"no image")
    fovcache.open(tmp_path / "cache").build(str(own), layers=["3"], pool="tokens", **tiny)
    with pytest.raises(UsageError, match=r"1 lack the encoder's tokens \(broken.png: .*take what cannot be built out"):
        opened(tmp_path / "cache", {"frames": FRAMES})


def test_samples_of_other_splits_may_lack_what_they_like(
    tmp_path: Path, make_images: Callable[..., Path], tiny: dict[str, Any]
) -> None:
    own = make_images(tmp_path / "own", 10)
    other = make_images(tmp_path / "other", 3, seed=9)
    cache = fovcache.open(tmp_path / "cache")
    cache.build(f"train={own}", layers=["3"], pool="tokens", **tiny)
    cache.build([f"train={own}", f"test={other}"], encoder="pixels", dataset="own")
    assert len(opened(tmp_path / "cache", {"frames": FRAMES}, dataset="own").keys) == 10


def test_missing_captions_are_counted_and_named(tmp_path: Path, manifest: Manifest) -> None:
    cache = fovcache.open(tmp_path / "cache")
    cache.build(manifest(caption=lambda number: None if number in (3, 4) else "text"), encoder="pixels")
    with pytest.raises(UsageError, match=r"caption token ids: 2 of 12 samples .*no caption \(.*000[34].png, .*000[34]"):
        opened(tmp_path / "cache", {"captions": CAPTIONS})


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda number: None, "have no labels; put them in a folder for each class"),
        (lambda number: None if number == 3 else 1, "1 of 12 samples have no label"),
        (lambda number: "dog" if number == 3 else 1, "labels are both numbers and texts"),
        (lambda number: number - 1, "the label -1, expected 0 or more"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    tmp_path: Path, manifest: Manifest, label: Callable[[int], Any], said: str
) -> None:
    cache = fovcache.open(tmp_path / "cache")
    cache.build(manifest(label=label), encoder="pixels")
    with pytest.raises(UsageError, match=f"a class for each sample: .*{said}"):
        opened(tmp_path / "cache", {"classes": CLASSES})


def test_text_and_features_are_told_apart_without_being_named(tmp_path: Path, manifest: Manifest) -> None:
    cache = fovcache.open(tmp_path / "cache")
    source = manifest(caption=lambda number: f"image {number}")
    cache.build(source, encoder="pixels")
    cache.build(source, encoder="bytes")
    found = opened(tmp_path / "cache", {"frames": Need(kind=FEATURES, what="rows"), "captions": CAPTIONS})
    assert found.features["frames"].feature.layer != found.infos["captions"].dtype
    assert json.dumps(found.digests)
