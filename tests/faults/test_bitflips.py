"""Flipped bits, cut and deleted files: `verify` finds and names each, `repair` brings back that and nothing else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fovcache.maintain.repair import RepairReport, repair
from fovcache.store.storage import LocalStorage

NUM_SAMPLES, ROWS_PER_BLOCK, NUM_BLOCKS = 22, 4, 6
DERIVED = ("index", "memo.sqlite")
DOCUMENTS = ("manifests", "recipes", "features", "datasets", "refs", "fovcache.json")


@pytest.fixture(scope="module")
def sound(shared_lab: Any) -> Path:
    """A whole cache: six blocks of two layers, of which the third has a sample that fails, and what is derived of
    each layer."""
    source = shared_lab.pictures(NUM_SAMPLES)
    (source / "009.png").write_bytes(b"no picture")
    cache = shared_lab.folder / "sound"
    shared_lab.build(source, cache, "--layers", "conv,head", "--shard-mib", 0.0042, "--derive", "stats", status=1)
    assert len(shared_lab.files(cache, "shards")) == 3 * NUM_BLOCKS
    assert all((cache / name).stat().st_size <= 65536 for name in shared_lab.files(cache, "shards"))
    assert shared_lab.damage(cache) == []
    return Path(cache)


@pytest.fixture
def cache(shared_lab: Any, sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shared_lab.copy(sound, f"copies/{tmp_path.name}"))


def block_of(lab: Any, cache: Path, name: str) -> set[str]:
    """The manifest and the shards of the block that a file belongs to; the file alone when it is of no block."""
    for manifest in lab.files(cache, "manifests"):
        recipe = manifest.split("/")[1]
        shards = json.loads((cache / manifest).read_bytes())["shards"]
        members = {manifest, *(f"shards/{recipe}/{shard['digest']}.safetensors" for shard in shards)}
        if name in members:
            return members
    return {name}


def states(lab: Any, cache: Path, *, without: set[str]) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file that counts."""
    names = [name for name in lab.files(cache) if not name.startswith(DERIVED) and name not in without]
    return {name: ((cache / name).read_bytes(), (cache / name).stat().st_mtime_ns) for name in names}


def injure(file: Path, chance: random.Random) -> None:
    """Flip one bit, or in one case of four cut the file short."""
    data = bytearray(file.read_bytes())
    if chance.random() < 0.25:
        data = data[: chance.randrange(len(data))]
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def assert_mends(lab: Any, cache: Path, sound: Path, *names: str) -> RepairReport:
    """`verify` names exactly these files, and `repair` brings back their blocks or documents and touches no other."""
    assert lab.damage(cache) == sorted(names)
    lost = set().union(*(block_of(lab, sound, name) for name in names))
    before = states(lab, cache, without=lost)
    report = repair(LocalStorage(cache), device="cpu")
    assert (report.unrepaired, report.exit_status) == ((), 0)
    assert sorted(report.repaired) == sorted(names)
    assert states(lab, cache, without=lost) == before
    assert lab.contents(cache) == lab.contents(sound)
    assert lab.damage(cache) == []
    assert lab.leftovers(cache) == []
    num_blocks = sum(name.startswith("manifests/") for name in lost)
    assert report.recomputed <= num_blocks * ROWS_PER_BLOCK
    return report


@pytest.mark.parametrize("seed", range(50))
def test_a_flipped_bit_or_a_cut_in_a_shard_is_found_and_only_its_block_is_made_again(
    shared_lab: Any, sound: Path, cache: Path, seed: int
) -> None:
    chance = random.Random(seed)
    name = chance.choice(shared_lab.files(cache, "shards"))
    injure(cache / name, chance)
    assert_mends(shared_lab, cache, sound, name)


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_or_a_cut_in_a_document_is_found_and_only_it_is_mended(
    shared_lab: Any, sound: Path, cache: Path, kind: str, seed: int
) -> None:
    chance = random.Random(seed)
    name = chance.choice(shared_lab.files(cache, kind))
    injure(cache / name, chance)
    report = assert_mends(shared_lab, cache, sound, name)
    assert kind == "manifests" or report.recomputed == 0


@pytest.mark.parametrize("kind", ["shards", "recipes", "features", "datasets", "fovcache.json"])
def test_a_deleted_file_is_missed_and_brought_back(shared_lab: Any, sound: Path, cache: Path, kind: str) -> None:
    name = shared_lab.files(cache, kind)[0]
    (cache / name).unlink()
    assert_mends(shared_lab, cache, sound, name)


def test_two_damaged_neighbours_are_made_again_as_they_were(shared_lab: Any, sound: Path, cache: Path) -> None:
    order = sorted(shared_lab.files(sound, "manifests"), key=lambda name: (sound / name).stat().st_mtime_ns)
    shards = [name for manifest in order[1:3] for name in block_of(shared_lab, sound, manifest) - {manifest}]
    for number, name in enumerate(shards):
        injure(cache / name, random.Random(number))
    report = assert_mends(shared_lab, cache, sound, *shards)
    assert ROWS_PER_BLOCK < report.recomputed < 2 * ROWS_PER_BLOCK  # one sample in them fails


def test_damage_in_everything_at_once_is_mended(shared_lab: Any, sound: Path, cache: Path) -> None:
    chance = random.Random(0)
    names = [shared_lab.files(cache, kind)[0] for kind in (*DOCUMENTS, "shards")]
    for name in names:
        injure(cache / name, chance)
    assert_mends(shared_lab, cache, sound, *names)


@pytest.mark.parametrize("num_damaged", [2, 4, 99])
def test_blocks_of_several_builds_are_made_again_as_each_build_cut_them(lab: Any, num_damaged: int) -> None:
    """Short last blocks, samples added later, layers added later, other batch sizes: damaged together."""
    source, sound = lab.pictures(10, name="src/a"), lab.folder / "sound"
    root = source.parent
    lab.build(root, sound, "--layers", "conv", "--shard-mib", 0.008)
    lab.pictures(7, name="src/b", seed=1)
    lab.build(root, sound, "--layers", "conv", "--shard-mib", 0.004, "--batch-size", 2)
    lab.build(root, sound, "--layers", "conv,head", "--shard-mib", 0.0005 * 2)
    chance = random.Random(num_damaged)
    cache = lab.copy(sound, "cache")
    shards = lab.files(cache, "shards")
    names = chance.sample(shards, min(num_damaged, len(shards)))
    for name in names:
        injure(cache / name, chance)
    repair(LocalStorage(cache), device="cpu")
    assert lab.contents(cache) == lab.contents(sound)
    assert lab.damage(cache) == lab.leftovers(cache) == []


@pytest.mark.parametrize("kind", [*DOCUMENTS, "shards"])
def test_the_commands_name_the_damaged_file_and_mend_it(shared_lab: Any, sound: Path, cache: Path, kind: str) -> None:
    assert shared_lab.run("verify", "--cache", cache).status == 0
    name = shared_lab.files(cache, kind)[0]
    data = bytearray((cache / name).read_bytes())
    data[-2] ^= 0x20
    (cache / name).write_bytes(data)

    found = shared_lab.run("verify", "--cache", cache)
    assert (found.status, found.errors) == (1, [])
    assert name in found.out
    assert [item["file"] for item in shared_lab.run("verify", "--cache", cache, "--json", "-").json["damaged"]] == [
        name
    ]

    mended = shared_lab.run("repair", "--cache", cache, "--device", "cpu", "--json", "-")
    assert (mended.status, mended.errors, mended.json["repaired"]) == (0, [], [name])
    assert shared_lab.run("verify", "--cache", cache).status == 0
    assert shared_lab.contents(cache) == shared_lab.contents(sound)


def test_a_missing_marker_is_damage_where_there_are_manifests(shared_lab: Any, cache: Path) -> None:
    (cache / "fovcache.json").unlink()
    assert "fovcache.json" in shared_lab.run("verify", "--cache", cache).out
    listed = shared_lab.run("ls", "--cache", cache)
    assert listed.status == 1
    assert listed.errors == [f"error: {cache}/fovcache.json is missing; `fovcache repair` restores it"]
    assert shared_lab.run("repair", "--cache", cache).status == 0
    assert shared_lab.run("ls", "--cache", cache).status == 0


@pytest.fixture
def own(lab: Any) -> Path:
    """A cache with a source and an encoder of its own, to take away."""
    lab.build(lab.pictures(10), lab.folder / "cache")
    return Path(lab.folder / "cache")


def test_a_block_whose_source_is_gone_is_named_with_the_reason_and_its_build_completes_it_later(
    lab: Any, own: Path
) -> None:
    before = lab.contents(own)
    name = lab.files(own, "shards")[1]
    injure(own / name, random.Random(0))
    source = lab.folder / "src"
    source.rename(lab.folder / "away")

    done = lab.run("repair", "--cache", own, "--json", "-")
    assert (done.status, done.json["repaired"], done.json["recomputed"]) == (1, [], 0)
    (left,) = done.json["unrepaired"]
    assert left["file"] == name
    assert f"source '{source}' does not exist" in left["problem"]
    assert "run the original `fovcache build` again" in left["problem"]

    assert lab.run("verify", "--cache", own).status == 0  # it is gone, and nothing pretends to be it
    (lab.folder / "away").rename(source)
    assert lab.build(source, own)["computed"] in (2, 4)
    assert lab.contents(own) == before


def test_a_block_of_which_one_sample_is_gone_gets_its_other_rows_back(lab: Any, own: Path) -> None:
    for name in lab.files(own, "shards"):
        (own / name).unlink()
    (lab.folder / "src" / "005.png").unlink()
    done = lab.run("repair", "--cache", own, "--json", "-")
    assert (done.status, done.json["recomputed"]) == (1, 9)
    assert all("1 samples are no longer in their sources" in item["problem"] for item in done.json["unrepaired"])
    assert lab.build(lab.folder / "src", own)["computed"] == 0


def test_a_block_whose_encoder_was_edited_is_named_with_the_reason_and_its_build_explains(lab: Any, own: Path) -> None:
    path = Path(lab.encoder.removesuffix(":make"))
    path.write_text(path.read_text().replace("relu", "tanh"))
    injure(own / lab.files(own, "shards")[0], random.Random(0))
    done = lab.run("repair", "--cache", own, "--json", "-")
    assert done.status == 1
    assert "enc.py:make is not what it was" in done.json["unrepaired"][0]["problem"]
    asked = ("--encoder", lab.encoder, "--layers", "conv", "--pool", "tokens")
    told = lab.run("explain", lab.folder / "src", "--cache", own, *asked, "--json", "-")
    assert {verdict["field"] for verdict in told.json["verdicts"]} >= {"extractor.source.enc.py"}
    assert lab.build(lab.folder / "src", own)["computed"] == 10
    assert lab.run("verify", "--cache", own).status == 0


def test_a_dataset_whose_source_changed_is_named_with_the_reason(lab: Any, own: Path) -> None:
    name = lab.files(own, "datasets")[0]
    injure(own / name, random.Random(0))
    (lab.folder / "src" / "005.png").unlink()
    done = lab.run("repair", "--cache", own, "--json", "-")
    assert done.status == 1
    (left,) = done.json["unrepaired"]
    assert (left["file"], "its sources have changed since" in left["problem"]) == (name, True)


def test_a_build_computes_again_what_it_sees_is_lost(lab: Any, own: Path) -> None:
    before = lab.contents(own)
    manifest = lab.files(own, "manifests")[0]
    members = block_of(lab, own, manifest)
    (own / manifest).unlink()
    shard = next(name for name in lab.files(own, "shards") if name not in members)
    with (own / shard).open("r+b") as file:
        file.truncate(100)
    done = lab.run(*lab.build_args(lab.folder / "src", own, "--json", "-"))
    assert done.status == 0
    assert "damaged: its samples are computed again" in done.err
    assert lab.contents(own) == before


def test_garbage_is_not_collected_from_a_damaged_cache(lab: Any, own: Path) -> None:
    name = lab.files(own, "manifests")[0]
    injure(own / name, random.Random(0))
    before = lab.files(own)
    done = lab.run("gc", "--cache", own, "--grace-hours", 0)
    assert (done.status, lab.files(own)) == (1, before)
    assert done.errors == [f"error: {name} is damaged, so nothing is collected: run `fovcache repair` first"]
