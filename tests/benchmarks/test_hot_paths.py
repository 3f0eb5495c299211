"""What is done once for each sample, file or document, without torch: the suite that shows in a second a process."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.decode.sampling import Sampling
from fovcache.extract.layers import select_layers
from fovcache.keys.digest import document_digest
from fovcache.keys.recipe import Feature, differences
from fovcache.loaders.order import epoch_order
from fovcache.sources.listing import list_sources
from fovcache.sources.manifest import read_manifest
from fovcache.sources.spec import parse_source
from fovcache.sources.tar_shards import read_tar
from fovcache.store.documents import sealed, unseal

SUFFIXES = frozenset([".png"])
NUM_FILES = 16
NUM_MEMBERS = 3
LAYERS = ["embed", *(f"blocks.{number}" for number in range(8)), "norm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number in range(NUM_FILES):
        (folder / f"{number}.png").write_bytes(number.to_bytes(64))
    return folder


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shard") / "shard.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(NUM_MEMBERS):
            for suffix, data in ((".png", number.to_bytes(64)), (".cls", b"7")):
                member = tarfile.TarInfo(f"{number}{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def _write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "label", "caption", "split"])
        rows.writerows([f"{number}.png", number % 10, f"sample {number}", "train"] for number in range(NUM_FILES))


def _write_jsonl(path: Path) -> None:
    rows = (
        {"uri": f"{number}.png", "label": number % 10, "caption": f"sample {number}"} for number in range(NUM_FILES)
    )
    path.write_text("\n".join(map(json.dumps, rows)))


def test_list_a_folder(benchmark: BenchmarkFixture, folder: Path) -> None:
    specs = (parse_source(str(folder)),)
    assert len(benchmark(lambda: list_sources(specs, SUFFIXES).entries)) == NUM_FILES


def test_read_a_tar_shard(benchmark: BenchmarkFixture, shard: Path) -> None:
    entries = benchmark(read_tar, shard, SUFFIXES)
    assert [entry.fields for entry in entries] == [{"label": 7}] * NUM_MEMBERS


@pytest.mark.parametrize(("suffix", "write"), [(".csv", _write_csv), (".jsonl", _write_jsonl)], ids=["csv", "jsonl"])
def test_read_a_manifest(
    benchmark: BenchmarkFixture, tmp_path: Path, suffix: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / f"manifest{suffix}"
    write(path)
    entries = benchmark(lambda: list(read_manifest(path, 0, None)))
    assert len(entries) == NUM_FILES
    assert not any(entry.fault for entry in entries)


def test_digest_a_document(benchmark: BenchmarkFixture) -> None:
    document = {name: {"mean": [0.485, 0.456, 0.406], "size": 224, "text": "x" * 32} for name in LAYERS}
    assert len(benchmark(document_digest, document)) == 64


def test_seal_a_document(benchmark: BenchmarkFixture) -> None:
    document = {"rows": [{"key": f"{number:064x}", "row": number} for number in range(10)]}
    assert benchmark(lambda: unseal(sealed(document), "document")) == document


def test_compare_features(benchmark: BenchmarkFixture) -> None:
    documents = [Feature(recipe="r" * 64, layer=layer, pool="cls").document for layer in LAYERS]
    found = benchmark(lambda: [differences(documents[0], document) for document in documents])
    assert [len(each) for each in found] == [0] + [1] * (len(LAYERS) - 1)


def test_select_layers(benchmark: BenchmarkFixture) -> None:
    assert benchmark(select_layers, ["blocks.*", "norm"], LAYERS) == tuple(LAYERS[1:])


def test_choose_frames(benchmark: BenchmarkFixture) -> None:
    times_s = np.arange(300) / 30
    by_count, by_rate = Sampling(num_frames=8), Sampling(num_frames=None, fps=2)
    found = benchmark(lambda: [len(each.positions(times_s, 10.0)) for each in (by_count, by_rate)])
    assert found == [8, 20]


def test_order_an_epoch(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(epoch_order, 5000, seed=0, epoch=1)) == 5000
