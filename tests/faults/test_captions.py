"""Captions under faults: builds that are killed, servers, the hub."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from remote_builds import Remote, picture, shard_of
from tokenizer_files import save_tokenizer

from fovcache.errors import UsageError
from fovcache.extract.extractor import resolve_extractor

KILLED = """
import os, signal, sys
from fovcache.builder import blocks
from fovcache.cli import main
left, publish = [int(os.environ["KILLED_AT"])], blocks.publish_manifest
def killed(storage, manifest):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(storage, manifest)
blocks.publish_manifest = killed
main()
"""
NUM = 400


def texts(features: Any) -> list[str]:
    return [bytes(number for number in row if 0 <= number < 256).decode() for row in features.padded().tolist()]


@pytest.fixture
def source(lab: Any) -> Path:
    """400 captions of three images, one of which has none."""
    lab.pictures(3)
    with (lab.folder / "some.csv").open("w", newline="") as file:
        rows = [(f"src/{number % 3:03d}.png", f"{number} " * (1 + number % 9)) for number in range(NUM)]
        rows[77] = (rows[77][0], "")
        csv.writer(file).writerows([("uri", "caption"), *rows])
    return Path(lab.folder / "some.csv")


@pytest.mark.parametrize("killed_at", [0, 3])
def test_a_killed_build_resumes_bit_identical(lab: Any, source: Path, killed_at: int) -> None:
    def args(cache: str) -> list[str]:
        asked = ("--encoder", "bytes", "--layers", "ids", "--pool", "tokens", "--json", "-")
        return list(lab.build_args(source, lab.folder / cache, *asked))

    whole = lab.run(*args("whole")).json
    assert (whole["computed"], whole["failed"]) == (NUM - 1, 1)
    assert len(lab.files(lab.folder / "whole", "manifests")) > 4
    environment = {**os.environ, "KILLED_AT": str(killed_at)}
    done = subprocess.run([sys.executable, "-c", KILLED, *args("cache")], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(lab.files(lab.folder / "cache", "manifests")) == killed_at
    assert len(lab.files(lab.folder / "cache", "plans")) > 0
    resumed = lab.run(*args("cache")).json
    assert (0 < resumed["computed"] <= NUM - 1, resumed["failed"]) == (True, 1)
    assert lab.contents(lab.folder / "cache") == lab.contents(lab.folder / "whole")
    assert lab.leftovers(lab.folder / "cache") == []


def test_captions_of_urls_come_without_their_files(remote: Remote) -> None:
    remote.put({f"/{number}.png": picture(number) for number in range(4)})
    path = remote.folder / "some.jsonl"
    captions = ["a", "b", "a", None]
    rows = [{"uri": f"{remote.server.url}/{number}.png", "caption": text} for number, text in enumerate(captions)]
    path.write_text("\n".join(map(json.dumps, rows)))
    asked = {"encoder": "bytes", "layers": (), "pool": None}
    report = remote.build(str(path), **asked)
    assert (report.samples, report.computed, report.reused, report.failed) == (4, 2, 1, 1)
    assert texts(remote.cache.features(layer="ids")) == ["a", "b", "a"]
    sent_bytes = remote.server.counts.body_bytes
    again = remote.build(str(path), **asked)
    assert (again.computed, again.failed) == (0, 1)
    rows[1]["caption"] = "changed"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert remote.build(str(path), **asked).computed == 1
    assert remote.server.counts.body_bytes == sent_bytes
    assert texts(remote.cache.features(layer="ids")) == ["a", "changed", "a"]


def test_captions_of_tar_shards_at_urls_make_one_block(remote: Remote) -> None:
    members = [{f"{n}{m}.png": picture(9 * n + m) for m in range(3)} for n in range(4)]
    annotated = [{**own, **{f"{name[:-4]}.txt": f"of {name}".encode() for name in own}} for own in members]
    remote.put({f"/{number}.tar": shard_of(dict(sorted(own.items()))) for number, own in enumerate(annotated)})
    source = remote.urls([f"/{number}.tar" for number in range(4)])
    report = remote.build(source, encoder=["pixels", "bytes"], layers=(), pool=None)
    assert (report.samples, report.computed, report.failed) == (12, 12, 0)
    features = remote.cache.features(layer="ids")
    assert texts(features) == features.captions == [f"of {name}" for own in members for name in own]
    manifests = list(remote.cache.storage.list(f"manifests/{features.feature.recipe}"))
    assert len(manifests) == 1


def test_urls_that_can_have_no_caption_are_refused_and_tar_shards_that_have_none_fail(remote: Remote) -> None:
    remote.put({"/a.png": picture(0), "/b.tar": shard_of({"b.png": picture(1)})})
    asked = {"encoder": "bytes", "layers": (), "pool": None}
    with pytest.raises(UsageError, match="bytes reads captions, and none of 1 samples has one"):
        remote.build(remote.urls(["/a.png"]), **asked)
    assert remote.server.num_connections == 0
    report = remote.build(remote.urls(["/b.tar"]), **asked)
    assert [(each.stage, each.reason) for each in report.failures] == [("fetch", "it has no caption")]


def test_a_tokenizer_of_the_hub_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tokenizer(tmp_path / "tokenizer")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = HubServer({"team/words": {**files, "model.safetensors": b"large", "README.md": b"about it"}})
    program = (
        "import sys\n"
        "from fovcache.extract.extractor import resolve_extractor\n"
        "print([resolve_extractor('tokens', 'team/words').identity()['weights']['digest'] for _ in range(2)][0])\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": server.url}
    try:
        first = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    finally:
        server.close()
    expected = resolve_extractor("tokens", str(folder)).identity()["weights"]["digest"]
    assert (first.stdout.strip(), first.stderr) == (expected, "")
    assert not [path for path in server.requests if "model.safetensors" in path or "README" in path]
    again = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert again.stdout.strip() == expected
