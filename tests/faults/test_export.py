"""Exports hold the values, keys, labels and origins that are in the cache; recomputing finds the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open

import fovcache
from fovcache.keys.digest import document_digest
from fovcache.store.strings import unpack_strings


@pytest.fixture(scope="module")
def source(shared_lab: Any) -> Path:
    """Two classes in two splits, with a copy and a file that is no picture."""
    for number, name in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        shared_lab.pictures(5, seed=number, name=f"data/{name}")
    folder = Path(shared_lab.folder / "data")
    (folder / "train/cat/copy.png").write_bytes((folder / "train/cat/001.png").read_bytes())
    (folder / "train/dog/bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module", params=["bf16", "fp16", "fp32"])
def cache(shared_lab: Any, source: Path, request: pytest.FixtureRequest) -> Path:
    cache = shared_lab.folder / request.param
    splits = [f"{split}={source / split}" for split in ("train", "test")]
    build, _, *options = shared_lab.build_args("", cache, "--store-dtype", request.param, "--dataset", "animals")
    assert shared_lab.run(build, *splits, *options).status == 1
    return Path(cache)


def export(lab: Any, cache: Path, out: Path, *more: object) -> dict[str, Any]:
    out.unlink(missing_ok=True)
    done = lab.run("export", "--cache", cache, "--out", out, "--json", "-", *more)
    assert (done.status, done.err) == (0, ""), done
    return dict(done.json)


def test_hdf5_holds_the_values_widened_exactly(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    features = fovcache.open(cache).features()
    rows, labels = features.tensors()
    report = export(shared_lab, cache, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        x, stored = file["x"][:], file.attrs["stored_dtype"]
        assert stored == report["stored_dtype"] == cache.name
        assert x.dtype == {"bf16": np.float32, "fp16": np.float16, "fp32": np.float32}[cache.name]
        assert torch.equal(torch.from_numpy(x), rows.to(torch.from_numpy(x).dtype))
        assert torch.equal(torch.from_numpy(x).to(rows.dtype), rows)
        assert file["y"][:].tolist() == labels.tolist()
        assert [key.tobytes().hex() for key in file["key"][:]] == features.keys
        assert [uri.decode() for uri in file["uri"][:]] == features.uris
        assert json.loads(file.attrs["classes"]) == ["cat", "dog"]
        assert_origin(file.attrs, features)
    assert (report["rows"], report["shape"]) == (21, [21, 8, 8, 8])
    assert report["size_bytes"] == (tmp_path / "x.h5").stat().st_size


def test_safetensors_hold_the_very_bits(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    features = fovcache.open(cache).features()
    rows, labels = features.tensors()
    report = export(shared_lab, cache, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("x"), rows)
        assert torch.equal(file.get_tensor("y"), labels)
        assert [bytes(key.tolist()).hex() for key in file.get_tensor("key")] == features.keys
        columns = {name: file.get_tensor(name).numpy() for name in file.keys() if name.startswith("uri")}  # noqa: SIM118
        assert unpack_strings("uri", columns, len(rows)) == features.uris
        assert json.loads(file.metadata()["classes"]) == ["cat", "dog"]
        assert_origin(file.metadata(), features)
    assert report["dtype"] == {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[cache.name]


def assert_origin(attributes: Any, features: Any) -> None:
    """The recipe and the feature are those whose digests they have."""
    assert document_digest(json.loads(attributes["feature"])) == features.feature.digest == attributes["feature_digest"]
    assert document_digest(json.loads(attributes["recipe"])) == features.feature.recipe
    assert attributes["fovcache"] == fovcache.__version__


def test_one_split_is_exported_in_its_order(shared_lab: Any, cache: Path, tmp_path: Path) -> None:
    export(shared_lab, cache, tmp_path / "x.h5", "--split", "test", "--dataset", "animals", "--layer", "conv")
    with h5py.File(tmp_path / "x.h5") as file:
        assert [uri.decode() for uri in file["uri"][:]] == [
            f"{name}/{number:03d}.png" for name in ("cat", "dog") for number in range(5)
        ]
        assert file["y"][:].tolist() == [0] * 5 + [1] * 5


def test_recomputing_finds_the_same_rows_within_the_tolerance(shared_lab: Any, cache: Path) -> None:
    done = shared_lab.run("verify", "--cache", cache, "--recompute", 6, "--device", "cpu", "--json", "-")
    assert done.status == 0
    found = done.json["recomputed"]
    assert (found["samples"], found["within_tolerance"], found["skipped"]) == (6, True, [])
    assert 0 <= found["largest"][cache.name] <= found["tolerance"][cache.name]
    said = shared_lab.run("verify", "--cache", cache, "--recompute", 6, "--device", "cpu")
    assert "6 samples encoded again" in said.out


def test_recomputing_says_when_the_rows_are_of_something_else(lab: Any) -> None:
    """A factory that names its own version can change what it computes without changing the key."""
    versioned = """
        import torch

        class Net(torch.nn.Module):
            version = "1"

            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Identity()

            def forward(self, x):
                return self.layer(x * 1.0)

        def make():
            return Net()
    """
    args = ("--encoder", lab.write_encoder(versioned, "own.py"), "--layers", "layer")
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache, *args)
    lab.write_encoder(versioned.replace("* 1.0", "* 1.1"), "own.py")
    assert lab.build(source, cache, *args)["computed"] == 0
    assert lab.run("verify", "--cache", cache).status == 0
    done = lab.run("verify", "--cache", cache, "--recompute", 3, "--json", "-")
    assert (done.status, done.json["recomputed"]["within_tolerance"]) == (1, False)
    assert 0.09 < done.json["recomputed"]["largest"]["bf16"] < 0.11


def test_recomputing_says_what_it_cannot_do(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache)
    source.rename(lab.folder / "away")
    done = lab.run("verify", "--cache", cache, "--recompute", 3)
    assert done.status == 1
    assert "does not exist" in done.out
    assert "not recomputed" in done.out
