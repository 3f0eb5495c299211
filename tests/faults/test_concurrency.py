"""Several processes on one cache: builders beside builders, and beside the collection of garbage."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import fovcache

NUM_SAMPLES = 50


@pytest.fixture(scope="module")
def source(shared_lab: Any) -> Path:
    return Path(shared_lab.pictures(NUM_SAMPLES))


@pytest.fixture(scope="module")
def rows(shared_lab: Any, source: Path) -> torch.Tensor:
    """The rows of one builder alone."""
    cache = shared_lab.folder / "alone"
    shared_lab.build(source, cache)
    return fovcache.open(cache).features().tensors()[0]


def keys_of_shards(lab: Any, cache: Path) -> Counter[bytes]:
    """How often each sample has a row in a shard that a manifest names."""
    from fovcache.store.index import open_index
    from fovcache.store.storage import LocalStorage

    storage = LocalStorage(cache)
    (recipe,) = {name.split("/")[1] for name in lab.files(cache, "manifests")}
    index = open_index(storage, recipe)
    return Counter(key.tobytes() for key in index._keys)


@pytest.mark.parametrize("repetition", range(3))
def test_three_builders_at_once_share_the_work_and_all_succeed(
    shared_lab: Any, forks: Any, source: Path, rows: torch.Tensor, tmp_path: Path, repetition: int
) -> None:
    cache = tmp_path / "cache"
    args = shared_lab.build_args(source, cache, "--json", "-")
    running = [forks.start(*args, environ={"FORWARD_WAIT_S": "0.01"}) for _ in range(3)]
    done = [forks.finish(pid) for pid in running]
    assert [(one.status, one.errors) for one in done] == [(0, [])] * 3
    assert sum(one.json["computed"] for one in done) == NUM_SAMPLES
    assert len({one.json["dataset"] for one in done}) == 1
    assert set(keys_of_shards(shared_lab, cache).values()) == {1}
    features = fovcache.open(cache).features()
    assert features.num_failed == 0
    assert torch.equal(features.tensors()[0], rows)
    assert shared_lab.leftovers(cache) == []
    assert shared_lab.damage(cache) == []
    assert shared_lab.build(source, cache)["computed"] == 0


def test_builders_of_different_layers_and_sources_do_not_disturb_each_other(
    shared_lab: Any, forks: Any, source: Path, rows: torch.Tensor, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    other = shared_lab.pictures(20, seed=3, name="other")
    orders = [(source, "conv"), (source, "head"), (other, "conv,head"), (source, "conv,head")]
    running = [
        forks.start(*shared_lab.build_args(where, cache, "--layers", layers), environ={"FORWARD_WAIT_S": "0.005"})
        for where, layers in orders
    ]
    assert [forks.finish(pid).status for pid in running] == [0] * 4
    opened = fovcache.open(cache)
    assert torch.equal(opened.features(dataset=source.name, layer="conv").tensors()[0], rows)
    assert len(opened.features(dataset="other", layer="head")) == 20
    assert shared_lab.leftovers(cache) == []
    assert shared_lab.damage(cache) == []


def test_garbage_collection_beside_a_builder_takes_nothing_that_it_is_writing(
    shared_lab: Any, forks: Any, source: Path, rows: torch.Tensor, gate: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    pid = forks.start(*shared_lab.build_args(source, cache), environ=gate.environ)
    collect = ("gc", "--cache", cache, "--grace-hours", 0, "--json", "-")
    for passes in (0, 1, 5):
        gate.open(passes)
        shared_lab.wait_for(lambda passes=passes: len(shared_lab.files(cache, "manifests")) == passes, "manifests")
        shared_lab.wait_for(lambda: shared_lab.files(cache, "plans"), "the plan")
        kept = shared_lab.run(*collect).json
        assert kept["removed"] == []
        assert kept["kept_young"] >= passes
    gate.open()
    while shared_lab.files(cache, "leases"):
        assert shared_lab.run(*collect).json["removed"] == []
    assert forks.finish(pid).status == 0
    assert torch.equal(fovcache.open(cache).features().tensors()[0], rows)
    assert shared_lab.damage(cache) == []
    assert shared_lab.leftovers(cache) == []


def test_a_collection_beside_a_builder_keeps_documents_that_an_earlier_build_wrote(
    shared_lab: Any, forks: Any, source: Path, gate: Any, tmp_path: Path
) -> None:
    """The builder finds its recipe's document there, and does not write it again."""
    cache = tmp_path / "cache"
    shared_lab.build(shared_lab.pictures(4, seed=5, name="few"), cache)
    pid = forks.start(*shared_lab.build_args(source, cache), environ=gate.environ)
    shared_lab.wait_for(lambda: shared_lab.files(cache, "plans"), "the plan")
    collected = shared_lab.run("gc", "--cache", cache, "--grace-hours", 0, "--drop", "few")
    gate.open()
    assert collected.status == 0
    assert forks.finish(pid).status == 0
    assert shared_lab.damage(cache) == []
    assert len(fovcache.open(cache).features(dataset=source.name)) == NUM_SAMPLES


def test_a_dataset_that_is_named_while_garbage_is_collected_keeps_what_it_reuses(
    shared_lab: Any, forks: Any, source: Path, tmp_path: Path
) -> None:
    """The collection has read which datasets there are when a build names one more, of features that are there."""
    cache, events = tmp_path / "cache", str(tmp_path / "events")
    shared_lab.build(source, cache, "--dataset", "old")
    order = {"events": events, "watch": str(cache), "stop_before": "/manifests/"}
    pid = forks.start("gc", "--cache", cache, "--grace-hours", 0, "--drop", "old", **order)
    shared_lab.wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "the collection to stop")
    assert shared_lab.build(source, cache, "--dataset", "new")["computed"] == 0
    forks.kill(pid, signal.SIGCONT)
    assert forks.finish(pid).status == 0
    assert len(fovcache.open(cache).features(dataset="new")) == NUM_SAMPLES
    assert shared_lab.damage(cache) == []


def test_collections_at_once_do_not_trip_over_each_other(shared_lab: Any, forks: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number in range(6):
        shared_lab.build(shared_lab.pictures(12, seed=number, name=f"many{number}"), cache)
    drops = [value for number in range(1, 6) for value in ("--drop", f"many{number}")]
    running = [forks.start("gc", "--cache", cache, "--grace-hours", 0, *drops, "--json", "-") for _ in range(3)]
    for done in [forks.finish(pid) for pid in running]:
        assert done.status == 0 or "the cache has no dataset" in done.err, done
    assert shared_lab.run("gc", "--cache", cache, "--grace-hours", 0).status == 0
    assert len(shared_lab.files(cache, "manifests")) == len(shared_lab.files(cache, "shards")) == 3
    assert shared_lab.damage(cache) == []
    assert len(fovcache.open(cache).features()) == 12


def test_verify_beside_a_builder_finds_nothing(
    shared_lab: Any, forks: Any, source: Path, gate: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    pid = forks.start(*shared_lab.build_args(source, cache), environ=gate.environ)
    shared_lab.wait_for(lambda: shared_lab.files(cache, "plans"), "the plan")
    assert shared_lab.damage(cache) == []
    gate.open()
    while shared_lab.files(cache, "leases"):
        assert shared_lab.damage(cache) == []
    assert forks.finish(pid).status == 0


def test_gc_removes_what_only_a_dropped_dataset_led_to_and_keeps_what_is_shared(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache, "--dataset", "small")
    small = lab.contents(cache)
    lab.pictures(8, seed=1, name="src/more")
    lab.build(source, cache, "--dataset", "large")
    lab.build(source, cache, "--layers", "head", "--dataset", "large")
    assert len(lab.files(cache, "shards")) == 2 + 2 + 1
    everything = lab.files(cache)

    planned = lab.run("gc", "--cache", cache, "--grace-hours", 0, "--drop", "large", "--dry-run", "--json", "-").json
    assert lab.files(cache) == everything

    young = lab.run("gc", "--cache", cache, "--dry-run", "--drop", "large", "--json", "-").json
    assert [name.split("/")[0] for name in young["removed"]] == ["refs"]
    assert young["kept_young"] > 0

    done = lab.run("gc", "--cache", cache, "--grace-hours", 0, "--drop", "large", "--json", "-").json
    assert done["removed"] == planned["removed"]
    gone = sorted(set(everything) - set(lab.files(cache)))
    assert gone == sorted(done["removed"])
    assert sum(name.startswith("shards/") for name in gone) == 2
    assert lab.damage(cache) == lab.leftovers(cache) == []
    assert {name for name in small if not name.startswith("refs")} <= set(lab.files(cache))
    assert len(fovcache.open(cache).features(layer="conv")) == 8
    assert len(fovcache.open(cache).features(layer="head")) == 8
    assert lab.build(source, cache, "--dataset", "large")["computed"] == 8


def test_gc_gives_up_older_versions_of_a_dataset_when_asked(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(8)
    lab.build(source, cache)
    for picture in sorted(source.iterdir())[:4]:
        picture.unlink()
    lab.build(source, cache)
    assert lab.run("gc", "--cache", cache, "--grace-hours", 0, "--json", "-").json["removed"] == []
    done = lab.run("gc", "--cache", cache, "--grace-hours", 0, "--only-newest", "--json", "-").json
    assert Counter(name.split("/")[0] for name in done["removed"]) == {
        "refs": 1,
        "datasets": 1,
        "shards": 1,
        "manifests": 1,
    }
    assert len(fovcache.open(cache).features()) == 4
    assert lab.damage(cache) == []


def test_gc_removes_records_of_failures_that_a_later_attempt_superseded(lab: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(4)
    for picture in source.iterdir():
        picture.write_bytes(b"no picture: " + picture.name.encode())
    lab.build(source, cache, status=1)
    (first,) = lab.files(cache, "manifests")
    lab.build(source, cache, "--retry-failed", status=1)
    assert len(lab.files(cache, "manifests")) == 2
    done = lab.run("gc", "--cache", cache, "--grace-hours", 0, "--json", "-").json
    assert done["removed"] == [first]
    report = lab.build(source, cache, status=1)
    assert (report["failed"], report["failures"][0]["stage"]) == (4, "decode")
    assert len(lab.files(cache, "manifests")) == 1


def test_gc_removes_what_killed_builds_left(lab: Any, forks: Any) -> None:
    cache, source = lab.folder / "cache", lab.pictures(20)
    counter = lab.folder / "events"
    forks.run(*lab.build_args(source, cache), events=str(counter), watch=str(cache), from_plan=True, die_at=30)
    assert lab.leftovers(cache)
    lab.run("gc", "--cache", cache, "--grace-hours", 0)
    assert lab.leftovers(cache) == []
    assert lab.files(cache, "shards", "manifests", "recipes", "features") == []
    assert lab.run("verify", "--cache", cache).status == 0


def test_gc_of_an_unknown_name_removes_nothing(lab: Any) -> None:
    cache = lab.folder / "cache"
    lab.build(lab.pictures(4), cache)
    before = lab.files(cache)
    done = lab.run("gc", "--cache", cache, "--grace-hours", 0, "--drop", "srk")
    assert (done.status, done.errors) == (2, ["error: the cache has no dataset 'srk'; nearest: src"])
    assert lab.files(cache) == before
