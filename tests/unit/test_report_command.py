"""`fovbench report DIR`: what it takes for results, which cache it shows, and what it says when it cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from example_ablations import made_ablation, made_arms
from example_profiles import faulted_profile
from parsed_page import Page

import fovcache
from fovcache.bench.cli import app
from fovcache.bench.results_folder import find_caches, find_results
from fovcache.console import run_command
from fovcache.probes.result import ARMS_FORMAT, Ablation

pytestmark = pytest.mark.usefixtures("coarse_figures", "few_figures")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`report(*arguments)` runs the command; `(status, lines on standard output, standard error)`."""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        monkeypatch.setattr("sys.argv", ["fovbench", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_command(app)
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out.splitlines(), printed.err

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """A folder with a cache, its cold and its warm build as JSON."""
    folder = tmp_path_factory.mktemp("made")
    make_images(folder / "images", num=4, classes=("a", "b"))
    for name in ("first", "again"):
        built = fovcache.open(folder / "cache").build(
            str(folder / "images"), encoder="pixels", layers=["pixels8"], dataset="tiny", device="cpu"
        )
        (folder / f"{name}.json").write_text(json.dumps(built.document()))
    return folder


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """Everything that a report can be of: a profile, two builds, an ablation in a folder of its own."""
    place = tmp_path / "results"
    (place / "tiny").mkdir(parents=True)
    for name in ("first", "again"):
        (place / f"{name}.json").write_bytes((made / f"{name}.json").read_bytes())
    (place / "profile.json").write_text(json.dumps(faulted_profile().document()))
    write(place / "tiny" / "ablation.json", replace(small(), cache=str(made / "cache")))
    return place


def small() -> Ablation:
    return made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=2)


def write(path: Path, ablation: Ablation) -> None:
    path.write_text(json.dumps(ablation.document()))


def test_all_results_of_a_folder_are_in_its_report(report: Callable[..., Any], folder: Path) -> None:
    (folder / "notes.json").write_text('{"a": 1}')
    (folder / "cut.json").write_text('{"stages": [')
    (folder / "notes.txt").write_text("mine")
    status, lines, said = report(folder)
    assert (status, said) == (0, "")
    assert lines[-1] == str(folder / "report.html")
    assert [line.partition(" is left out: ")[0] for line in lines[:-1]] == ["warning: cut.json", "warning: notes.json"]
    assert "`fovcache build … --json build.json`" in lines[1]
    page = Page((folder / "report.html").read_text())
    assert {"profile-1-stages", "builds-table", "cache-1-features", "ablation-1-estimates"} <= page.tables.keys()
    assert [row[0]["text"] for row in page.tables["builds-table"][1:]] == ["first.json", "again.json"]  # cold first
    assert [row[1]["text"] for row in page.tables["cache-1-features"][1:]] == ["pixels8"]
    assert "computed none of 4" in page.shown
    for name in ("cut.json", "notes.json"):
        assert f"{name} is left out" in page.shown
    kept = {path.name for path in folder.iterdir()}
    assert kept == {
        "tiny", "profile.json", "first.json", "again.json", "notes.json", "cut.json", "notes.txt", "report.html",
        "report.md", "figures",
    }  # fmt: skip


def test_arms_beside_an_ablation_and_a_confusion_by_name(report: Callable[..., Any], folder: Path) -> None:
    arms = {"format": ARMS_FORMAT, "base": "digits", "arms": [asdict(arm) for arm in made_arms(small())]}
    (folder / "tiny" / "arms.json").write_text(json.dumps(arms))
    status, lines, said = report(folder, "--confusion", "stats:al")
    assert (status, lines) == (2, [])
    assert said.startswith("error: --confusion stats:al: ")
    assert "nearest: stats:all" in said
    status, lines, _ = report(folder, "--confusion", "stats:all", "--confusion", "stats:blocks.1")
    assert (status, lines) == (0, [str(folder / "report.html")])
    assert len(Page((folder / "report.html").read_text()).tables["ablation-1-arms"]) == 3
    pngs = {path.name for path in (folder / "figures").iterdir()}
    assert {"arms.png", "confusion_of_stats_all.png", "confusion_of_stats_blocks_1.png"} <= pngs
    report(folder)
    assert not [path for path in (folder / "figures").iterdir() if path.name.startswith("confusion_of")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arms": [{"arm": 1}]}, "1 where a value of type str was expected"),
        ({"format": "fovbench arms 9"}, "its format is not 'fovbench arms 1'"),
    ],
)
def test_malformed_arms_are_left_out_with_the_reason(folder: Path, change: dict[str, Any], reason: str) -> None:
    (folder / "tiny" / "arms.json").write_text(json.dumps({"format": ARMS_FORMAT, "arms": []} | change))
    found = find_results(folder)
    (warning,) = found.warnings
    assert warning.startswith("tiny/arms.json is left out: ")
    assert reason in warning
    (folder / "tiny" / "arms.json").write_text(json.dumps({"format": ARMS_FORMAT, "arms": []}))
    assert find_results(folder).arms == {"tiny/ablation.json": ()}
    (folder / "tiny" / "ablation.json").unlink()
    found = find_results(folder)
    assert (found.arms, found.warnings) == ({}, ("tiny/arms.json is left out: tiny/ablation.json is not there",))


def test_an_ablation_in_the_folder_itself_and_out_elsewhere(report: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "ablation.json", small())
    status, lines, _ = report(tmp_path / "run", "--out", tmp_path / "out", "--json", tmp_path / "files.json")
    assert status == 0
    assert lines[0] == "warning: the cache cache of ablation.json is not there: --cache says where it is"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"ablation.json"}
    files = json.loads((tmp_path / "files.json").read_text())
    assert files["html"] == lines[-1] == str(tmp_path / "out" / "report.html")
    assert all(Path(file).is_file() for file in (files["markdown"], *files["figures"]))
    assert "cache-1-features" not in Page(Path(files["html"]).read_text()).tables


@pytest.mark.parametrize("start", [".", "elsewhere", "results", "results/tiny"])
def test_a_relative_cache_is_looked_for_where_it_may_lie(
    folder: Path, made: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(folder.parent / "elsewhere")
    (folder.parent / start / "kept").symlink_to(made / "cache")
    ablation = replace(small(), cache="kept")
    found, missing = find_caches(Path("../results"), {"tiny/ablation.json": ablation, "ablation.json": ablation})
    assert [path.resolve() for path in found] == [(made / "cache").resolve()]  # once, though both name it
    assert len(missing) == (start == "results/tiny")  # from the folder itself there is no `kept`


def test_a_cache_that_is_named_must_be_one(report: Callable[..., Any], folder: Path, made: Path) -> None:
    status, _, said = report(folder, "--cache", folder / "tiny")
    assert status == 2
    assert "is not a cache" in said
    assert not (folder / "report.html").exists()
    write(folder / "tiny" / "ablation.json", replace(small(), cache="gone"))
    status, lines, _ = report(folder, "--cache", made / "cache")
    assert (status, lines) == (0, [str(folder / "report.html")])
    assert "cache-1-features" in Page((folder / "report.html").read_text()).tables


def test_a_damaged_cache_does_not_keep_the_report_away(
    report: Callable[..., Any], folder: Path, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "fovcache.json").write_text("{}")
    write(folder / "tiny" / "ablation.json", replace(small(), cache=str(tmp_path / "odd")))
    status, lines, _ = report(folder)
    assert status == 0
    assert lines[0].startswith(f"warning: the cache {tmp_path / 'odd'} is left out: ")


def test_a_folder_without_results_says_what_makes_some(report: Callable[..., Any], tmp_path: Path) -> None:
    for content, more in ((None, ""), ("{}", " (x.json is left out")):
        if content is not None:
            (tmp_path / "x.json").write_text(content)
        status, lines, said = report(tmp_path)
        assert (status, lines) == (2, [])
        assert said.startswith(f"error: {tmp_path} holds no results{more}")
        for command in ("fovbench profile", "fovcache build", "fovbench ablate"):
            assert command in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"estimates": [{"representation": 3}]}, "3 where a value of type str was expected"),
        ({"class_counts": "abc"}, "a list was expected"),
        ({"num_samples": "many"}, "int was expected"),
        ({"format": "fovbench ablation 9"}, "its format is not 'fovbench ablation 2'"),
    ],
)
def test_a_malformed_result_is_left_out_with_the_reason(folder: Path, change: dict[str, Any], reason: str) -> None:
    (folder / "tiny" / "ablation.json").write_text(json.dumps(small().document() | change))
    build = json.loads((folder / "first.json").read_text())
    (folder / "first.json").write_text(json.dumps(build | {"computed": "4"}))
    found = find_results(folder)
    first, second = found.warnings
    assert first.startswith("first.json is left out: computed of a build is '4'")
    assert second.startswith("tiny/ablation.json is left out: ")
    assert reason in second
    assert (list(found.profiles), list(found.builds), found.ablations) == (["profile.json"], ["again.json"], {})


def test_a_report_that_cannot_be_written_is_one_line_and_status_3(report: Callable[..., Any], folder: Path) -> None:
    (folder / "report.html").mkdir()
    status, _, said = report(folder)
    assert status == 3
    assert said.startswith(f"error: cannot write the report into {folder}: ")
    assert len(said.splitlines()) == 1
    (folder / "file").write_text("")
    assert report(folder, "--out", folder / "file")[0] == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written(report: Callable[..., Any], folder: Path) -> None:
    folder.chmod(0o555)
    try:
        status, _, said = report(folder)
    finally:
        folder.chmod(0o755)
    assert (status, "permission denied" in said) == (3, True)


def test_a_page_that_cannot_be_replaced_leaves_the_earlier_one(report: Callable[..., Any], folder: Path) -> None:
    assert report(folder)[0] == 0
    before = (folder / "report.html").read_bytes()
    (folder / "report.md").unlink()
    (folder / "report.md").mkdir()
    write(folder / "tiny" / "ablation.json", replace(small(), name="another"))
    assert report(folder)[0] == 3
    assert (folder / "report.html").read_bytes() == before
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_a_profile_by_itself_still_has_its_own_page(
    report: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, lines, _ = report(folder / "profile.json")
    assert (status, lines) == (0, ["fovbench-report/report.html"])
    assert "<h1>Stage-time profile</h1>" in Path(lines[-1]).read_text()
    status, _, said = report(folder / "tiny" / "ablation.json")
    assert (status, "not the JSON of a profile" in said) == (2, True)
