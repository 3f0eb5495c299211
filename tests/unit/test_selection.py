"""`cache.features`: the one thing that fits, or words about what there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fovcache
from fovcache.errors import SelectionError

ENCODER = """
class Net(nn.Module):
    image_size = 16

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.b = nn.Conv2d(4, 8, 3)

    def forward(self, x):
        return self.b(self.a(x))


def make():
    return Net()
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, write_encoder: Callable[..., str]) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"), ENCODER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path], encoder: str) -> fovcache.Cache:
    folder = tmp_path_factory.mktemp("selection")
    make_images(folder / "train", 4, ("dog", "cat"), seed=0)
    make_images(folder / "test", 2, ("emu", "dog"), seed=1)
    make_images(folder / "plain", 3, seed=2)
    cache = fovcache.open(folder / "cache")
    sources = [f"train={folder}/train", f"test={folder}/test"]
    cache.build(sources, encoder=encoder, weights="random:0", layers=["a", "b"], dataset="animals")
    cache.build(sources, encoder="pixels", dataset="animals")
    cache.build(str(folder / "plain"), encoder="pixels", dataset="plain")
    return cache


def test_what_makes_it_unique_is_enough(cache: fovcache.Cache, encoder: str) -> None:
    features = cache.features(layer="a", dataset="animals")
    assert (features.shape, features.dtype, features.num_failed) == ((6, 4), torch.bfloat16, 0)
    assert cache.features(encoder="pixels", dataset="animals").shape == (6, 3)
    elsewhere = f"/somewhere/else/{Path(encoder).name}"
    assert cache.features(encoder=elsewhere, layer="b", dataset="animals").shape == (6, 8)
    assert cache.features(dataset="plain").shape == (3, 3)


def test_several_are_an_error_that_names_the_fields_in_which_they_differ(cache: fovcache.Cache, encoder: str) -> None:
    with pytest.raises(SelectionError, match=r"2 features .* differ in layer: .*\ba \(mean.*\bb \(mean"):
        cache.features(encoder=encoder, dataset="animals")


def test_none_is_an_error_that_lists_what_there_is(cache: fovcache.Cache) -> None:
    with pytest.raises(SelectionError, match=r"no feature .* fits; there are: .*pixels8"):
        cache.features(layer="c", dataset="animals")


def test_a_dataset_must_be_named_where_there_are_two(cache: fovcache.Cache) -> None:
    with pytest.raises(SelectionError, match="name one of the datasets: animals, plain"):
        cache.features(layer="a")
    with pytest.raises(SelectionError, match=r"no dataset 'animal'; nearest: animals"):
        cache.features(layer="a", dataset="animal")


def test_a_dataset_can_be_named_by_its_digest(cache: fovcache.Cache, tmp_path: Path) -> None:
    (ref,) = (cache.storage.root / "refs" / "plain").iterdir()
    digest = json.loads(ref.read_text())["dataset"]
    assert len(cache.features(dataset=digest)) == len(cache.features(dataset=digest[:8])) == 3


def test_string_labels_are_numbered_over_the_whole_dataset(cache: fovcache.Cache) -> None:
    train = cache.features(layer="a", dataset="animals", split="train")
    test = cache.features(layer="a", dataset="animals", split="test")
    assert train.classes == test.classes == ("cat", "dog", "emu")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [1, 2]
    assert test.labels.dtype == torch.int64
    assert test.uris == ["dog/0001.png", "emu/0000.png"]
    assert test.splits == ["test", "test"]


def test_an_unknown_split_is_an_error(cache: fovcache.Cache) -> None:
    with pytest.raises(SelectionError, match=r"no split 'val'.*(train|test)"):
        cache.features(layer="a", dataset="animals", split="val")


def test_without_labels_y_is_none(cache: fovcache.Cache) -> None:
    x, y = cache.features(dataset="plain").tensors()
    assert x.shape == (3, 3)
    assert y is None


def test_half_labelled_samples_have_no_labels_to_give(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", 2, ("cat",))
    make_images(tmp_path / "images", 1, seed=1)
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(tmp_path / "images"), encoder="pixels")
    with pytest.raises(SelectionError, match="1 of 3 samples have no label"):
        cache.features().tensors()


def test_a_second_recipe_of_one_name_is_told_apart_by_its_digest(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    images = str(make_images(tmp_path / "images", 2))
    cache = fovcache.open(tmp_path / "cache")
    first = cache.build(images, encoder="pixels")
    cache.build(images, encoder="pixels", size=8)
    with pytest.raises(SelectionError, match=r"differ in recipe\.input\.clip\.size"):
        cache.features()
    assert cache.features(recipe=first.recipes[0][:10]).feature.recipe == first.recipes[0]


def test_building_again_with_more_samples_makes_a_new_version_that_reads_take(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    images = make_images(tmp_path / "images", 2)
    cache = fovcache.open(tmp_path / "cache")
    first = cache.build(str(images), encoder="pixels")
    make_images(images / "more", 3, seed=5)
    second = cache.build(str(images), encoder="pixels")
    assert (second.computed, second.reused) == (3, 2)
    assert len(cache.features()) == 5
    assert len(cache.features(dataset=first.dataset)) == 2


def test_rows_of_two_numerics_warn_or_are_refused(cache_of_two_numerics: fovcache.Cache) -> None:
    cache = cache_of_two_numerics
    with pytest.warns(UserWarning, match="2 different numerics .*matmul_precision"):
        cache.features()
    with pytest.raises(SelectionError, match="matmul_precision"):
        cache.features(strict=True)


def test_weights_tell_encoders_of_one_name_apart(
    tmp_path: Path, make_images: Callable[..., Path], encoder: str
) -> None:
    """Trained beside random: by what the build was given, a path by its last part."""
    images = str(make_images(tmp_path / "images", 2))
    cache = fovcache.open(tmp_path / "cache")
    tensors = {"a.weight": (4, 3, 3, 3), "a.bias": (4,), "b.weight": (8, 4, 3, 3), "b.bias": (8,)}
    trained = tmp_path / "weights" / "net.safetensors"
    trained.parent.mkdir()
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, trained)
    reports = {
        weights: cache.build(images, encoder=encoder, weights=weights, layers=["a"])
        for weights in ("random:0", "random:1", str(trained))
    }
    with pytest.raises(SelectionError, match=r"3 features .* differ in .*weights: .*weights random:1.*Name .*weights"):
        cache.features(encoder=encoder)
    names = {"random:0": "random:0", "random:1": "random:1"}
    names |= {"net.safetensors": str(trained), "/elsewhere/net.safetensors": str(trained)}
    for asked, given in names.items():
        features = cache.features(weights=asked)
        assert features.feature.recipe == reports[given].recipes[0]
        derived = cache.derive(features, "stats")
        assert cache.features(weights=asked, representation="stats").feature == derived.feature
    with pytest.raises(SelectionError, match=r"no feature .* fits; there are: .*weights random:0"):
        cache.features(weights="random:2")
