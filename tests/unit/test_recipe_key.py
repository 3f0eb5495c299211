"""The key, one thing at a time: what decides the numbers changes it, and nothing else does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fovcache
from fovcache.builder.request import EncoderRequest, Resolved, resolve
from fovcache.cache import open_cache
from fovcache.errors import FingerprintError
from fovcache.keys import recipe as recipe_module
from fovcache.keys.recipe import Feature, Recipe, differences, sample_key

HELPERS = {
    "helpers.py": "import torch\n\n\ndef act(x):\n    return torch.relu(x)\n",
    "late.py": "def shift(x):\n    return x + 1.0\n",
}
ENCODER = """
from helpers import act

GAIN = float(os.environ.get("TEST_GAIN", "1.5"))


class Net(nn.Module):
    image_size = 16
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.25, 0.25, 0.25)

    def __init__(self):
        super().__init__()
        stride = int(os.environ.get("TEST_STRIDE", "1"))
        self.scale = float(os.environ.get("TEST_SCALE", "1.0"))
        self.table = torch.tensor([float(os.environ.get("TEST_TABLE", "2"))])
        self.register_buffer("kept", torch.tensor([float(os.environ.get("TEST_BUFFER", "3"))]))
        self.register_buffer("unkept", torch.tensor([float(os.environ.get("TEST_UNKEPT", "4"))]), persistent=False)
        self.a = nn.Conv2d(3, 4, 3, stride=stride)
        self.b = nn.Conv2d(4, 4, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(float(os.environ.get("TEST_WEIGHT", "0.1")))

    def forward(self, x):
        from late import shift

        return self.b(shift(act(self.a(x * self.scale)))) * GAIN


def make():
    return Net()


def other():
    return Net()
"""


@pytest.fixture
def encoder(encoder_file: Callable[..., str]) -> str:
    return encoder_file(ENCODER, HELPERS)


def resolved(encoder: str, **changes: object) -> Resolved:
    return resolve(replace(EncoderRequest(encoder=encoder, layers=("a",)), **changes)).each[0]


def digest(encoder: str, **changes: object) -> str:
    return resolved(encoder, **changes).features[0].digest


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 24},
        {"fit": "squash"},
        {"fit": "pad"},
        {"compute_dtype": "bfloat16"},
        {"compute_dtype": "float16"},
        {"weights": "random:0"},
        {"weights": "random:1"},
        {"layers": ("b",)},
        {"pool": "tokens"},
        {"store_dtype": "fp32"},
        {"store_dtype": "fp16"},
    ],
    ids=str,
)
def test_what_is_asked_for_changes_the_key(encoder: str, changes: dict[str, object]) -> None:
    assert digest(encoder, **changes) != digest(encoder)


def test_all_of_these_keys_differ_from_each_other(encoder: str) -> None:
    keys = [digest(encoder, weights=weights, size=size) for weights in ("random:0", "random:1") for size in (16, 24)]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("variable", ["GAIN", "STRIDE", "SCALE", "TABLE", "BUFFER", "UNKEPT", "WEIGHT"])
def test_what_the_factory_reads_from_elsewhere_changes_the_key(
    encoder: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(encoder)
    monkeypatch.setenv(f"TEST_{variable}", "2.5" if variable != "STRIDE" else "2")
    assert digest(encoder) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("encoder.py", "return self.b(", "return -self.b("),
        ("encoder.py", "image_mean = (0.5,", "image_mean = (0.4,"),
        ("encoder.py", "image_std = (0.25,", "image_std = (0.5,"),
        ("encoder.py", "image_size = 16", "image_size = 17"),
        ("helpers.py", "torch.relu", "torch.tanh"),
        ("late.py", "+ 1.0", "- 1.0"),
    ],
)
def test_an_edit_changes_the_key_whatever_its_length_and_time(encoder: str, file: str, old: str, new: str) -> None:
    before = digest(encoder)
    path = Path(encoder.partition(".py:")[0]).parent / file
    stat = path.stat()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest(encoder) != before
    path.write_text(text)
    assert digest(encoder) == before


def test_an_edited_file_runs_as_it_is_keyed(encoder: str, tmp_path: Path, make_images: Callable[..., Path]) -> None:
    images = str(make_images(tmp_path / "images", 2))
    cache = fovcache.open(tmp_path / "cache")
    cache.build(images, encoder=encoder, layers=["b"], store_dtype="fp32")
    first = cache.features().tensors()[0]
    helper = Path(encoder.partition(".py:")[0]).parent / "helpers.py"
    stat = helper.stat()
    helper.write_text(helper.read_text().replace("torch.relu", "torch.tanh"))  # as long, and as old
    os.utime(helper, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = cache.build(images, encoder=encoder, layers=["b"], store_dtype="fp32")
    assert report.computed == 2
    assert not torch.equal(cache.features(recipe=report.recipes[0]).tensors()[0], first)


def test_weights_are_keyed_by_value_and_not_by_name(encoder: str, tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(4, 3, 3, 3), "a.bias": torch.zeros(4), "kept": torch.tensor([3.0])}
    state |= {"b.weight": torch.ones(4, 4, 3, 3), "b.bias": torch.zeros(4)}
    save_file(state, tmp_path / "one.safetensors")
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    one = digest(encoder, weights=str(tmp_path / "one.safetensors"))
    assert digest(encoder, weights=str(tmp_path / "two.safetensors")) == one
    state["b.bias"][0] = 1e-7
    save_file(state, tmp_path / "one.safetensors")
    assert digest(encoder, weights=str(tmp_path / "one.safetensors")) != one


def test_another_factory_of_the_same_file_is_another_encoder(encoder: str) -> None:
    assert digest(encoder.replace(":make", ":other")) != digest(encoder)


def test_a_version_stands_for_the_source(encoder: str) -> None:
    path = Path(encoder.rpartition(":")[0])
    text = path.read_text().replace("image_size = 16", 'image_size = 16\n    version = "1"')
    path.write_text(text)
    before = digest(encoder)
    path.write_text(text.replace("return self.b(", "return -self.b("))
    assert digest(encoder) == before
    path.write_text(text.replace('version = "1"', 'version = "2"'))
    assert digest(encoder) != before


@pytest.mark.parametrize("line", ["self.f = lambda x: x * stride", "self.f = os.environ", "self.f = object()"])
def test_what_has_no_fingerprint_is_refused_unless_a_version_is_named(encoder: str, line: str) -> None:
    path = Path(encoder.rpartition(":")[0])
    text = path.read_text().replace("        self.a =", f"        {line}\n        self.a =")
    path.write_text(text)
    with pytest.raises(FingerprintError, match=r"'f'.*version"):
        resolved(encoder)
    path.write_text(text.replace("image_size = 16", 'image_size = 16\n    version = "1"'))
    assert resolved(encoder).recipe.document["extractor"]["source"] == {"version": "1"}


def test_fields_that_no_flag_sets_yet_are_in_the_key() -> None:
    plain = Recipe(input={}, extractor={})
    others = [
        replace(plain, posterior={"mode": "mean"}),
        replace(plain, view={"flip": 0.5, "seed": 1}),
        replace(plain, input={"clip": {"decoder": {"name": "pyav"}}}),
        replace(plain, input={"clip": {"decoder": {"name": "pyav", "device": "cuda"}}}),
        replace(plain, extractor={"architecture": "vit"}),
    ]
    assert len({recipe.digest for recipe in (plain, *others)}) == 1 + len(others)
    feature = Feature(recipe=plain.digest, layer="x", pool="mean")
    assert replace(feature, pool_time="mean").digest != feature.digest


@pytest.mark.parametrize("constant", ["SCHEMA", "IMPLEMENTATION"])
def test_our_own_versions_are_in_the_key(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe(input={}, extractor={}).digest
    monkeypatch.setattr(recipe_module, constant, 99)
    assert Recipe(input={}, extractor={}).digest != before


def test_a_range_of_a_sample_is_another_sample() -> None:
    content = "ab" * 32
    keys = {sample_key(content), sample_key(content, 0.0, 1.0), sample_key(content, 0.0, 2.0), sample_key(content, 1.0)}
    assert len(keys) == 4
    assert sample_key(content) == content


def test_what_decides_nothing_is_not_in_the_key(encoder: str, tmp_path: Path, make_images: Callable[..., Path]) -> None:
    images = make_images(tmp_path / "images", 40, ("cat", "dog"))
    cache = fovcache.open(tmp_path / "cache")
    first = cache.build(str(images), encoder=encoder, layers=["a"], batch_size=4, num_workers=1, shard_bytes=1024)
    assert first.computed == 40
    moved = shutil.copytree(images, tmp_path / "elsewhere" / "photos")
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    folder = shutil.copytree(Path(encoder.rpartition(":")[0]).parent, tmp_path / "elsewhere" / "code")
    (tmp_path / "elsewhere" / "code" / "unused.py").write_text("x = 1")
    again = cache.build(
        str(moved), encoder=f"{folder}/encoder.py:make", layers=["a"], batch_size=32, num_workers=4, device="cpu"
    )
    assert (again.computed, again.reused) == (0, 40)
    assert again.features == first.features
    shutil.move(tmp_path / "cache", tmp_path / "cache2")
    assert open_cache(tmp_path / "cache2").build(str(moved), encoder=encoder, layers=["a"]).computed == 0


def test_two_documents_are_compared_field_by_field() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert differences(old, {"a": {"b": 1, "c": [1, 3]}, "d": 5}) == [("a.c", [1, 2], [1, 3]), ("d", 4, 5)]
    assert differences(old, {"a": {"b": 1, "c": [1, 2]}}) == [("d", 4, None)]
    assert differences(old, old) == []
