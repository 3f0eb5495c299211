"""`cache.derive`: computed once, kept, served for the same samples in the same order, and looked after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import fovcache
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.derived.derive import derive
from fovcache.derived.representation import known_representations, resolve_representation
from fovcache.errors import DamageError, SelectionError, UsageError
from fovcache.maintain.catalog import Catalog
from fovcache.maintain.explain import explain
from fovcache.maintain.export import export
from fovcache.maintain.gc import collect_garbage
from fovcache.maintain.listing import cache_info, dataset_info, list_cache
from fovcache.maintain.recompute import recompute_some
from fovcache.maintain.verify import verify

NUM_SAMPLES, ROWS_PER_BLOCK = 10, 4


@dataclass(kw_only=True)
class Brightness:
    """The mean, its square, and not a number for images whose mean is below a threshold; counts its batches."""

    name: str = "brightness"
    version: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)
    num_computed: int = 0

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        return 2

    def compute(self, x_BTC: torch.Tensor) -> torch.Tensor:
        self.num_computed += len(x_BTC)
        mean = x_BTC.mean((1, 2))
        too_dark = mean < self.parameters.get("at_least", -1e9)
        return torch.stack([mean.masked_fill(too_dark, float("nan")), mean.square()], 1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """Pixels of ten samples of two splits in shards of four; one content comes twice."""
    folder = tmp_path_factory.mktemp("derive")
    make_images(folder / "train", 6, ("cat", "dog"))
    make_images(folder / "test", 3, ("dog",), seed=1)
    shutil.copy(folder / "test" / "dog" / "0001.png", folder / "test" / "dog" / "twin.png")
    cache = fovcache.open(folder / "cache")
    sources = [f"train={folder / 'train'}", f"test={folder / 'test'}"]
    cache.build(sources, encoder="pixels", pool="tokens", dataset="images", rows_per_block=ROWS_PER_BLOCK)
    return folder


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> fovcache.Cache:
    shutil.copytree(built / "cache", tmp_path / "cache")
    return fovcache.open(tmp_path / "cache")


def contents(cache: fovcache.Cache) -> dict[str, bytes]:
    """Every file, of manifests what two equal ones have in common."""
    root = cache.storage.root
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = {name: data for name, data in found.items() if not name.startswith(("index/", "memo"))}
    for name in [name for name in found if name.startswith("manifests/")]:
        document = json.loads(found[name])
        del document["provenance"], document["digest"]
        found[name] = json.dumps(document).encode()
    return found


def forge(cache: fovcache.Cache, name: str, version: int = 1) -> None:
    """Rows under the key of an installed representation that it would not give."""
    derive(cache.storage, cache.features(), Brightness(name=name, version=version), device="cpu")


@pytest.mark.parametrize("name", known_representations())
def test_rows_are_the_representation_of_the_rows(cache: fovcache.Cache, name: str) -> None:
    features = cache.features()
    derived = cache.derive(features, name)
    x, y = derived.tensors()
    maps, labels = features.tensors()
    matrices = maps.flatten(2).mT.contiguous()  # each place of a map is a token
    expected = resolve_representation(name).compute(matrices.float())
    assert derived.shape == (NUM_SAMPLES, resolve_representation(name).num_features(*matrices.shape[1:]))
    assert (x.dtype, derived.num_failed) == (torch.float32, 0)
    assert torch.allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert derived.keys == features.keys
    assert derived.samples == features.samples
    assert torch.equal(y, labels)


def test_what_is_there_is_not_computed_again_and_the_input_is_not_read(cache: fovcache.Cache) -> None:
    features, brightness = cache.features(), Brightness()
    first = derive(cache.storage, features, brightness, device="cpu")
    assert (first.computed, brightness.num_computed) == (NUM_SAMPLES - 1, NUM_SAMPLES - 1)  # distinct contents
    for path in cache.storage.root.glob(f"shards/{features.feature.recipe}/*"):
        data = path.read_bytes()
        path.write_bytes(data[:-2000] + bytes(2000))  # the rows come before the keys, which are the last 32 a row
        path.write_bytes(data[: -32 * 4 - 1000] + bytes(1000) + data[-32 * 4 :])
    before = contents(cache)
    again = derive(cache.storage, features, brightness, device="cpu")
    assert (again.computed, again.bytes_written, brightness.num_computed) == (0, 0, NUM_SAMPLES - 1)
    assert torch.equal(again.features.tensors()[0], first.features.tensors()[0])
    assert contents(cache) == before


def test_a_part_then_all_ends_as_all_at_once(cache: fovcache.Cache, built: Path, tmp_path: Path) -> None:
    brightness = Brightness()
    part = derive(cache.storage, cache.features(split="test").subset([0]), brightness, device="cpu")
    assert (len(part.features), brightness.num_computed) == (1, ROWS_PER_BLOCK)  # the shard that it lies in
    turned = cache.features().subset(range(NUM_SAMPLES - 1, -1, -1))
    rest = derive(cache.storage, turned, brightness, device="cpu")
    assert brightness.num_computed == NUM_SAMPLES - 1
    shutil.copytree(built / "cache", tmp_path / "other")
    other = fovcache.open(tmp_path / "other")
    whole = derive(other.storage, other.features(), Brightness(), device="cpu")
    assert contents(cache) == contents(other)
    assert torch.equal(rest.features.tensors()[0].flip(0), whole.features.tensors()[0])


def test_what_is_not_finite_is_a_failure_with_its_reason_and_not_tried_again(cache: fovcache.Cache) -> None:
    features = cache.features()
    mean = features.tensors()[0].float().mean((1, 2, 3))
    brightness = Brightness(parameters={"at_least": mean.median().item()})
    derived = derive(cache.storage, features, brightness, device="cpu").features
    kept = np.flatnonzero((mean >= mean.median()).numpy())
    assert 0 < len(kept) < NUM_SAMPLES
    assert (derived.keys, derived.num_failed) == (features.subset(kept).keys, NUM_SAMPLES - len(kept))
    assert cache.features(representation="brightness").num_failed == NUM_SAMPLES - len(kept)
    failures = dataset_info(Catalog(cache.storage), "images")["failures"]
    assert {(item["stage"], item["reason"], item["permanent"]) for item in failures} == {
        ("encode", "brightness gave NaN for layer pixels8", True)
    }
    brightness.num_computed = 0
    derive(cache.storage, features, brightness, device="cpu")
    assert brightness.num_computed == 0


def test_a_derived_feature_of_no_finite_row_at_all_is_empty(cache: fovcache.Cache) -> None:
    derived = derive(cache.storage, cache.features(), Brightness(parameters={"at_least": 1e9}), device="cpu").features
    assert (len(derived), derived.num_failed) == (0, NUM_SAMPLES)
    assert {path.parent.name for path in cache.storage.root.glob("shards/*/*")} == {cache.features().feature.recipe}
    assert verify(cache.storage).damaged == ()


def test_rows_of_several_shapes_are_derived_and_become_one_tensor(tmp_path: Path, write_encoder: Any) -> None:
    for number, side in enumerate((8, 12, 8, 16)):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    encoder = write_encoder(tmp_path / "encoder", "\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    cache = fovcache.open(tmp_path / "cache")
    cache.build(str(tmp_path / "images"), encoder=encoder, weights="random:0", layers=["0"], pool="tokens")
    features = cache.features()
    assert len(features.rows.shapes) == 3
    assert cache.derive(features, "stats").shape == (4, 7)
    assert len(cache.derive(features, "flat_vec").rows.shapes) == 3


@pytest.mark.parametrize("tensor", ["rows", "keys"])
def test_nothing_is_derived_from_damaged_rows(cache: fovcache.Cache, tensor: str) -> None:
    features = cache.features()
    path = cache.storage.path(features.rows.shards_at([0])[0].name)
    whole = path.read_bytes()
    at = -1 if tensor == "keys" else -1000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[len(whole) + at + 1 :])
    with pytest.raises(DamageError, match=rf"{path.name} is damaged: .*run `fovcache repair`"):
        cache.derive(features, "stats")
    path.write_bytes(whole)
    assert cache.features().feature == features.feature
    brightness = Brightness(name="stats")  # whatever was published under this key would not be computed again
    derive(cache.storage, features.subset(range(ROWS_PER_BLOCK)), brightness, device="cpu")
    assert brightness.num_computed == ROWS_PER_BLOCK


def test_what_cannot_be_derived_is_refused_with_the_reason(cache: fovcache.Cache, tmp_path: Path) -> None:
    features = cache.features()
    with pytest.raises(UsageError, match=r"no representation named 'stat'; nearest: stats"):
        cache.derive(features, "stat")
    with pytest.raises(UsageError, match=r"'stats' does not take these parameters: .*power"):
        cache.derive(features, "stats", power=2)
    with pytest.raises(UsageError, match="device 'gpu' is unknown"):
        cache.derive(features, "stats", device="gpu")
    with pytest.raises(
        UsageError, match=r"already the representation 'stats' .* derive 'spectral' from the layer itself"
    ):
        cache.derive(cache.derive(features, "stats"), "spectral")
    with pytest.raises(
        UsageError, match=r"these features are of the cache .*cache, so they cannot be derived in .*other"
    ):
        fovcache.open(tmp_path / "other").derive(features, "stats")


def test_derived_features_are_asked_for_by_name_and_else_out_of_the_way(cache: fovcache.Cache) -> None:
    features = cache.features()
    stats, exact = cache.derive(features, "stats"), cache.derive(features, "spectral", method="exact")
    assert cache.features().feature == features.feature
    assert cache.features(layer="pixels8", pool="tokens", store_dtype="bf16").feature == features.feature
    root = {"layer": "pixels8", "encoder": "pixels", "pool": "tokens", "store_dtype": "bf16"}
    assert cache.features(representation="stats", split="test", **root).keys == cache.features(split="test").keys
    assert cache.features(representation="stats", recipe=features.feature.recipe[:9]).feature == stats.feature
    with pytest.raises(SelectionError, match=r"no feature .* fits; there are: spectral of pixels pixels8 .*; stats of"):
        cache.features(representation="stats", pool="cls")
    with pytest.raises(SelectionError, match=r"fits; there are: .*; `Cache.derive\(…, 'frequency'\)` computes it"):
        cache.features(representation="frequency")
    cache.derive(features, "spectral")
    with pytest.raises(SelectionError, match=r"2 features .* differ in .*representation\.parameters\.method"):
        cache.features(representation="spectral")
    assert cache.features(representation="spectral", recipe=exact.feature.recipe[:9]).feature == exact.feature


def test_listings_name_the_representation_and_what_it_is_of(cache: fovcache.Cache) -> None:
    features = cache.features()
    stats = cache.derive(features, "stats").feature
    catalog = Catalog(cache.storage)
    plain, derived = list_cache(catalog)[0]["features"]
    assert (plain["encoder"], plain["representation"], plain["input"]) == ("pixels", None, None)
    expected = {"encoder": "pixels", "layer": "pixels8", "pool": "tokens", "representation": "stats", "parameters": {}}
    expected |= {"dtype": "fp32", "rows": NUM_SAMPLES, "row_shape": [7], "input": features.feature.digest}
    assert derived == {**expected, "feature": stats.digest, "recipe": stats.recipe}
    assert f"{stats.recipe} stats of pixels pixels8, float32" in cache_info(catalog)["recipes"]
    told = {recipe["digest"]: recipe for recipe in dataset_info(catalog, "images")["recipes"]}
    assert told[stats.recipe]["input"] == {"kind": "feature", "feature": features.feature.digest}


def test_an_export_says_what_it_was_derived_from(cache: fovcache.Cache, tmp_path: Path) -> None:
    features = cache.features()
    derived = cache.derive(features, "stats")
    export(cache.storage, derived, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["x"][:], derived.tensors()[0].numpy())
        assert json.loads(file.attrs["recipe"])["extractor"]["name"] == "stats"
        assert json.loads(file.attrs["input_feature"]) == features.feature.document
        assert json.loads(file.attrs["input_recipe"])["extractor"]["name"] == "pixels"


def test_explain_speaks_of_builds_alone(cache: fovcache.Cache, built: Path) -> None:
    cache.derive(cache.features(), "stats")
    request = EncoderRequest(encoder="pixels", pool="tokens", store_dtype="fp32")
    report = explain(cache.storage, [str(built / "train")], request, BuildOptions())
    assert {verdict.field for verdict in report.verdicts} == {"store_dtype"}


def test_garbage_collection_keeps_what_is_derived_as_long_as_its_dataset(cache: fovcache.Cache, built: Path) -> None:
    cache.derive(cache.features(), "stats")
    before = contents(cache)
    assert collect_garbage(cache.storage, grace_s=0).removed == ()
    cache.build(str(built / "test"), encoder="pixels", pool="tokens", dataset="few")
    collect_garbage(cache.storage, grace_s=0, drop=("images",))
    derived = cache.features(dataset="few", representation="stats")
    assert (len(derived), derived.num_failed) == (4, 0)
    collect_garbage(cache.storage, grace_s=0, drop=("few",))
    assert [name for name in contents(cache) if name in before] == ["fovcache.json"]


def test_garbage_collection_keeps_the_name_of_what_rows_were_derived_from(cache: fovcache.Cache) -> None:
    """The input's rows are gone, by hand, and so they stay; the derived ones still say of what they are."""
    features = cache.features()
    derived = cache.derive(features, "stats")
    for folder in ("manifests", "shards"):
        shutil.rmtree(cache.storage.path(f"{folder}/{features.feature.recipe}"))
    collect_garbage(cache.storage, grace_s=0)
    assert torch.equal(cache.features(representation="stats", encoder="pixels").tensors()[0], derived.tensors()[0])
    assert verify(cache.storage).damaged == ()


def test_recomputing_measures_derived_rows_too(cache: fovcache.Cache) -> None:
    features = cache.features()
    for name in ("spectral", "distribution", "flat_vec"):
        cache.derive(features, name)
    report = recompute_some(cache.storage, 5, device="cpu")
    assert (report["within_tolerance"], report["samples"], report["skipped"]) == (True, 4 * 5, ())
    assert report["largest"]["derived"] <= 1e-5
    forge(cache, "info_theoretic")  # two numbers too
    report = recompute_some(cache.storage, 5, device="cpu")
    assert (report["within_tolerance"], report["skipped"]) == (False, ())


def test_recomputing_says_which_derived_rows_it_cannot_compute(cache: fovcache.Cache) -> None:
    forge(cache, "stats", version=99)
    forge(cache, "unheard_of")
    forge(cache, "matrix_norms")
    report = recompute_some(cache.storage, 5, device="cpu")
    assert not report["within_tolerance"]
    assert "has version 1 now, and 99 when its rows were computed" in str(report["skipped"])
    assert "no representation named 'unheard_of'" in str(report["skipped"])
    assert "matrix_norms gives 7 numbers now, and 2 are cached" in str(report["skipped"])


def test_rows_derived_from_rows_of_two_numerics_warn(cache_of_two_numerics: fovcache.Cache) -> None:
    cache = cache_of_two_numerics
    with pytest.warns(UserWarning, match="2 different numerics"):
        features = cache.features()
    with pytest.warns(UserWarning, match=r"2 different numerics .*input\.matmul_precision"):
        cache.derive(features, "stats")
    with pytest.raises(SelectionError, match=r"input\.matmul_precision"):
        cache.features(representation="stats", strict=True)
