"""Where a model's weights come from: seeds, folders, and what is refused of them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fovcache.errors import WeightsError
from fovcache.keys.digest import Document
from fovcache.models.checkpoint import Checkpoint, open_checkpoint

SHAPES = {"body.0.weight": (3, 4), "body.0.bias": (3,), "body.1.weight": (2, 3), "head.weight": (5, 2)}
CONFIG = {"model_type": "little", "width": 4, "_name_or_path": "here", "transformers_version": "4.56.0"}


def tensors(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: scale * torch.ones(shape) for name, shape in SHAPES.items()}


def write(folder: Path, config: dict[str, Any] | None = None, **files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    for name, content in (files or {"model": tensors()}).items():
        save_file(content, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "weights")


def opened(weights: Path | str | None, **options: Any) -> Checkpoint:
    weights = None if weights is None else str(weights)
    return open_checkpoint(weights, name="little", hub_id=None, config={"width": 4}, **options)


def identity(weights: Path | str) -> Document:
    return opened(weights).identity()


def test_a_seed_is_known_by_its_configuration() -> None:
    assert identity("random:5") == {"config": {"width": 4}, "seed": 5, "init": 1}
    for malformed in ("random:", "random:x", "random:-1"):
        with pytest.raises(WeightsError, match="the seed must be a whole number"):
            opened(malformed)


def test_seeded_tensors_do_not_depend_on_the_parts_that_are_needed() -> None:
    whole = opened("random:5").load(SHAPES)
    part = opened("random:5").load(SHAPES, parts=["body.1."])
    assert set(whole) == set(SHAPES)
    assert set(part) == {"body.1.weight"}
    assert torch.equal(part["body.1.weight"], whole["body.1.weight"])
    embedded = opened("random:5").load(SHAPES, embeddings=["head.weight"])["head.weight"]
    np.testing.assert_allclose(embedded, whole["head.weight"] * 0.02 * 2**0.5, rtol=1e-6)


def test_no_weights_and_nowhere_to_get_them_from() -> None:
    with pytest.raises(WeightsError, match="the encoder 'little' has no weights of its own: give --weights random:0"):
        opened(None)


@pytest.mark.parametrize("weights", ["nowhere", "./not/here", "/no/such/folder", "a/b/c", "a b/c", "owner/name@", ""])
def test_what_is_neither_a_path_nor_a_hub_id(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"do not exist; expected a folder .*, a hub id owner/name, or random:SEED"):
        opened(weights or "no such thing")


def test_a_file_is_refused_with_its_folder(folder: Path) -> None:
    with pytest.raises(WeightsError, match=f"are a file; expected a folder .* here '{re.escape(str(folder))}'"):
        opened(folder / "model.safetensors")


def test_the_digest_is_of_the_bytes_and_of_what_decides_in_the_configuration(folder: Path, tmp_path: Path) -> None:
    digest = identity(folder)
    assert digest.keys() == {"digest"}
    assert len(digest["digest"]) == 64
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(copy / "model.safetensors", (0, 0))
    (copy / "README.md").write_text("about it")
    unimportant = {"_name_or_path": "there", "transformers_version": "9", "dtype": "float16", "torch_dtype": "bfloat16"}
    (copy / "config.json").write_text(json.dumps({**dict(reversed(CONFIG.items())), **unimportant}, indent=4))
    assert identity(copy) == digest
    (copy / "config.json").write_text(json.dumps({**CONFIG, "width": 5}))
    assert identity(copy) != digest
    (copy / "config.json").write_text(json.dumps(CONFIG))
    changed = tensors()
    changed["head.weight"][0, 0] = 2.0
    save_file(changed, copy / "model.safetensors")
    assert identity(copy) != digest


def test_a_sharded_folder_is_read_by_its_index(folder: Path, tmp_path: Path) -> None:
    every = tensors(3.0)
    first, second = {name: every[name] for name in list(every)[:2]}, {name: every[name] for name in list(every)[2:]}
    names = {"model-00001-of-00002": first, "model-00002-of-00002": second}
    sharded = write(tmp_path / "sharded", **names)
    write(sharded, leftover=tensors())
    index = {name: f"{file}.safetensors" for file, content in names.items() for name in content}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert all((tensor == 3).all() for tensor in opened(sharded).load(SHAPES).values())
    before = identity(sharded)
    (sharded / "leftover.safetensors").unlink()
    assert identity(sharded) == before
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors, which model\.safetensors\.index\.json"):
        opened(sharded)


@pytest.mark.parametrize("weight_map", [{"a": "../model.safetensors"}, {"a": "/etc/passwd"}, {}, None, ["a"]])
def test_an_index_that_names_no_files_beside_it(weight_map: Any, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=r"expected files beside it|has no 'weight_map'"):
        opened(folder)


def test_the_main_file_is_read_where_there_are_variants_of_it(folder: Path) -> None:
    digest = identity(folder)
    write(folder, **{"model.fp16": tensors(7.0)})
    assert identity(folder) == digest
    assert (opened(folder).load(SHAPES)["head.weight"] == 1).all()


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    twice = write(tmp_path / "twice", a=tensors(), b=tensors())
    with pytest.raises(WeightsError, match=r"stands in a\.safetensors and in b\.safetensors"):
        opened(twice).load(SHAPES)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "flax_model.msgpack"])
def test_pickles_are_refused_with_how_to_convert_them(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(WeightsError, match=rf"hold only {re.escape(name)}; pickled .* are refused: .*save_pretrained"):
        opened(folder)


def test_a_folder_without_weights_or_configuration(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty hold no safetensors file, .*; expected a folder"):
        opened(tmp_path / "empty")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"hold no config\.json; expected a folder"):
        opened(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"width": NaN}', '{"seed": 123456789012345678901}', "\xff"])
def test_a_configuration_that_is_none(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightsError, match=r"config\.json (holds a .*, expected a JSON object|cannot be read as JSON)"):
        opened(folder)


@pytest.mark.parametrize("kept", [0, 50, -5])
def test_a_truncated_file_is_named(kept: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"weights {re.escape(str(file))} cannot be read: "):
        opened(folder).load(SHAPES)


def test_what_does_not_fit_is_named(folder: Path) -> None:
    wrong = tensors()
    del wrong["body.0.weight"]
    wrong |= {"body.0.bias": torch.ones(4), "body.0.scale": torch.ones(1), "body.1.weight": torch.ones(2, 3).int()}
    write(folder, model=wrong | {"tail.weight": torch.ones(1)})
    said = (
        r"weights .* do not fit the encoder 'little': 1 missing: body\.0\.weight; 1 of another shape: body\.0\.bias "
        r"\(checkpoint \(4,\), model \(3,\)\); 1 unexpected: body\.0\.scale; 1 not of floating point: body\.1\.weight"
    )
    with pytest.raises(WeightsError, match=said):
        opened(folder).load(SHAPES, parts=["body."])
    assert set(opened(folder).load(SHAPES, parts=["head."])) == {"head.weight"}
    fitting = opened(folder).load(SHAPES, parts=["body.0."], unused=["body.0.weight", "body.0.bias", "body.0.scale"])
    assert not fitting


def test_names_of_old_are_renamed_and_must_not_meet(folder: Path) -> None:
    old = {name.replace("body", "trunk"): tensor for name, tensor in tensors().items()}
    write(folder, model=old)

    def rename(name: str) -> str:
        return name.replace("trunk", "body")

    assert set(opened(folder).load(SHAPES, rename=rename)) == set(SHAPES)
    write(folder, model=old | tensors())
    with pytest.raises(WeightsError, match=r"are the same tensor body\.0\.bias"):
        opened(folder).load(SHAPES, rename=rename)


def test_halves_are_widened(folder: Path) -> None:
    write(folder, model={name: tensor.bfloat16() for name, tensor in tensors(1.5).items()})
    loaded = opened(folder).load(SHAPES)
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all((tensor == 1.5).all() for tensor in loaded.values())


def test_a_model_may_lie_in_a_subfolder(folder: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    folder.rename(pipeline / "vae")
    assert opened(pipeline, subfolder="vae").identity() == identity(pipeline / "vae")
    with pytest.raises(WeightsError, match="hold no safetensors"):
        opened(pipeline)


def test_the_preprocessing_is_read_where_there_is_any(folder: Path) -> None:
    assert opened(folder).processor is None
    (folder / "preprocessor_config.json").write_text('{"do_resize": true}')
    assert opened(folder).processor == {"do_resize": True}
    assert identity(folder) == opened(folder).identity()
