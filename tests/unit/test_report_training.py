"""Controlled training in the report of a folder: the verdict first, its numbers are the suite's, no seed is dropped."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from example_ablations import minimal_ablation
from example_trainings import ARMS, bare_suite, hostile_suite, made_suite, suite_with_failures
from parsed_page import Page

from fovcache.bench.cli import app
from fovcache.bench.results_folder import find_caches, find_results
from fovcache.console import run_command
from fovcache.errors import UsageError
from fovcache.probes.train.result import BASE, CONTROL, FAILED, MAIN, RESULT_FILE, RUN_FILE, TrainSuite, read_suite
from fovcache.reports import Results, train_view, write_results
from fovcache.reports.figures import new_figure
from fovcache.reports.numbers import spanned
from fovcache.reports.train_forest import number_form

HOSTILE = "<script>alert(1)</script><img src=\"http://127.0.0.1/x\" onerror='alert(2)'>&amp;|`*[a](b)${{7*7}}{%raw%}"
PICTURES = ["train_attention.png", "train_looks.png", "train_loss.png", "train_time.png", "train_verdict.png"]

pytestmark = pytest.mark.usefixtures("coarse_figures")


def report(folder: Path, *suites: TrainSuite) -> Page:
    named = {f"{number}/train.json": each for number, each in enumerate(suites)}
    results = Results(name="results", profiles={}, ablations={}, trainings=named)
    return Page(write_results(results, folder).html.read_text())


@pytest.fixture(scope="module")
def broken(coarse_figures: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    """The report of seeds that failed, were stopped and were taken up again; and its folder."""
    folder = tmp_path_factory.mktemp("report")
    return report(folder, suite_with_failures()), folder


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of words and tables."""
    monkeypatch.setattr(train_view, "FIGURES", ())


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of captions: figures themselves are tested beside."""
    named = tuple((name, lambda suite, theme: new_figure(0.5), *words) for name, _, *words in train_view.FIGURES)
    monkeypatch.setattr(train_view, "FIGURES", named)


def values(row: list[dict[str, object]]) -> list[float]:
    return [value for cell in row for value in cell["values"]]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_figures")
def test_the_verdict_comes_first_with_its_conditions_and_diagnostics_apart(tmp_path: Path) -> None:
    suite = made_suite()
    assert suite.verdict is not None
    page = report(tmp_path, suite)
    section = page.text.partition('<h2 id="training-1-results">')[2]
    order = [section.index(text) for text in ("Verdict: a finer look helps", "training-1-conditions", "Dataset ")]
    assert order == sorted(order)
    _, *rows = page.tables["training-1-conditions"]
    assert [row[1]["text"] for row in rows] == ["holds"] * len(suite.verdict.conditions)
    for row, each in zip(rows, suite.verdict.conditions, strict=True):
        form = number_form(each)
        assert (row[0]["text"], row[2]["text"]) == (each.name, each.said)
        assert values(row) == [each.mean]
        level = f"{100 * each.level:g}\u00a0% level"
        assert row[4]["text"] == f"{spanned(each.ci, form)}{level}"
    assert suite.control_verdict is not None
    (control,) = page.tables["training-1-control"][1:]
    assert [control[1]["text"], *values(control)] == ["does not hold", suite.control_verdict.conditions[0].mean]
    found = [values(row) for row in page.tables["training-1-diagnostics"][1:]]
    assert found == [[verdict.diagnostics[0].mean] for verdict in (suite.verdict, suite.control_verdict)]
    assert "Negative control: no benefit on the control task" in page.shown
    assert 'is the main task but for dataset = "global" (the main task: "cue").' in page.shown
    assert "Diagnostic, biased: two modes of one model" in page.shown
    assert "Controlled training cue: a finer look helps: all 5 conditions hold. Runs: 30 done." in page.shown
    headings = re.findall(r"^## (.*)$", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert headings == ["Warnings", "Controlled training: cue", "Method and environment"]


def test_what_could_not_be_asked_is_said(broken: tuple[Page, Path]) -> None:
    page, _ = broken
    _, *rows = page.tables["training-1-conditions"]
    states = [row[1]["text"] for row in rows]
    assert states == ["could not be asked"] * 4 + ["holds"]
    assert rows[0][2]["text"] == "open: base: seed 1 failed"
    assert "no benefit claimed" in page.shown
    assert "4 more have no number, and stand in the table alone." in page.shown


def test_every_run_is_in_the_table_and_failed_ones_say_why(broken: tuple[Page, Path]) -> None:
    page, _ = broken
    suite = suite_with_failures()
    _, *rows = page.tables["training-1-runs"]
    assert len(rows) == len(suite.runs) == 30
    runs = {(run.arm, run.task, run.seed): run for run in suite.runs}
    for row in rows:
        run = runs.pop((row[0]["text"], row[1]["text"], int(row[2]["text"])))
        last = [run.final["loss"]] if run.evaluations else []
        kernel = [] if run.kernel_active_share is None else [run.kernel_active_share]
        assert row[3]["text"] == run.state + run.reason
        assert values(row) == [
            run.seed, *last, run.samples_seen, run.steps, run.samples_per_second, run.data_wait_share, *kernel,
            run.peak_memory_bytes, run.num_resumed,
        ]  # fmt: skip
    assert not runs
    assert "Any kernel ran: the share of time that any kernel ran on the GPU" in page.shown
    assert "Runs: 27 done, 2 failed, 1 stopped; seeds 0, 1, 2." in page.shown
    assert "they are in no mean and no band. 1 of them ended before their first evaluation." in page.shown
    (event,) = page.tables["training-1-events"][1:]
    assert [cell["text"] for cell in event] == ["base, control, seed 0", "step 120: out of memory, micro-batches of 32"]


def test_last_values_are_means_of_the_seeds_that_are_done(broken: tuple[Page, Path]) -> None:
    page, _ = broken
    suite = suite_with_failures()
    head, *rows = page.tables["training-1-finals"]
    names = [cell["text"].replace(" ", "_") for cell in head[3:]]
    assert names == ["loss", "fine", "coarse"]
    assert [(row[0]["text"], row[1]["text"]) for row in rows] == [
        (arm, task) for task in (MAIN, CONTROL) for arm in (BASE, *ARMS)
    ]
    (base,) = [row for row in rows if (row[0]["text"], row[1]["text"]) == (BASE, MAIN)]
    finals = [run.final for run in suite.runs if (run.arm, run.task) == (BASE, MAIN) and run.state != FAILED]
    assert base[2]["text"] == "2of 3"
    assert values(base) == [2, *(pytest.approx(sum(final[name] for final in finals) / 2) for name in names)]
    head, *rows = page.tables["training-1-looks-table"]
    looks = ["entropy_static", "entropy_dynamic", "query_diversity"]
    assert [cell["text"].replace(" ", "_") for cell in head[3:]] == looks
    assert values(rows[0]) == [2, *(pytest.approx(sum(final[name] for final in finals) / 2) for name in looks)]


def test_planned_time_stands_beside_actual_time(broken: tuple[Page, Path]) -> None:
    page, _ = broken
    suite = suite_with_failures()
    rows = {row[0]["text"]: row for row in page.tables["training-1-time-table"][1:]}
    assert len(rows) == 30
    for run in suite.runs:
        row = rows[f"{run.arm}, {run.task}, seed {run.seed}"]
        planned = [] if run.plan is None else [run.plan.spent.wall_s]
        is_whole = run.plan is not None and run.state == "done" and not run.num_resumed
        quotient = [run.spent.wall_s / planned[0]] if is_whole else []
        assert values(row) == [*planned, run.spent.wall_s, *quotient, *asdict(run.spent).values()]
    assert "In the table alone: 4 runs that ended early or did not run at once." in page.shown


def test_arms_the_audit_and_the_recipe_are_told(broken: tuple[Page, Path]) -> None:
    page, _ = broken
    assert [tuple(cell["text"] for cell in row) for row in page.tables["training-1-arms-table"][1:]] == [*ARMS.items()]
    audit = [[cell["text"] for cell in row] for row in page.tables["training-1-parameters"][1:]]
    assert audit[:4] == [
        ["attention", "base", "16,640", "0", "0"],
        ["language_model", "base", "112,384", "0", "0"],
        ["reconstruction", "base", "0", "8,256", "4,096"],
        ["all parts", "base", "129,024", "8,256", "4,096"],
    ]
    assert audit[4] == ["attention", ", ".join(ARMS), "16,640", "64", "0"]
    assert len(audit) == 8
    assert "learning rate 0.00300" in page.shown
    assert suite_with_failures().warnings[0] in page.shown


def test_captions_say_n_and_what_bands_and_intervals_are(broken: tuple[Page, Path]) -> None:
    page, folder = broken
    captions = page.shown.replace("\u00a0", " ")
    assert captions.count("Seeds of each arm: n = 3, 2 to 3 of them done; 1,000 validation samples.") == 3
    assert "from the lowest to the highest of them as a band, which is no interval" in captions
    assert "mean over the seeds and interval, whose level stands behind it" in captions
    assert "its 95 % interval" in captions
    assert "divided by ln N of N tokens" in captions
    assert "base with seed 0, coarse with seed 0. Samples of the validation set: clips/00000.npy" in captions
    alts = [found["alt"] or "" for found in page.all("img")]
    assert len(alts) == 5
    assert "base on the main task, seed 1, which failed after 20,000 samples" in alts[1]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == PICTURES
    text = (folder / "report.md").read_text()
    assert [name for name in PICTURES if f"(figures/{name})" in text] == PICTURES


def test_one_run_without_verdict_maps_and_plan_has_no_empty_sections(tmp_path: Path) -> None:
    page = report(tmp_path, bare_suite())
    assert "No verdict was asked for." in page.shown
    assert page.tables.keys() == {"training-1-finals", "training-1-runs", "training-1-time-table"}
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["train_loss.png", "train_time.png"]
    assert "Where queries look" not in page.shown
    assert "The time of 1 run as a table" in page.shown
    assert "Without a plan: 1 run." in page.shown


@pytest.mark.usefixtures("no_figures")
def test_a_suite_without_runs_and_one_whose_validation_sets_differ(tmp_path: Path) -> None:
    page = report(tmp_path / "none", replace(bare_suite(), runs=()))
    assert "Runs: none" in page.shown
    suite = bare_suite()
    other = replace(suite.runs[0], seed=1, validation_hash="0" * 64)
    page = report(tmp_path / "two", replace(suite, runs=(*suite.runs, other)))
    assert "were evaluated on 2 different validation sets (000000000000, cdcdcdcdcdcd): do not compare" in page.shown


@pytest.mark.usefixtures("empty_figures")
def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = report(tmp_path, hostile_suite(HOSTILE))
    assert not page.all("script")
    assert len(page.all("img")) == 5
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert page.shown.count(HOSTILE) > 10
    text = (tmp_path / "report.md").read_text()
    assert not re.search(r"(?<!\\)<", text)
    assert "7*7" not in text.replace(r"7\*7", "")


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800 \x00 \x1b[31m 名前 🎬 \u202e", "line\n\n# heading\n| a", ""])
def test_any_text_gives_a_report(tmp_path: Path, text: str) -> None:
    report(tmp_path, hostile_suite(text))
    assert (tmp_path / "report.md").read_text().count("\n# ") == 0
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_several_suites_have_a_section_each_and_earlier_pictures_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_view, "FIGURES", train_view.FIGURES[-1:])
    page = report(tmp_path, bare_suite(), replace(bare_suite(), name="other"))
    assert {"training-1-runs", "training-2-runs"} <= page.tables.keys()
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "train_time-2.png", "train_time.png",
    ]  # fmt: skip
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {str(found["href"])[1:] for found in page.all("a")} <= set(ids)
    write_results(Results(name="x", profiles={}, ablations={"a.json": minimal_ablation()}), tmp_path)
    assert not list((tmp_path / "figures").glob("train_*"))


def test_suites_are_found_in_the_folder_and_in_folders_of_it_and_broken_ones_left_out(tmp_path: Path) -> None:
    places = {"": bare_suite(), "cue": made_suite(), "cut": bare_suite(), "odd": bare_suite(), "old": bare_suite()}
    for place, suite in places.items():
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / RESULT_FILE).write_text(json.dumps(suite.document()))
    (tmp_path / "cut" / RESULT_FILE).write_text('{"format": "fovbench train 1", "runs": [')
    for place, change in {"odd": {"runs": [{"arm": ["a"]}], "model": 3}, "old": {"format": "fovbench train 0"}}.items():
        path = tmp_path / place / RESULT_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / RUN_FILE).write_text(json.dumps(bare_suite().runs[0].document()))
    found = find_results(tmp_path)
    assert {name: len(each.runs) for name, each in found.trainings.items()} == {"train.json": 1, "cue/train.json": 30}
    assert found.trainings["cue/train.json"] == read_suite(tmp_path / "cue" / "train.json") == made_suite()
    reasons = dict(warning.split(" is left out: ") for warning in found.warnings)
    assert reasons.keys() == {RUN_FILE, "cut/train.json", "odd/train.json", "old/train.json"}
    assert "run `fovbench train` again" in reasons["old/train.json"]
    assert find_caches(tmp_path, found.cached)[1] == [
        f"the cache features of {name} is not there: --cache says where it is" for name in found.trainings
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"fovbench train CONFIG\.toml --out DIR"):
        find_results(tmp_path / "empty")


def test_the_command_passes_suites_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RESULT_FILE).write_text(json.dumps(bare_suite().document()))
    monkeypatch.setattr("sys.argv", ["fovbench", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        run_command(app)
    assert not stop.value.code
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report.html")
    assert "training-1-runs" in Page((tmp_path / "report.html").read_text()).tables
