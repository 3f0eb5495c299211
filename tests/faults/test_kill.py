"""Builds that are killed, and the same command again."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

NUM_SAMPLES, ROWS_PER_BLOCK, NUM_BLOCKS = 50, 4, 13
NUM_KILLS = 12


@pytest.fixture(scope="module")
def source(shared_lab: Any) -> Path:
    """One sample fails, so that there is a ledger to compare."""
    folder = shared_lab.pictures(NUM_SAMPLES)
    (folder / "017.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(shared_lab: Any, source: Path) -> dict[str, Any]:
    """What a cache holds that was built without interruption."""
    cache = shared_lab.folder / "whole"
    report = shared_lab.build(source, cache, status=1)
    assert (report["computed"], report["failed"]) == (NUM_SAMPLES - 1, 1)
    assert len(shared_lab.files(cache, "manifests")) == NUM_BLOCKS
    return dict(shared_lab.contents(cache))


def rows_in_manifests(lab: Any, cache: Path) -> int:
    manifests = [document for name, document in lab.contents(cache).items() if name.startswith("manifests/")]
    return sum(shard["num_rows"] for document in manifests for shard in document["shards"])


def rows_encoded(log: Path) -> int:
    """Rows that went through the encoder, after the two of one sample by which the blocks are sized."""
    return sum(int(line) for line in log.read_text().split()) - 2


def assert_resumes(lab: Any, forks: Any, source: Path, cache: Path, whole: dict[str, Any], log: Path) -> None:
    """The same command completes what a killed one left, bit by bit, redoing at most one shard."""
    kept = rows_in_manifests(lab, cache)
    done = forks.run(*lab.build_args(source, cache, "--json", "-"), environ={"FORWARD_LOG": str(log)})
    assert (done.status, done.errors) == (1, [])
    assert (done.json["computed"], done.json["failed"]) == (NUM_SAMPLES - 1 - kept, 1)
    assert lab.contents(cache) == whole
    assert lab.leftovers(cache) == []
    assert lab.damage(cache) == []
    # The failed sample keeps its slot in the batch; only a batch in flight and a block without a manifest are redone.
    assert 0 <= rows_encoded(log) - NUM_SAMPLES <= ROWS_PER_BLOCK


def test_killed_at_a_random_time_and_run_again_ends_bit_identical(
    shared_lab: Any, forks: Any, source: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    chance = random.Random(0)
    num_killed, working_s = 0, 0.0
    for attempt in range(4 * NUM_KILLS):
        cache, log = tmp_path / f"cache{attempt}", tmp_path / f"log{attempt}"
        environ = {"FORWARD_WAIT_S": "0.005", "FORWARD_LOG": str(log)}
        pid = forks.start(*shared_lab.build_args(source, cache), environ=environ)
        shared_lab.wait_for(lambda cache=cache: shared_lab.files(cache, "plans", "refs"), "the plan")
        began = time.monotonic()
        if not working_s:  # the first run tells how long there is to choose from
            assert forks.wait(pid) == 1
            working_s = time.monotonic() - began
            continue
        time.sleep(chance.random() * working_s)
        forks.kill(pid, signal.SIGKILL)
        if forks.wait(pid) != -signal.SIGKILL:  # it was faster: the first one had less of the machine
            working_s *= 0.8
            continue
        assert_resumes(shared_lab, forks, source, cache, whole, log)
        num_killed += 1
        if num_killed == NUM_KILLS:
            return
    pytest.fail(f"only {num_killed} of {attempt} builds were killed before they ended")


def test_killed_before_any_file_operation_and_run_again_ends_bit_identical(
    shared_lab: Any, forks: Any, source: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """Kills before chosen renames, links and removals, of which a timer hits few: the last ones are all there."""
    args = shared_lab.build_args(source, tmp_path / "counted")
    counter = tmp_path / "events"
    assert forks.run(*args, events=str(counter), watch=str(tmp_path / "counted"), from_plan=True).status == 1
    num_events = int(counter.read_text())
    last = range(num_events - 19, num_events + 1)
    for number in sorted({*random.Random(1).sample(range(1, num_events), 8), *last}):
        cache, log = tmp_path / f"cache{number}", tmp_path / f"log{number}"
        environ = {"FORWARD_LOG": str(log)}
        order = {"events": str(counter), "watch": str(cache), "die_at": number, "from_plan": True, "environ": environ}
        assert forks.run(*shared_lab.build_args(source, cache), **order).status == -signal.SIGKILL
        assert_resumes(shared_lab, forks, source, cache, whole, log)


def test_a_polite_signal_ends_a_build_at_once_with_one_line_and_a_valid_cache(
    shared_lab: Any, source: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    asked = {signal.SIGTERM: 143, signal.SIGINT: 130}
    running = {
        number: shared_lab.start(*shared_lab.build_args(source, tmp_path / number.name), FORWARD_WAIT_S="600")
        for number in asked
    }
    for number, process in running.items():
        cache = tmp_path / number.name
        shared_lab.wait_for(lambda cache=cache: shared_lab.files(cache, "plans"), "the plan")
        process.send_signal(number)
        done = shared_lab.finish(process)  # fails when it waits for the batch
        assert (done.status, len(done.err.splitlines())) == (asked[number], 1), done
        assert done.err.startswith("error: ")
        assert "the same command goes on from there" in done.err
        assert shared_lab.leftovers(cache) == shared_lab.files(cache, "plans")
        assert shared_lab.run("verify", "--cache", cache).status == 0
        assert shared_lab.build(source, cache, status=1)["failed"] == 1
        assert shared_lab.contents(cache) == whole
        assert shared_lab.leftovers(cache) == []


@pytest.mark.parametrize("command", ["repair", "gc"])
def test_maintenance_that_is_killed_and_run_again_ends_as_if_it_had_not_been(
    lab: Any, forks: Any, command: str
) -> None:
    sound, counter = lab.folder / "sound", str(lab.folder / "events")
    lab.build(lab.pictures(12), sound)
    if command == "gc":
        lab.build(lab.pictures(7, seed=1, name="more"), sound)
        args = ["gc", "--grace-hours", 0, "--drop", "more"]
    else:
        for folder in ("shards", "manifests", "datasets", "recipes", "features", "refs"):
            with (sound / lab.files(sound, folder)[-1]).open("r+b") as file:
                file.truncate(40)
        args = ["repair", "--device", "cpu"]
    whole = lab.copy(sound, "whole")
    assert forks.run(*args, "--cache", whole, events=counter, watch=str(whole)).status == 0
    num_events = int(Path(counter).read_text())
    for number in random.Random(2).sample(range(1, num_events + 1), 10):
        cache = lab.copy(sound, f"cache{number}")
        order = {"events": counter, "watch": str(cache), "die_at": number}
        assert forks.run(*args, "--cache", cache, **order).status == -signal.SIGKILL
        if command == "gc":
            assert lab.damage(cache) == []
        again = forks.run(*args, "--cache", cache)
        assert again.status == 0 or "the cache has no dataset 'more'" in again.err
        if again.status:
            assert forks.run("gc", "--grace-hours", 0, "--cache", cache).status == 0
        lab.build(lab.folder / "src", cache)  # what a killed repair had taken away already
        assert lab.contents(cache) == lab.contents(whole)
        assert lab.leftovers(cache) == []


def test_a_build_of_two_encoders_is_killed_and_run_again(
    shared_lab: Any, forks: Any, source: Path, tmp_path: Path
) -> None:
    """Their rows are of unequal sizes, so that a kill leaves each in the middle of another block."""
    encoders = ("--encoder", shared_lab.encoder, "--encoder", "pixels", "--weights", f"{shared_lab.encoder}=random:0")
    encoders += ("--layers", f"{shared_lab.encoder}=conv", "--layers", "pixels=pixels8")
    whole = tmp_path / "whole"
    report = shared_lab.build(source, whole, *encoders, status=1)
    assert (report["computed"], report["failed"]) == (NUM_SAMPLES - 1, 1)
    blocks = [name.split("/")[1] for name in shared_lab.files(whole, "manifests")]
    assert len({blocks.count(recipe) for recipe in blocks}) == 2
    args = shared_lab.build_args(source, tmp_path / "counted", *encoders)
    counter = tmp_path / "events"
    assert forks.run(*args, events=str(counter), watch=str(tmp_path / "counted"), from_plan=True).status == 1
    num_events = int(counter.read_text())
    for number in random.Random(2).sample(range(1, num_events), 6):
        cache = tmp_path / f"cache{number}"
        order = {"events": str(counter), "watch": str(cache), "die_at": number, "from_plan": True}
        assert forks.run(*shared_lab.build_args(source, cache, *encoders), **order).status == -signal.SIGKILL
        done = forks.run(*shared_lab.build_args(source, cache, "--json", "-", *encoders))
        assert (done.status, done.errors) == (1, [])
        assert done.json["failed"] == 1
        assert shared_lab.contents(cache) == shared_lab.contents(whole)
        assert shared_lab.leftovers(cache) == []
        assert shared_lab.damage(cache) == []
