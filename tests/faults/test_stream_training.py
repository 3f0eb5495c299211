"""Training from a source that does not fit the disk: many tar shards on a server, and a window that holds a few."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fault_server import FaultServer
from remote_builds import picture, shard_of

import fovcache
from fovcache.errors import DamageError, SelectionError, UsageError
from fovcache.probes.train.config import DataChoice, InputChoice, TrainConfig
from fovcache.probes.train.feed import FeedBatch
from fovcache.probes.train.feeds.kinds import open_feed
from fovcache.probes.train.feeds.stream import StreamFeed
from fovcache.probes.train.recipe import standard
from fovcache.probes.train.run import train_run
from fovcache.trainable import FEATURES, LABELS, Need

NUM_SHARDS, OF_SHARD = 12, 20
WINDOW_BYTES = 1_800_000
NEEDS = {"x": Need(kind=FEATURES, what="pixels"), "y": Need(kind=LABELS, what="labels")}
SETTINGS = standard(
    samples=NUM_SHARDS * OF_SHARD,
    batch_size=16,
    learning_rate=0.1,
    warmup_samples=0,
    evaluate_every=1000,
    validation_samples=10,
    checkpoint_every=1000,
    keep=1,
)
Open = Callable[..., StreamFeed]


def members(numbers: range) -> dict[str, bytes]:
    """Pictures of 32 × 32 with labels: of each the next of four."""
    found = {}
    for number in numbers:
        found |= {f"{number:04d}.png": picture(number, 32), f"{number:04d}.cls": str(number % 4).encode()}
    return found


@pytest.fixture
def served(fault_server: FaultServer) -> str:
    """The shards' URL with a brace range."""
    for shard in range(NUM_SHARDS):
        fault_server.put(f"/{shard:02d}.tar", shard_of(members(range(shard * OF_SHARD, (shard + 1) * OF_SHARD))))
    return f"{fault_server.url}/{{00..{NUM_SHARDS - 1}}}.tar"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(sources, folder="run", …)`: a stream beside a validation set of ten pictures; closed afterwards."""
    (tmp_path / "validation.tar").write_bytes(shard_of(members(range(9000, 9010))))
    cache = fovcache.open(tmp_path / "cache")
    cache.build(
        str(tmp_path / "validation.tar"),
        encoder="pixels",
        layers=["pixels"],
        pool="tokens",
        size=32,
        store_dtype="fp32",
        dataset="validation",
    )
    feeds = []

    def opened(*sources: str, folder: str = "run", seed: int = 0, **data: object) -> StreamFeed:
        choice = DataChoice(kind="stream", sources=sources, **{"window_gb": WINDOW_BYTES / 1e9, **data})
        config = TrainConfig(
            cache="cache", folder=tmp_path, kind="projection", data=choice, train=SETTINGS, inputs={"x": InputChoice()}
        )
        feed = open_feed(config, NEEDS, seed=seed, device=torch.device("cpu"), folder=tmp_path / folder)
        assert isinstance(feed, StreamFeed)
        feeds.append(feed)
        return feed

    yield opened
    for feed in feeds:
        feed.close()


def keys(batches: list[FeedBatch]) -> list[bytes]:
    return [key.tobytes() for batch in batches for key in batch.keys]


def take(batches: Iterator[FeedBatch], steps: int) -> list[FeedBatch]:
    return [next(batches) for _ in range(steps)]


def disk_bytes(folder: Path) -> int:
    total = 0
    for below, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += Path(below, file).lstat().st_blocks * 512
    return total


def test_the_bound_is_held_and_nothing_is_used_twice(opened: Open, served: str, tmp_path: Path) -> None:
    feed = opened(served)
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], disk_bytes(tmp_path / "run" / "window"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        batches = take(feed.train_batches(0), NUM_SHARDS * OF_SHARD // 16)
    finally:
        done.set()
        watcher.join()
    used = keys(batches)
    assert len(used) == len(set(used)) == NUM_SHARDS * OF_SHARD
    assert 0 < most[0] <= WINDOW_BYTES
    rows = NUM_SHARDS * OF_SHARD * 32 * 32 * 3 * 4
    assert rows > 1.5 * WINDOW_BYTES, "what was used would not have fitted"
    assert 0 < feed.peak_bytes <= WINDOW_BYTES


def test_rows_and_labels_are_those_of_a_build(opened: Open, served: str, tmp_path: Path) -> None:
    cache = fovcache.open(tmp_path / "whole")
    cache.build(served, encoder="pixels", layers=["pixels"], pool="tokens", size=32, store_dtype="fp32", dataset="all")
    features = cache.features()
    x, y = features.tensors()
    at = {key.tobytes(): position for position, key in enumerate(features.key_array)}
    for batch in take(opened(served).train_batches(0), 5):
        positions = [at[key.tobytes()] for key in batch.keys]
        assert torch.equal(batch.tensors["x"], x[positions])
        assert torch.equal(batch.tensors["y"], y[positions])


def test_the_order_follows_from_the_seed_and_resumes_anywhere(opened: Open, served: str) -> None:
    whole = keys(take(opened(served, folder="a").train_batches(0), 9))
    assert keys(take(opened(served, folder="b").train_batches(0), 9)) == whole
    assert keys(take(opened(served, folder="c", seed=1).train_batches(0), 9)) != whole
    for steps in (4,):
        feed = opened(served, folder=f"cut{steps}")
        batches = feed.train_batches(0)
        begun = keys(take(batches, steps))
        state = json.loads(json.dumps(feed.state()))
        take(batches, 2)  # what was given out after the checkpoint is given out again
        feed.close()
        again = opened(served, folder=f"cut{steps}")
        again.load_state(state)
        assert begun + keys(take(again.train_batches(16 * steps), 9 - steps)) == whole


def test_what_comes_again_or_validates_is_left_out(opened: Open, fault_server: FaultServer) -> None:
    fault_server.put("/a.tar", shard_of(members(range(20))))
    fault_server.put(
        "/b.tar", shard_of({**members(range(10, 20)), **members(range(9000, 9010)), **members(range(20, 44))})
    )
    feed = opened(f"{fault_server.url}/a.tar", f"{fault_server.url}/b.tar")
    with pytest.raises(UsageError, match=r"ended after 44 samples, and train\.samples is 240: .* at most 32"):
        take(feed.train_batches(0), 3)
    with pytest.raises(UsageError):
        list(feed.train_batches(0))
    assert "20 samples of the stream were left out: used before, or in validation" in feed.notes


def test_a_shard_that_is_damaged_or_gone_costs_its_samples_and_is_said(
    opened: Open, fault_server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    good = members(range(20))
    fault_server.put("/a.tar", shard_of({**good, "0003.png": b"\x89PNG\r\n\x1a\n but no more"}))
    fault_server.put("/b.tar", shard_of(members(range(20, 40))))
    feed = opened(f"{fault_server.url}/a.tar", f"{fault_server.url}/b.tar", shuffle_shards=False)
    assert len(set(keys(take(feed.train_batches(0), 2)))) == 32
    assert any("1 samples of the stream were left out: they failed" in note for note in feed.notes)
    assert "0003.png" in caplog.text


def test_a_shard_that_is_larger_than_the_window_is_told(opened: Open, fault_server: FaultServer) -> None:
    fault_server.put("/big.tar", shard_of(members(range(300))))
    with pytest.raises(UsageError, match=r"big\.tar.*raise window_gb"):
        take(opened(f"{fault_server.url}/big.tar").train_batches(0), 1)
    fault_server.put("/wide.tar", shard_of(members(range(85))))  # the file fits, its features do not
    with pytest.raises(UsageError, match=r"wide\.tar alone takes more than the 900000 bytes .* raise window_gb"):
        take(opened(f"{fault_server.url}/wide.tar", folder="other").train_batches(0), 1)


def test_names_for_labels_are_refused(opened: Open, fault_server: FaultServer) -> None:
    pictures = {name: data for name, data in members(range(20)).items() if name.endswith(".png")}
    labels = {name.replace("png", "json"): b'{"label": "cat"}' for name in pictures}
    fault_server.put("/a.tar", shard_of({**pictures, **labels}))
    with pytest.raises((SelectionError, UsageError), match="whole number"):
        take(opened(f"{fault_server.url}/a.tar").train_batches(0), 1)


def test_several_processes_are_refused(opened: Open, served: str, tmp_path: Path) -> None:
    feed = opened(served)
    with pytest.raises(UsageError, match="feeds one process, and there are 2"):
        open_feed(
            replace(feed._config), NEEDS, seed=0, device=torch.device("cpu"), num_ranks=2, folder=tmp_path / "other"
        )


def test_a_run_that_lost_its_end_is_taken_up_to_the_same_bits(opened: Open, served: str, tmp_path: Path) -> None:
    config = opened(served)._config
    settings = replace(SETTINGS, samples=192, checkpoint_every=64, evaluate_every=64, keep=9)
    config = replace(config, model={"target": "labels"}, inputs={}, train=settings, device="cpu")
    whole = train_run(config, tmp_path / "whole", seed=0)
    assert whole.state == "done"
    assert any("the window held at most" in event for event in whole.events)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    _, *later = sorted((tmp_path / "cut" / "checkpoints").iterdir())
    for folder in later:
        shutil.rmtree(folder)
    (tmp_path / "cut" / "run.json").unlink()
    again = train_run(config, tmp_path / "cut", seed=0, resume=True)
    assert (again.state, again.num_resumed, again.final) == ("done", 1, whole.final)
    name = f"checkpoints/{later[-1].name}/model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    used = (tmp_path / "cut" / "used-keys.bin").read_bytes()
    keys_used = [used[at : at + 32] for at in range(0, len(used), 32)]
    assert len(keys_used) == len(set(keys_used))


def test_what_comes_back_after_a_stop_does_not_change_what_is_used(opened: Open, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, data in members(range(40)).items():
        if name.endswith(".png"):
            (pictures / name).write_bytes(data)
    away = pictures / "0007.png"
    away.rename(tmp_path / "away.png")
    rows = [f"pictures/{number:04d}.png,{number % 4},{'test' if number == 3 else ''}" for number in range(40)]
    (tmp_path / "list.csv").write_text("\n".join(["uri,label,split", *rows]))
    feed = opened("list.csv")
    batches = feed.train_batches(0)
    begun = keys(take(batches, 1))
    state = json.loads(json.dumps(feed.state()))
    whole = begun + keys(take(batches, 1))
    assert "1 samples of the stream were left out: they failed" in feed.notes
    assert "1 samples of the stream were left out: of a split that is not 'train'" in feed.notes
    feed.close()
    (tmp_path / "away.png").rename(away)
    again = opened("list.csv")
    again.load_state(state)
    assert begun + keys(take(again.train_batches(16), 1)) == whole
    again.close()
    (pictures / "0011.png").unlink()
    shutil.rmtree(tmp_path / "run" / "window")
    lacking = opened("list.csv")
    lacking.load_state(state)
    with pytest.raises(DamageError, match=r"list\.csv has 1 of the 38 samples no more"):
        take(lacking.train_batches(16), 1)


def test_a_source_of_another_split_is_refused(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave the split out"):
        opened("test=validation.tar")
