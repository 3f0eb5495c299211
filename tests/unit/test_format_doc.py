"""docs/format.md is true: a reader written from it alone reads real caches, and its examples are what they claim."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from PIL import Image

import fovcache
from fovcache.keys.recipe import sample_key
from fovcache.store import layout
from fovcache.store.lease import hold_lease
from fovcache.store.storage import LocalStorage

ENCODER = """
import torch

class Net(torch.nn.Module):
    image_mean = (0.5, 0.25, 0.1)

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3)
        self.second = torch.nn.Conv2d(4, 6, 3)

    def forward(self, x):
        return self.second(self.first(x))

def make():
    return Net()
"""

# ---- The reader. It knows docs/format.md, JSON, numpy and BLAKE3, and nothing of fovcache. ----

_NUMPY = {"U8": "u1", "I32": "<i4", "I64": "<i8", "BF16": "<u2", "F16": "<f2", "F32": "<f4"}


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor (BF16 as uint16) and the metadata of a file that is named by its digest."""
    data = path.read_bytes()
    assert blake3(data).hexdigest() == path.stem, f"{path} is damaged"
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert (8 + length) % 64 == 0
    tensors, position = {}, 0
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        assert begin == position
        array = np.frombuffer(data[8 + length + begin : 8 + length + end], _NUMPY[header[name]["dtype"]])
        tensors[name], position = array.reshape(header[name]["shape"]), end
    assert 8 + length + position == len(data)
    return tensors, metadata


def read_keyed(path: Path) -> dict[str, Any]:
    assert blake3(path.read_bytes()).hexdigest() == path.stem, f"{path} is damaged"
    return json.loads(path.read_bytes())


def read_sealed(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    at = data.index(b'"digest":"')
    assert blake3(data[:at] + data[at + 76 :]).hexdigest() == json.loads(data)["digest"], f"{path} is damaged"
    return json.loads(data)


def read_texts(name: str, columns: dict[str, np.ndarray], n: int) -> list[str | None]:
    if f"{name}.ends" not in columns:
        return [None] * n
    text, ends = columns[f"{name}.utf8"].tobytes(), columns[f"{name}.ends"].tolist()
    valid = columns.get(f"{name}.valid", np.ones(n, np.uint8))
    return [text[a:b].decode() if ok else None for a, b, ok in zip([0, *ends], ends, valid, strict=False)]


def read_categories(name: str, columns: dict[str, np.ndarray], n: int) -> list[str | None]:
    codes = columns.get(f"{name}.code", np.full(n, -1)).tolist()
    values = read_texts(f"{name}.value", columns, len(columns.get(f"{name}.value.ends", ())))
    return [values[code] if code >= 0 else None for code in codes]


def read_dataset(cache: Path, name: str) -> dict[str, list[Any]]:
    ref = read_sealed(max((cache / "refs" / name).iterdir()))
    columns, _ = read_safetensors(cache / "datasets" / f"{ref['dataset']}.safetensors")
    n = len(columns["key"])
    texts = {field: read_texts(field, columns, n) for field in ("uri", "caption")}
    texts |= {field: read_categories(field, columns, n) for field in ("group", "split", "label")}
    if "label.int" in columns:
        flags, numbers = columns["label.is_int"], columns["label.int"].tolist()
        texts["label"] = [i if is_int else t for t, i, is_int in zip(texts["label"], numbers, flags, strict=True)]
    lost = read_texts("unreadable.uri", columns, len(columns.get("unreadable.source", ())))
    return {**texts, "key": [key.tobytes() for key in columns["key"]], "unreadable": lost}


def caption_key(caption: str | None) -> bytes:
    context = f"fovcache 2026-11 {'no ' if caption is None else ''}caption"
    return blake3((caption or "").encode(), derive_key_context=context).digest()


def read_feature(cache: Path, keys: list[bytes], **wanted: str) -> tuple[list[int], np.ndarray]:
    """Positions in `keys` that have a row, and the rows, of the one feature that fits."""
    assert json.loads((cache / "fovcache.json").read_bytes()) == {"format": "fovcache", "schema": 0}
    features = {path.stem: read_keyed(path) for path in (cache / "features").iterdir()}
    recipes = {path.stem: read_keyed(path) for path in (cache / "recipes").iterdir()}
    given = {name: recipes[document["recipe"]]["input"] for name, document in features.items()}
    kind, representation = wanted.pop("kind", "frames"), wanted.pop("representation", None)
    fitting = [name for name in features if wanted.items() <= features[name].items() and given[name]["kind"] == kind]
    if representation:
        fitting = [name for name in features if given[name].get("feature") in fitting]
        fitting = [name for name in fitting if recipes[features[name]["recipe"]]["extractor"]["name"] == representation]
    (feature,) = fitting
    document = features[feature]
    found: dict[bytes, np.ndarray] = {}
    for path in sorted((cache / "manifests" / document["recipe"]).glob("*.json")):
        manifest = read_sealed(path)
        for shard in manifest["shards"] if feature in manifest["features"] else ():
            tensors, _ = read_safetensors(cache / "shards" / document["recipe"] / f"{shard['digest']}.safetensors")
            for key, row in zip(tensors["keys"], tensors[feature], strict=True):
                found.setdefault(key.tobytes(), row)
    positions = [position for position, key in enumerate(keys) if key in found]
    return positions, np.stack([found[keys[position]] for position in positions])


# ---- End of the reader. ----


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> fovcache.Cache:
    """Three datasets, duplicates, a damaged image, a damaged archive, four kinds of features in several blocks."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "net.py").write_text(ENCODER)
    pngs = [_png(seed) for seed in range(12)]
    for number, png in enumerate(pngs[:8]):
        path = folder / "photos" / ("cät" if number % 3 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    _write_tar(folder / "shard.tar", pngs[6:])
    cache = fovcache.open(folder / "cache")
    asked = {"encoder": f"{folder / 'net.py'}:make", "weights": "random:0", "batch_size": 2, "num_workers": 2}
    photos, shard = f"train={folder / 'photos'}", str(folder / "shard.tar")
    cache.build(photos, **asked, layers=["first"], pool="tokens", dataset="photos", shard_bytes=1600)
    (folder / "photos" / "dog" / "twin.png").write_bytes(pngs[1])
    (folder / "photos" / "dog" / "torn.png").write_bytes(pngs[2][:200])
    cache.build(photos, **asked, layers=["first", "second"], pool="tokens", dataset="photos", shard_bytes=2048)
    cache.build(photos, **asked, layers=["second"], pool="mean", store_dtype="fp32", dataset="photos")
    cache.build(shard, **asked, layers=["*"], pool="tokens", store_dtype="fp16", dataset="tar")
    cache.build(shard, encoder="bytes", dataset="tar")
    cache.build([photos, shard], **asked, layers=["first"], pool="tokens", dataset="mixed")
    for dtype in ("bf16", "fp32"):
        features = cache.features(dataset="photos", layer="second", store_dtype=dtype)
        cache.derive(features, "spectral", method="exact")
    return cache


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_tar(path: Path, pngs: list[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, png in enumerate(pngs):
            members = {"png": png, "cls": str(number * 10**15 - 3).encode()}
            members |= {"txt": "a cäption".encode()} if number % 2 else {}
            members |= {"json": b'{"group": "g", "split": "test"}'} if number == 2 else {}
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[:-9000])  # the archive's end is lost


@pytest.fixture(scope="module")
def doc(root: Path) -> str:
    return (root / "docs" / "format.md").read_text()


@pytest.mark.parametrize(
    ("dataset", "layer", "pool", "dtype"),
    [
        ("photos", "first", "tokens", "bf16"),
        ("photos", "second", "tokens", "bf16"),
        ("photos", "second", "mean", "fp32"),
        ("tar", "first", "tokens", "fp16"),
        ("tar", "second", "tokens", "fp16"),
    ],
)
def test_a_reader_written_from_the_doc_reads_the_same_rows(
    cache: fovcache.Cache, dataset: str, layer: str, pool: str, dtype: str
) -> None:
    expected = cache.features(dataset=dataset, layer=layer, pool=pool, store_dtype=dtype)
    samples = read_dataset(cache.storage.root, dataset)
    positions, rows = read_feature(cache.storage.root, samples["key"], layer=layer, pool=pool, dtype=dtype)
    assert [samples["key"][position].hex() for position in positions] == expected.keys
    x, y = expected.tensors()
    assert rows.shape == tuple(x.shape)
    assert rows.tobytes() == x.view(torch.uint16 if rows.itemsize == 2 else torch.uint32).numpy().tobytes()
    assert len(samples["key"]) - len(positions) == expected.num_failed
    labels = [samples["label"][position] for position in positions]
    classes = sorted(set(samples["label"]))
    assert y.tolist() == (labels if dataset == "tar" else [classes.index(label) for label in labels])


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_reader_written_from_the_doc_reads_what_is_derived(cache: fovcache.Cache, dtype: str) -> None:
    wanted = {"layer": "second", "representation": "spectral"}
    expected = cache.features(dataset="photos", store_dtype=dtype, **wanted)
    keys = read_dataset(cache.storage.root, "photos")["key"]
    positions, rows = read_feature(cache.storage.root, keys, dtype=dtype, **wanted)
    assert [keys[position].hex() for position in positions] == expected.keys
    assert rows.tobytes() == expected.tensors()[0].numpy().tobytes()
    assert rows.shape == (len(keys) - 1, 32)  # one is torn


def test_a_reader_written_from_the_doc_reads_captions(cache: fovcache.Cache, doc: str) -> None:
    keys = [caption_key(caption) for caption in read_dataset(cache.storage.root, "tar")["caption"]]
    _, rows = read_feature(cache.storage.root, keys, kind="caption", layer="ids", dtype="int32")
    texts = [bytes(row[: row.tolist().index(256)].tolist()).decode() for row in rows]
    assert texts == cache.features(dataset="tar", layer="ids").captions
    assert f"of `clip` it is\n`{caption_key('clip').hex()}`" in doc


@pytest.mark.parametrize(("dataset", "dtype"), [("photos", "bf16"), ("tar", "fp16"), ("mixed", "bf16")])
def test_a_reader_written_from_the_doc_reads_the_same_samples(cache: fovcache.Cache, dataset: str, dtype: str) -> None:
    expected = cache.features(dataset=dataset, layer="first", pool="tokens", store_dtype=dtype).samples
    samples = read_dataset(cache.storage.root, dataset)
    positions, _ = read_feature(cache.storage.root, samples["key"], layer="first", pool="tokens", dtype=dtype)
    for field in ("uri", "caption", "group", "split", "label"):
        assert [samples[field][position] for position in positions] == [getattr(s, field) for s in expected], field
    assert len(samples["unreadable"]) == (dataset != "photos")


def test_the_cache_that_is_read_has_what_makes_reading_hard(cache: fovcache.Cache) -> None:
    root = cache.storage.root
    manifests = [read_sealed(path) for path in (root / "manifests").glob("*/*.json")]
    assert any(manifest["failures"] for manifest in manifests)
    assert len(manifests) > 5
    assert len(list((root / "refs" / "photos").iterdir())) > 1
    keys = read_dataset(root, "photos")["key"]
    assert len(set(keys)) < len(keys)
    assert {type(label) for label in read_dataset(root, "mixed")["label"]} == {int, str}
    assert {type(text) for text in read_dataset(root, "mixed")["caption"]} == {type(None), str}


def test_every_file_of_a_cache_is_in_the_doc(cache: fovcache.Cache, doc: str) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", doc[doc.index("## Files") : doc.index("## safetensors files")], re.MULTILINE)
    patterns = [re.compile(re.sub(r"[A-Z]+", "[^/]+", re.escape(row))) for row in rows]
    files = [
        path.relative_to(cache.storage.root).as_posix() for path in cache.storage.root.rglob("*") if path.is_file()
    ]
    assert {name.partition("/")[0] for name in files} >= {"fovcache.json", "shards", "manifests", "datasets", "refs"}
    for name in files:
        assert any(pattern.fullmatch(name) for pattern in patterns), name


def test_every_name_of_the_layout_is_in_the_doc(doc: str) -> None:
    listed = re.findall(r"^(\S+)   ", layout.__doc__ or "", re.MULTILINE)
    constants = [value for name, value in vars(layout).items() if name.isupper()]
    assert len(listed) > 10
    for name in [*listed, *constants]:
        assert name.split("/")[0] in doc, name
    for name in listed:
        if "/" in name and not name.endswith("/"):
            assert f"`{name}`" in doc, name


def test_a_leases_fields_are_in_the_doc(doc: str, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with hold_lease(storage, "work"):
        (path,) = (tmp_path / "leases").iterdir()
        assert path.stem == storage.owner
        for field in json.loads(path.read_text()):
            assert f"`{field}`" in doc, field


def test_the_documents_examples_are_named_by_their_digests(doc: str) -> None:
    recipe, feature, header, manifest, derived, ref = _examples(doc)
    assert f"`recipes/{_digest(recipe)}.json`" in doc
    assert f"`recipes/{_digest(derived)}.json`" in doc
    assert derived["input"]["feature"] == _digest(feature)
    of_derived = {**feature, "recipe": _digest(derived), "pool": "tokens", "dtype": "fp32"}
    assert f"`features/{_digest(of_derived)}.json`" in doc
    assert f"`features/{_digest(feature)}.json`" in doc
    for sealed in (manifest, ref):
        assert _digest({key: value for key, value in sealed.items() if key != "digest"}) == sealed["digest"]
    assert f"refs/{ref['name']}/{int(ref['created_ns']):020d}-{ref['dataset'][:16]}.json" in doc
    assert feature["recipe"] == manifest["recipe"] == header["__metadata__"]["recipe"] == _digest(recipe)
    assert _digest(feature) in manifest["features"]
    assert set(header) == {*manifest["features"], "__metadata__", "keys"}
    assert header["__metadata__"]["block"] == manifest["block"]
    assert header["keys"]["data_offsets"][1] + 1216 == manifest["shards"][0]["size_bytes"]
    assert f"shards/{_digest(recipe)}/{manifest['shards'][0]['digest']}.safetensors" in doc


def test_the_documents_examples_have_the_fields_of_a_real_cache(cache: fovcache.Cache, doc: str) -> None:
    root = cache.storage.root
    recipe, feature, header, manifest, derived, ref = _examples(doc)
    real = [read_sealed(path) for path in (root / "manifests").glob("*/*.json")]
    real_manifest = next(each for each in real if each["shards"] and "encoder" in each["provenance"]["request"])
    real_derived = next(each for each in real if "encoder" not in each["provenance"]["request"])
    assert _fields(read_keyed(root / "recipes" / f"{real_derived['recipe']}.json")) == _fields(derived)
    assert set(real_derived["provenance"]["request"]) == {"input", "layer", "extractor"}
    assert real_derived["provenance"]["numerics"]["input"] == real_manifest["provenance"]["numerics"]
    shard = root / "shards" / real_manifest["recipe"] / f"{real_manifest['shards'][0]['digest']}.safetensors"
    metadata = read_safetensors(shard)[1]
    real_recipe = read_keyed(root / "recipes" / f"{real_manifest['recipe']}.json")
    for real in (real_recipe, recipe):
        real["extractor"]["source"] = None  # by file name
    assert _fields(real_recipe) == _fields(recipe)
    assert _fields(read_keyed(next((root / "features").iterdir()))) == _fields(feature)
    assert _fields({**real_manifest, "failures": []}) == _fields(manifest)
    assert _fields(read_sealed(next((root / "refs" / "tar").iterdir()))) == _fields(ref)
    assert {"blake3", *header["__metadata__"]} == set(metadata)


def test_block_ids_and_checksums_are_as_the_doc_says(cache: fovcache.Cache) -> None:
    root = cache.storage.root
    checked = 0
    for path in (root / "manifests").glob("*/*.json"):
        manifest = read_sealed(path)
        for shard in manifest["shards"]:
            name = root / "shards" / manifest["recipe"] / f"{shard['digest']}.safetensors"
            tensors, metadata = read_safetensors(name)
            checksums = json.loads(metadata["blake3"])
            assert checksums == {key: blake3(value.tobytes()).hexdigest() for key, value in tensors.items()}
            assert (metadata["block"], shard["num_rows"]) == (manifest["block"], len(tensors["keys"]))
            assert name.stat().st_size == shard["size_bytes"]
        if len(manifest["shards"]) == 1 and not manifest["failures"]:
            keys = blake3(tensors["keys"].tobytes()).hexdigest()
            fields = {name: manifest[name] for name in ("schema", "recipe", "features", "attempt")}
            assert _digest({"kind": "block", "keys": keys, **fields}) == manifest["block"] == path.stem
            checked += 1
    assert checked > 3


def test_a_derived_block_holds_a_shard_of_its_input_as_the_doc_says(cache: fovcache.Cache) -> None:
    root = cache.storage.root
    manifests = [read_sealed(path) for path in (root / "manifests").glob("*/*.json")]
    derived = [each for each in manifests if "extractor" in each["provenance"]["request"]]
    assert len(derived) >= 3
    for manifest in derived:
        keys, given = [], manifest["provenance"]["request"]["input"]
        for source in (each for each in manifests if given in each["features"]):
            for shard in source["shards"]:
                path = root / "shards" / source["recipe"] / f"{shard['digest']}.safetensors"
                keys.append(read_safetensors(path)[0]["keys"].tobytes())
        fields = {name: manifest[name] for name in ("schema", "recipe", "features")}
        identities = [_digest({"kind": "block", "keys": blake3(k).hexdigest(), "attempt": 0, **fields}) for k in keys]
        assert manifest["block"] in identities


def test_the_index_is_as_the_doc_says(cache: fovcache.Cache) -> None:
    for path in (cache.storage.root / "index").iterdir():
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        manifests = sorted((cache.storage.root / "manifests" / path.stem).glob("*.json"))
        shards = [shard["digest"] for name in manifests for shard in read_sealed(name)["shards"]]
        assert metadata["shards"] == blake3("".join(shards).encode()).hexdigest()
        assert metadata["blake3"] == blake3(data[8 + length :]).hexdigest()


def test_the_key_of_a_range_is_as_the_doc_says(doc: str) -> None:
    text = re.search(r"```\n(fovcache range\n\{.*\})\n```", doc)
    assert text is not None
    content = blake3(b"clip").hexdigest()
    key = blake3(text[1].encode()).hexdigest()
    assert f"`{key}`" in doc
    assert key == sample_key(content, 1.5, 4.0)
    assert sample_key(content) == content


def _examples(doc: str) -> list[dict[str, Any]]:
    """The JSON examples in their order: recipe, feature, shard header, manifest, derived recipe, ref."""
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", doc, re.DOTALL)]


def _digest(document: Any) -> str:
    """Right for documents without exotic numbers."""
    return blake3(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _fields(document: Any) -> Any:
    """A document with every value replaced by null, so that only its fields are compared."""
    if isinstance(document, dict):
        return {name: _fields(value) for name, value in document.items()}
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return [_fields(document[0])]
    return None
