"""Golden digests and bytes of schema 0: a change here makes every cache that exists useless, so none is by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fovcache.builder.plan import Plan
from fovcache.builder.request import EncoderRequest, resolve
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
    "recipe": (RECIPE.digest, "fca8a0e0090730ab098871e107806bd0b86931070195a1710d98cd6612ed2277"),
    "recipe with defaults": (
        Recipe(input={}, extractor={}).digest,
        "4ea570294999617658ae4c87880a7da2b1d88221e8a66d963c0ad9a1481149a1",
    ),
    "feature": (FEATURE.digest, "88e0b2a96774145159c85fce4ae80eb781846537ec2b2683daa884e69f35bfa1"),
    "range of a sample": (
        sample_key(KEYS[0], 0.5, 2.0),
        "9844b76ef071d346a1e4936712e5dd3523dc2e8462f17b1b5efdd1b686cf1272",
    ),
    "open range of a sample": (
        sample_key(KEYS[0], 0.5),
        "e9bbac94167323f625fb31563fb19810dca386b36cb2a6166fa0382410a73d3b",
    ),
    "frames as they are": (
        document_digest(FrameInput().document()),
        "8242fa36d4e065cf81176d84f620c136b489aa0dc3b7b02ea98cdbd4f0eb43b0",
    ),
    "frames at a size": (
        document_digest(FrameInput(size=224, mean=(0.5, 0.5, 0.5)).document()),
        "b1ca8483029e26fce00204df66bc3f1b043c53566b06117b96769a841dcaf95d",
    ),
    "block": (
        block_id(RECIPE.digest, [FEATURE.digest], keys_array(KEYS).tobytes(), 1),
        "1a3e48be61eedd088f72ab070b73cf6a50e74b7f39d3e3afb2e69e27e5e99c9c",
    ),
}


@pytest.mark.parametrize(("digest", "golden"), GOLDEN.values(), ids=GOLDEN.keys())
def test_keys(digest: str, golden: str) -> None:
    assert digest == golden


def test_the_key_of_pixels() -> None:
    resolved = resolve(EncoderRequest(encoder="pixels", layers=("*",))).each[0]
    assert resolved.recipe.digest == "85429c63e1ec18fa77d3691324914e14a33937e508386b8865d5e8015cae0235"
    assert [feature.digest for feature in resolved.features] == [
        "90c365e1a8629f7092e0f964d3a7d79e10dda6a8845073e9a75f44186f0df94b",
        "e9712edb1bdd2b55b69632f689cda4115bc92389acaf2e047553a38098464b32",
    ]


def test_the_source_of_a_file_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "encoder.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    assert source_digests(tmp_path / "encoder.py") == {
        "encoder.py": "6db93caeb5398f383de82157fc7c750742f1ef2cccc578fbcf7bf0c02b698626",
        "helper": "3ceae248eacaf486357192011806a5bf7ebc58462f64e88fa1ddffd9be3cda4b",
    }


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
    assert shard == Shard(
        digest="f7ba24c2c1defb8b64d3cabba1eadc8f423ad50702d93cefcec877f186c37f99", size_bytes=1290, num_rows=3
    )
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
    assert publish_dataset(storage, dataset) == "0c57f3d07975c13491e09496ee1aede2df06bd1fa7a1d07951b13f9fc3e992d9"
    assert storage.size(dataset_name(dataset.digest)) == 2045
    assert read_dataset(storage, dataset.digest) == dataset
    assert Dataset(samples=()).digest == "fa5f2db0dd95d0b35241b8d46ef4a454c43ab66c911cdb952fc5a74261d41d73"


def test_a_plans_bytes() -> None:
    plan = Plan(recipe=RECIPE.digest, features=(FEATURE.digest,), keys=KEYS, rows_per_block=2)
    assert bytes_digest(b"".join(plan.parts())) == "088167d40ab07b8e974ad29ea47721edbd454bf8a5ba3c623f1dc9fab38cc5fb"
    assert [block.id for block in plan.blocks()] == [
        "a455864b9c7ed251cf9198468f714a2e9804da46c11728ef07fbd623b4f7c0e4",
        "78f2fe0c5240fd0a11427feb02adbfa91199d45c19c679d6e4eefe5b53915921",
    ]


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
    assert document_digest(manifest.document) == "6c5072a632c2b2269df3e48de2fca721ceddad6f915361dd975e698172a5e26c"
