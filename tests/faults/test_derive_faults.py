"""Deriving that is killed, raced, or whose results and inputs are damaged."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

import fovcache
from fovcache.derived.derive import derive
from fovcache.derived.representation import resolve_representation
from fovcache.maintain.repair import repair
from fovcache.store.storage import LocalStorage

NUM_SAMPLES, ROWS_PER_BLOCK, NUM_BLOCKS = 22, 4, 6
NUM_KILLS = 12
DERIVE = ("--derive", "stats", "--derive", "flat_vec")


@pytest.fixture(scope="module")
def source(shared_lab: Any) -> Path:
    return Path(shared_lab.pictures(NUM_SAMPLES))


@pytest.fixture(scope="module")
def plain(shared_lab: Any, source: Path) -> Path:
    """Six blocks of one layer."""
    cache = Path(shared_lab.folder / "plain")
    shared_lab.build(source, cache)
    assert len(shared_lab.files(cache, "shards")) == NUM_BLOCKS
    return cache


@pytest.fixture(scope="module")
def whole(shared_lab: Any, source: Path, plain: Path) -> Path:
    """The same with what was derived without interruption."""
    cache = Path(shared_lab.copy(plain, "whole"))
    report = shared_lab.build(source, cache, *DERIVE)
    assert [(row["representation"], row["computed"], row["failed"]) for row in report["derived"]] == [
        ("stats", NUM_SAMPLES, 0),
        ("flat_vec", NUM_SAMPLES, 0),
    ]
    assert len(shared_lab.files(cache, "shards")) == 3 * NUM_BLOCKS
    return cache


def blocks_of(lab: Any, cache: Path, recipe: str) -> tuple[list[str], list[str]]:
    """Shards and manifests of a recipe."""
    return lab.files(cache, f"shards/{recipe}"), lab.files(cache, f"manifests/{recipe}")


def recipe_of(cache: Path, name: str | None) -> str:
    return str(fovcache.open(cache).features(representation=name).feature.recipe)


def derived_rows(lab: Any, cache: Path) -> int:
    """Rows that manifests of derived blocks name."""
    manifests = [document for name, document in lab.contents(cache).items() if name.startswith("manifests/")]
    return sum(shard["num_rows"] for document in manifests for shard in document["shards"]) - NUM_SAMPLES


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def test_killed_before_any_file_operation_and_run_again_ends_bit_identical(
    shared_lab: Any, forks: Any, source: Path, plain: Path, whole: Path, tmp_path: Path
) -> None:
    counter, counted = str(tmp_path / "events"), shared_lab.copy(plain, f"killed/{tmp_path.name}")
    args = shared_lab.build_args(source, counted, *DERIVE)
    assert forks.run(*args, events=counter, watch=str(counted)).status == 0
    num_events = int(Path(counter).read_text())
    for number in random.Random(0).sample(range(1, num_events + 1), NUM_KILLS):
        cache = shared_lab.copy(plain, f"killed/{tmp_path.name}-{number}")
        args = shared_lab.build_args(source, cache, "--json", "-", *DERIVE)
        assert forks.run(*args, events=counter, watch=str(cache), die_at=number).status == -signal.SIGKILL
        kept = derived_rows(shared_lab, cache)
        num_manifests, num_shards = (len(shared_lab.files(cache, folder)) for folder in ("manifests", "shards"))
        assert num_shards - num_manifests in (0, 1)  # a block whose manifest is not there is redone, and no more
        done = forks.run(*args)
        assert (done.status, done.errors) == (0, [])
        assert sum(row["computed"] for row in done.json["derived"]) == 2 * NUM_SAMPLES - kept
        assert shared_lab.contents(cache) == shared_lab.contents(whole)
        assert shared_lab.leftovers(cache) == []
        assert shared_lab.damage(cache) == []


def test_two_processes_at_once_derive_the_same_and_each_row_once(
    shared_lab: Any, forks: Any, source: Path, plain: Path, whole: Path, tmp_path: Path
) -> None:
    for repetition in range(3):
        cache = shared_lab.copy(plain, f"raced/{tmp_path.name}-{repetition}")
        args = shared_lab.build_args(source, cache, "--json", "-", *DERIVE)
        done = [forks.finish(pid) for pid in [forks.start(*args) for _ in range(3)]]
        assert [(one.status, one.errors) for one in done] == [(0, [])] * 3
        computed = sum(row["computed"] for one in done for row in one.json["derived"])
        assert computed == 2 * NUM_SAMPLES
        assert shared_lab.contents(cache) == shared_lab.contents(whole)
        assert shared_lab.leftovers(cache) == []
        assert shared_lab.build(source, cache, *DERIVE)["derived"][0]["computed"] == 0


def test_a_collection_beside_a_derivation_takes_nothing(
    shared_lab: Any, forks: Any, source: Path, plain: Path, whole: Path, tmp_path: Path
) -> None:
    """It stands still before its first manifest."""
    cache = shared_lab.copy(plain, f"beside/{tmp_path.name}")
    args = shared_lab.build_args(source, cache, *DERIVE)
    order = {
        "events": str(tmp_path / "events"),
        "watch": str(cache),
        "stop_before": "manifests/" + recipe_of(whole, "stats"),
    }
    pid = forks.start(*args, **order)
    shared_lab.wait_for(lambda: shared_lab.files(cache, "shards/" + recipe_of(whole, "stats")), "the first shard")
    collected = shared_lab.run("gc", "--cache", cache, "--grace-hours", 0, "--json", "-").json
    assert collected["removed"] == []
    forks.kill(pid, signal.SIGCONT)
    assert forks.finish(pid).status == 0
    assert shared_lab.contents(cache) == shared_lab.contents(whole)


@pytest.mark.parametrize("seed", range(8))
def test_damage_in_an_input_and_in_what_was_derived_from_it_is_mended_together(
    shared_lab: Any, whole: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    cache = shared_lab.copy(whole, f"both/{tmp_path.name}")
    names = []
    for name in (None, "stats", "flat_vec"):
        shards, manifests = blocks_of(shared_lab, cache, recipe_of(cache, name))
        names += [chance.choice(shards), chance.choice(manifests)]
    names += [
        f"recipes/{recipe_of(cache, 'stats')}.json",
        f"features/{fovcache.open(cache).features().feature.digest}.json",
    ]
    for name in names:
        flip(cache / name, chance)
    assert shared_lab.damage(cache) == sorted(names)
    report = repair(LocalStorage(cache), device="cpu")
    assert report.unrepaired == ()
    assert shared_lab.contents(cache) == shared_lab.contents(whole)
    assert shared_lab.damage(cache) == shared_lab.leftovers(cache) == []


def test_a_derived_block_whose_input_is_gone_is_named_with_the_way_out(
    shared_lab: Any, source: Path, whole: Path, tmp_path: Path
) -> None:
    cache = shared_lab.copy(whole, f"gone/{tmp_path.name}")
    plain, stats = recipe_of(cache, None), recipe_of(cache, "stats")
    for name in shared_lab.files(cache, f"shards/{plain}", f"manifests/{plain}"):
        (cache / name).unlink()
    (damaged,) = shared_lab.files(cache, f"shards/{stats}")[:1]
    flip(cache / damaged, random.Random(0))

    done = shared_lab.run("repair", "--cache", cache, "--json", "-")
    assert (done.status, done.json["recomputed"]) == (1, 0)
    (left,) = done.json["unrepaired"]
    assert left["file"] == damaged
    assert (
        "the rows that it was computed from are gone, which `fovcache build` brings back; derive it" in left["problem"]
    )
    assert shared_lab.run("verify", "--cache", cache).status == 0
    assert len(fovcache.open(cache).features(representation="stats")) in (NUM_SAMPLES - 4, NUM_SAMPLES - 2)

    assert shared_lab.build(source, cache, "--derive", "stats")["derived"][0]["computed"] in (2, 4)
    assert shared_lab.contents(cache) == shared_lab.contents(whole)


def test_a_block_that_its_representation_would_not_give_any_more_is_named_with_the_reason(
    shared_lab: Any, plain: Path, tmp_path: Path
) -> None:
    cache = shared_lab.copy(plain, f"other/{tmp_path.name}")
    opened = fovcache.open(cache)
    features = opened.features()
    opened.derive(features, "flat_vec")
    derive(opened.storage, features, _Renamed(), device="cpu")
    damaged = shared_lab.files(cache, f"shards/{recipe_of(cache, 'stats')}")[0]
    flip(cache / damaged, random.Random(0))
    done = shared_lab.run("repair", "--cache", cache, "--json", "-")
    (left,) = done.json["unrepaired"]
    assert left["file"] == damaged
    assert "'stats' has version 1 now, and 99 when its rows were computed; derive it again" in left["problem"]
    assert shared_lab.run("verify", "--cache", cache).status == 0


class _Renamed:
    """Another version of `stats`."""

    name, version, parameters = "stats", 99, {}

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        return num_tokens * num_channels

    def compute(self, x_BTC: Any) -> Any:
        return resolve_representation("flat_vec").compute(x_BTC)


def test_a_damaged_derived_block_is_computed_again_by_deriving(
    shared_lab: Any, source: Path, whole: Path, tmp_path: Path
) -> None:
    cache = shared_lab.copy(whole, f"again/{tmp_path.name}")
    shard = shared_lab.files(cache, f"shards/{recipe_of(cache, 'stats')}")[0]
    with (cache / shard).open("r+b") as file:
        file.truncate(100)
    done = shared_lab.run(*shared_lab.build_args(source, cache, "--json", "-", *DERIVE))
    assert done.status == 0
    assert "is damaged: its rows are computed again" in done.err
    assert [row["computed"] for row in done.json["derived"]] in ([2, 0], [4, 0])
    assert shared_lab.contents(cache) == shared_lab.contents(whole)


def test_names_are_checked_before_anything_is_built(lab: Any) -> None:
    cache = lab.folder / "cache"
    done = lab.run(*lab.build_args(lab.pictures(2), cache, "--derive", "statz"))
    assert (done.status, done.errors) == (
        2,
        ["error: there is no representation named 'statz'; nearest: stats, simple_stats, spectral"],
    )
    assert not cache.exists()


def test_a_build_of_nothing_but_failures_derives_nothing(lab: Any) -> None:
    source = lab.pictures(2)
    for picture in source.iterdir():
        picture.write_bytes(b"no picture: " + picture.name.encode())
    report = lab.build(source, lab.folder / "cache", "--derive", "stats", status=1)
    assert [(row["samples"], row["computed"], row["failed"]) for row in report["derived"]] == [(0, 0, 0)]


def test_the_commands_show_and_export_what_was_derived(shared_lab: Any, whole: Path, tmp_path: Path) -> None:
    listed = [line.split() for line in shared_lab.run("ls", "--cache", whole).out.splitlines()]
    assert [line[4] for line in listed if "fp32" in line] == ["flat_vec", "stats"]
    done = shared_lab.run(
        "export",
        "--cache",
        whole,
        "--representation",
        "stats",
        "--layer",
        "conv",
        "--out",
        tmp_path / "x.h5",
        "--json",
        "-",
    )
    assert (done.status, done.json["shape"]) == (0, [NUM_SAMPLES, 7])
    told = shared_lab.run("verify", "--cache", whole, "--recompute", 3, "--device", "cpu", "--json", "-").json
    assert (told["recomputed"]["within_tolerance"], told["recomputed"]["samples"]) == (True, 9)
