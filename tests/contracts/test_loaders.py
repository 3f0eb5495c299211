"""Loaders on the CPU: the contract for each residency, and what is around them: joined sets, labels, DataLoader."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loader_contract import NUM_ROWS, LoaderContract, rows_of, same
from torch.utils.data import DataLoader, TensorDataset

import fovcache
from fovcache.errors import SelectionError, UsageError
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.joined import JoinedSet
from fovcache.loaders.residency import choose_residency

RESIDENCIES = ("device", "host", "stream")


class TestDevice(LoaderContract):
    residency = "device"

    def test_auto_on_the_cpu_is_memory_and_says_how_much_there_is(self, features: FeatureSet) -> None:
        residency = features.loader(4).residency
        assert residency.kind == "device"
        assert residency.reason.startswith("0.0 MiB of features fit in ")
        assert residency.reason.endswith(" MiB of free host memory")

    def test_auto_streams_what_is_larger_than_memory(self) -> None:
        residency = choose_residency("auto", 2**60, torch.device("cpu"))
        assert residency.kind == "stream"
        assert "MiB of features do not fit in " in residency.reason

    def test_an_unknown_residency_is_refused(self, features: FeatureSet) -> None:
        with pytest.raises(UsageError, match="residency 'gpu' is not one of auto, device, host, stream"):
            features.loader(4, residency="gpu")


class TestHost(LoaderContract):
    residency = "host"


class TestStream(LoaderContract):
    residency = "stream"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """`some` has 8 images, two of them equal; `turned` the same the other way round; `fewer` lacks three."""
    folder = tmp_path_factory.mktemp("images")
    make_images(folder / "some", 7)
    shutil.copy(folder / "some/0002.png", folder / "some/0007.png")
    for name, numbers in (("turned", range(8)), ("fewer", (0, 2, 5, 7))):
        (folder / name).mkdir()
        for number in numbers:
            shutil.copy(folder / f"some/{number:04d}.png", folder / name / f"{9 - number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, images: Path) -> fovcache.Cache:
    cache = fovcache.open(tmp_path_factory.mktemp("joined") / "cache")
    for name in ("some", "turned", "fewer"):
        cache.build(str(images / name), encoder="pixels", layers=["pixels", "pixels8"], pool="tokens", num_workers=1)
    return cache


def joined(cache: fovcache.Cache, other: str, missing: str = "error") -> JoinedSet:
    fine = cache.features(dataset="some", layer="pixels")
    return cache.join(fine=fine, coarse=cache.features(dataset=other, layer="pixels8"), missing=missing)


def belong_together(fine: torch.Tensor, coarse: torch.Tensor) -> bool:
    """Whether row i of both is of one image, which is what they were built as."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(fine.float(), 8)
    return fine.shape[0] == coarse.shape[0] > 0 and torch.allclose(pooled, coarse.float(), atol=0.02)


def test_unlabelled_samples_have_no_y(cache: fovcache.Cache) -> None:
    features = cache.features(dataset="some", layer="pixels8")
    assert features.tensors()[1] is None
    for residency in RESIDENCIES:
        assert all(y is None and len(x) for x, y in features.loader(3, residency=residency))


@pytest.mark.parametrize("other", ["some", "turned"])
def test_joined_sets_are_aligned_whatever_their_order(cache: fovcache.Cache, other: str) -> None:
    both = joined(cache, other)
    tensors = both.tensors()
    first = cache.features(dataset="some", layer="pixels")
    assert (len(both), both.num_dropped, both.keys) == (8, 0, first.keys)
    assert torch.equal(tensors["fine"], first.tensors()[0])
    assert belong_together(**tensors)
    assert torch.equal(tensors["coarse"][2], tensors["coarse"][7])  # equal images have equal rows


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_joined_batches_are_dictionaries_of_aligned_rows(cache: fovcache.Cache, residency: str) -> None:
    loader = joined(cache, "turned").loader(3, shuffle=True, seed=1, residency=residency)
    batches = list(loader)
    assert [len(batch["fine"]) for batch in batches] == [3, 3, 2]
    for batch in batches:
        assert sorted(batch) == ["coarse", "fine", "y"]
        assert batch["y"] is None
        assert belong_together(batch["fine"], batch["coarse"])


def test_samples_that_a_set_lacks_are_an_error_that_counts_them(cache: fovcache.Cache) -> None:
    said = "of 8 samples coarse lacks 4; build them, or join with missing='drop'"
    with pytest.raises(SelectionError, match=said):
        joined(cache, "fewer")


def test_samples_that_a_set_lacks_are_dropped_where_asked_and_it_is_said(
    cache: fovcache.Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fovcache"):
        both = joined(cache, "fewer", missing="drop")
    assert caplog.messages == ["4 of 8 samples are dropped: not every joined feature has them"]
    keys = cache.features(dataset="some", layer="pixels").keys
    assert (both.keys, both.num_dropped) == ([keys[number] for number in (0, 2, 5, 7)], 4)
    assert belong_together(**both.tensors())
    assert torch.cat([batch["fine"] for batch in both.loader(3)]).shape[0] == len(both) == 4


def test_joining_refuses_what_it_cannot_mean(cache: fovcache.Cache) -> None:
    features = cache.features(dataset="some", layer="pixels8")
    with pytest.raises(SelectionError, match="the name 'y' is for the labels"):
        cache.join(y=features)
    with pytest.raises(SelectionError, match="no feature set was given"):
        cache.join()
    with pytest.raises(SelectionError, match="missing='ignore': expected 'error' or 'drop'"):
        cache.join(a=features, missing="ignore")


def test_joined_labels_are_the_first_sets(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "named", 6, ("cat", "dog"))
    (tmp_path / "plain").mkdir()
    for file in (tmp_path / "named").rglob("*.png"):
        shutil.copy(file, tmp_path / "plain")
    cache = fovcache.open(tmp_path / "cache")
    for name in ("named", "plain"):
        cache.build(str(tmp_path / name), encoder="pixels", num_workers=1)
    named, plain = (cache.features(dataset=name) for name in ("named", "plain"))
    both = cache.join(a=named, b=plain)
    assert both.labels.tolist() == named.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.cat([batch["y"] for batch in both.loader(4)]).tolist() == [0, 0, 0, 1, 1, 1]
    assert cache.join(b=plain, a=named).labels is None
    assert "y" not in cache.join(b=plain, a=named).tensors()


def test_rows_of_several_shapes_are_refused_before_the_first_batch(
    tmp_path: Path, make_images: Callable[..., Path], encoder_file: Callable[..., str]
) -> None:
    make_images(tmp_path / "images/small", 2, size=8)
    make_images(tmp_path / "images/large", 2, size=12, seed=1)
    encoder = encoder_file("def make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(tmp_path / "images"), encoder=encoder, weights="random:0", layers=["0"], pool="tokens")
    features = cache.features()
    said = r"the rows of layer '0' have 2 shapes \(\(4, 6, 6\), \(4, 10, 10\)\).*build with --size or with --pool mean"
    for residency in RESIDENCIES:
        with pytest.raises(SelectionError, match=said):
            features.loader(2, residency=residency)
    with pytest.raises(SelectionError, match=said):
        features.tensors()
    assert [x.shape for x, _ in features.subset([0, 1]).loader(2)] == [(2, 4, 10, 10)]


@pytest.mark.parametrize("target", ["cpu", torch.device("cpu")])
def test_torchs_dataloader_takes_the_keyword_arguments(target: str | torch.device) -> None:
    numbers = torch.arange(NUM_ROWS)
    options = fovcache.dataloader_kwargs("cpu", target)
    loader = DataLoader(TensorDataset(rows_of(numbers), numbers), batch_size=4, **options)
    assert same([tuple(batch) for batch in loader], [(rows_of(part), part) for part in numbers.split(4)])


def test_keyword_arguments_follow_from_the_devices() -> None:
    no_pinning, pinning = ({"num_workers": 0, "pin_memory": pin} for pin in (False, True))
    assert fovcache.dataloader_kwargs("cpu", "cpu") == no_pinning
    assert fovcache.dataloader_kwargs("cpu", "cuda:1") == pinning
    assert fovcache.dataloader_kwargs("cuda", "cuda") == no_pinning
    assert fovcache.dataloader_kwargs("cuda:1", "cuda") == no_pinning
    for elsewhere in ("cpu", "cuda:1"):
        with pytest.raises(UsageError, match=f"tensors on cuda:0 cannot be loaded for {elsewhere}: move them there"):
            fovcache.dataloader_kwargs("cuda:0", elsewhere)
