"""Golden digests and bytes of schema 0: a change here makes every cache that exists useless, so it is never by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fovcache.build.plan import Plan
from fovcache.build.request import EncoderRequest, resolve
from fovcache.extract.frames import FrameInput
from fovcache.keys.digest import bytes_digest, canonical_json, document_digest, file_digest
from fovcache.keys.recipe import IMPLEMENTATION, SCHEMA, Feature, Recipe, sample_key
from fovcache.keys.source_code import source_digests
from fovcache.sources.sample import Sample, Unreadable
from fovcache.store.dataset import Dataset, publish_dataset, read_dataset
from fovcache.store.layout import dataset_name, shard_name
from fovcache.store.manifest import Failure, Manifest, block_id
from fovcache.store.shard import Shard, keys_array, read_shard_header, write_shard
from fovcache.store.storage import LocalStorage

KEYS = tuple(f"{number:02x}" * 32 for number in (1, 2, 255))
RECIPE = Recipe(
    input={"kind": "frames", "clip": {"size": 32, "fit": "crop"}, "preprocessing": {"mean": [0.5, 0.25, 1e-7]}},
    extractor={"name": "encoder.py:make", "source": {"encoder.py": "ab" * 32}, "state": "cd" * 32},
    compute_dtype="bfloat16",
    posterior={"mode": "sample", "seed": 3},
    view={"flip": 0.5},
)
FEATURE = Feature(recipe=RECIPE.digest, layer="blocks.11", pool="cls", dtype="bf16")


def test_these_are_the_digests_of_this_schema() -> None:
    assert (SCHEMA, IMPLEMENTATION) == (0, 1)


def test_blake3_is_blake3(tmp_path: Path) -> None:
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"  # from its authors' test vectors
    long = "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"  # 102,400 bytes, likewise
    data = bytes(number % 251 for number in range(102_400))
    (tmp_path / "long").write_bytes(data)
    assert bytes_digest(b"") == empty
    assert bytes_digest(data) == file_digest(tmp_path / "long") == long


def test_documents_are_hashed_in_their_canonical_form() -> None:
    document = {"é": [1, 1.0, 1.5, 1e21, -0.0, 2**53 - 1], "b": {"z": None, "a": True}, "\n": '\\"\u0007€'}
    text = '{"\\n":"\\\\\\"\\u0007€","b":{"a":true,"z":null},"é":[1,1,1.5,1e+21,0,9007199254740991]}'
    assert canonical_json(document) == text.encode()
    assert document_digest(document) == bytes_digest(text.encode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1: 2}, b"bytes"])
def test_what_json_cannot_hold_exactly_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical_json({"a": value})


GOLDEN = {
    "recipe": (RECIPE.digest, ""),
    "recipe with defaults": (Recipe(input={}, extractor={}).digest, ""),
    "feature": (FEATURE.digest, ""),
    "range of a sample": (sample_key(KEYS[0], 0.5, 2.0), ""),
    "open range of a sample": (sample_key(KEYS[0], 0.5), ""),
    "frames as they are": (document_digest(FrameInput().document()), ""),
    "frames at a size": (document_digest(FrameInput(size=224, mean=(0.5, 0.5, 0.5)).document()), ""),
    "block": (block_id(RECIPE.digest, [FEATURE.digest], keys_array(KEYS).tobytes(), 1), ""),
}


@pytest.mark.parametrize(("digest", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_keys(digest: str, golden: str) -> None:
    assert digest == golden


def test_the_key_of_pixels() -> None:
    resolved = resolve(EncoderRequest(encoder="pixels", layers=("*",)))
    assert resolved.recipe.digest == ""
    assert [feature.digest for feature in resolved.features] == []


def test_the_source_of_a_file_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "encoder.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    assert source_digests(tmp_path / "encoder.py") == {}


def test_a_shards_bytes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    rows = {
        FEATURE.digest: torch.arange(12, dtype=torch.float32).reshape(3, 4).bfloat16(),
        "f" * 64: torch.tensor([[0.1], [float(2**-14)], [-1.0]], dtype=torch.float16),
        "0" * 64: torch.tensor([1.5, -0.0, 3e38]),
    }
    shard = write_shard(storage, recipe=RECIPE.digest, block="b" * 64, keys=KEYS, features=rows)
    data = storage.read(shard_name(RECIPE.digest, shard.digest))
    assert int.from_bytes(data[:8], "little") % 64 == 56
    assert shard == Shard(digest="", size_bytes=0, num_rows=3)
    assert bytes_digest(data) == shard.digest
    assert read_shard_header(storage, shard_name(RECIPE.digest, shard.digest)).features == tuple(sorted(rows))


def test_a_datasets_bytes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    dataset = Dataset(
        samples=(
            Sample(key=KEYS[0], uri="a/ä.png", source=0, label="cat", split="train"),
            Sample(key=KEYS[1], uri="s.tar#b.jpg", source=1, label=-7, caption="ein Hund", group="g"),
            Sample(key=KEYS[0], uri="c.png", source=1),
        ),
        unreadable=(Unreadable(uri="d.png", source=1, reason="gone", permanent=False),),
    )
    assert publish_dataset(storage, dataset) == ""
    assert storage.size(dataset_name(dataset.digest)) == 0
    assert read_dataset(storage, dataset.digest) == dataset
    assert Dataset(samples=()).digest == ""


def test_a_plans_bytes() -> None:
    plan = Plan(recipe=RECIPE.digest, features=(FEATURE.digest,), keys=KEYS, rows_per_block=2)
    assert bytes_digest(b"".join(plan.parts())) == ""
    assert [block.id for block in plan.blocks()] == []


def test_a_manifests_document() -> None:
    manifest = Manifest(
        recipe=RECIPE.digest,
        block="b" * 64,
        attempt=0,
        features=(FEATURE.digest,),
        shards=(Shard(digest="a" * 64, size_bytes=1000, num_rows=2),),
        failures=(Failure(key=KEYS[2], stage="decode", reason="the file is empty", permanent=True),),
        provenance={"created": "not hashed"},
    )
    assert document_digest(manifest.document) == ""
