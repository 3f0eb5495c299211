"""The report of a folder: its numbers are the results', names stay text, and what is left out is said."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from example_ablations import full_ablation, hostile_ablation, hostile_arms, made_ablation, minimal_ablation
from example_caches import example_cache
from example_profiles import faulted_profile, full_profile
from parsed_page import Page

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, FailedTrial
from fovcache.reports import Build, ReportFiles, Results, write_results
from fovcache.reports.cells import chosen, named_experiments, representations
from fovcache.reports.markdown import escaped
from fovcache.reports.names import shown

HOSTILE = "<script>alert(1)</script><img src=\"http://127.0.0.1/x\" onerror='alert(2)'>&amp;|`*[a](b)${{7*7}}{%raw%}"
PROFILE = ("waterfall", "timeline", "what_if")
ABLATION = ("forest", "differences", "heat_map", "confusion", "reliability")
COLD = Build(
    file="build.json", dataset="digits", samples=1200, computed=1197, reused=0, failed=3, seconds=36.4,
    load_seconds=1.2, bytes_written=1_612_032,
)  # fmt: skip
WARM = replace(COLD, file="again.json", computed=0, reused=1197, seconds=0.31, bytes_written=0)


def example_results() -> Results:
    return Results(
        name="results",
        profiles={"profile.json": full_profile()},
        builds=(COLD, WARM),
        caches=(example_cache(),),
        ablations={"digits/ablation.json": full_ablation()},
        warnings=("notes.json is left out: it is no result",),
    )


pytestmark = pytest.mark.usefixtures("coarse_figures")


@pytest.fixture(scope="module")
def files(coarse_figures: None, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_results(example_results(), tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(files: ReportFiles) -> Page:
    return Page(files.html.read_text())


def values(row: list[dict[str, Any]]) -> list[float]:
    return [value for cell in row for value in cell["values"]]


def test_the_table_of_estimates_holds_the_ablations_numbers(page: Page) -> None:
    ablation = full_ablation()
    for id, experiments in (("estimates", named_experiments(ablation)), ("layers", ablation.single_layers)):
        head, *rows = page.tables[f"ablation-1-{id}"]
        assert [cell["text"] for cell in head] == [
            "representation", "experiment", "features", "effective", "train", "test", "seeds", "accuracy",
            "95 % interval", "sd", "chance",
        ]  # fmt: skip
        cells = [(name, experiment) for name in representations(ablation) for experiment in experiments]
        assert len(rows) == len(cells)
        for row, cell in zip(rows, cells, strict=True):
            each = ablation.estimate(*cell)
            assert each is not None
            assert each.ci95 is not None
            said = "1 of 5 trials: not converged after 1000 iterations"
            assert (row[0]["text"], row[1]["text"]) == (cell[0], f"{cell[1]}{said}")
            assert values(row) == [
                each.num_features, each.num_effective, 780, 240, each.num_seeds, each.mean, each.sd,
                each.chance,
            ]  # fmt: skip
            low, high = (f"{100 * end:.1f}" for end in each.ci95)
            assert row[8]["text"] == f"{low}\u00a0–\u00a0{high}"
            assert row[7]["text"] == f"{100 * each.mean:.1f}\u00a0%"


def test_controls_stand_beside_what_they_control(page: Page) -> None:
    ablation = full_ablation()
    _, *rows = page.tables["ablation-1-controls"]
    cells = [(name, each) for name in representations(ablation) for each in named_experiments(ablation)]
    for row, cell in zip(rows, cells, strict=True):
        mine, random, shuffled = (
            ablation.estimate(*cell, control) for control in (NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS)
        )
        assert mine is not None
        assert random is not None
        assert shuffled is not None
        assert values(row) == [mine.mean, random.mean, shuffled.mean, mine.chance]


@pytest.mark.usefixtures("few_figures")
def test_layers_are_listed_in_the_encoders_order(tmp_path: Path) -> None:
    ablation = made_ablation(["stats"], {"all": 12}, num_seeds=2)
    mixed = {"all": tuple(sorted(ablation.experiments["all"]))}  # blocks.10 before blocks.2
    results = Results(name="x", profiles={}, ablations={"a": replace(ablation, experiments=mixed)})
    page = Page(write_results(results, tmp_path).html.read_text())
    (row,) = page.tables["ablation-1-experiments"][1:]
    assert row[2]["text"] == ", ".join(f"blocks.{number}" for number in range(12))


def test_the_summary_says_the_main_numbers_in_a_few_sentences(page: Page) -> None:
    before = page.shown.partition("Warnings")[0].replace("\u00a0", " ")
    assert "A sample takes 318 ms (11,300 samples/h), stages overlapped; the bottleneck is ffmpeg extraction" in before
    assert "Building the features of 1,197 samples took 36.4 s; building again computed none of 1,200" in before
    assert "The cache holds 1,200 samples (digits) and 2 features of vit-tiny, 1 derived from them" in before
    assert "3 samples failed" in before
    ablation = full_ablation()
    best = chosen(ablation)
    assert best is not None
    assert (
        f"Test accuracy of {best.representation} of {best.experiment}, which of 18 cells has the highest validation "
        f"accuracy: {100 * best.mean:.1f} %" in before
    )
    assert f"where chance is 10.6 %, with {best.num_effective} effective features and 780 samples in train" in before
    assert "Controls: none of 18 estimates with shuffled labels lies above chance" in before


@pytest.mark.usefixtures("few_figures")
def test_shuffled_labels_above_chance_are_counted_in_the_summary(tmp_path: Path) -> None:
    ablation = full_ablation()
    leaking = tuple(
        replace(each, mean=0.5, ci95=(0.4, 0.6))
        if each.control == SHUFFLED_LABELS and each.representation == "stats"
        else each
        for each in ablation.estimates
    )
    results = Results(name="x", profiles={}, ablations={"ablation.json": replace(ablation, estimates=leaking)})
    page = Page(write_results(results, tmp_path).html.read_text())
    assert "Controls: 3 of 18 estimates with shuffled labels lie above chance" in page.shown


def test_the_cache_and_its_provenance_are_told(page: Page) -> None:
    tables = {name: rows[1:] for name, rows in page.tables.items()}
    (dataset,) = tables["cache-1-datasets"]
    assert values(dataset) == [1200, 1150, 3, 599]
    assert dataset[4]["text"] == "none 3, train 1,197"
    assert dataset[5]["text"] == "2 of 117 to 120 samples0, 7"
    assert [cell["text"] for cell in tables["cache-1-recipes"][0]] == [
        "vit-tiny", "random:0", "8 frames, uniform", "224 px, crop, bicubic", "pyav on cpu", "float32",
        "torch 2.13, x86_64, pyav 62", "2026-11-21 03:05", "cdcdcdcdcdcd",
    ]  # fmt: skip
    assert [row[4]["text"] for row in tables["cache-1-features"]] == ["8 × 197 × 192", "various"]
    (derived,) = tables["cache-1-derived"]
    assert [cell["text"] for cell in derived[:4]] == ["spectral", "1", "k: 10", "vit-tiny"]
    assert values(derived) == [1, 1, 1197, 153_216]
    (failure,) = tables["cache-1-failures"]
    assert [cell["text"] for cell in failure] == [
        "digits", "3", "decode", "corrupt frame 31", "when the decoder changes",
    ]  # fmt: skip
    assert [values(row)[:6] for row in tables["builds-table"]] == [
        [1200, 1197, 0, 3, 36.4, 1.2], [1200, 0, 1197, 3, 0.31, 1.2],
    ]  # fmt: skip


def test_the_order_is_summary_time_cache_ablation_method(page: Page, files: ReportFiles) -> None:
    titles = ["Where the time goes", "Building the cache", "What is in the cache", "Ablation: digits",
              "Method and environment"]  # fmt: skip
    targets = [found["href"] for found in page.all("a")]
    assert targets == ["#summary", "#profile-1-time", "#builds", "#cache-1-contents", "#ablation-1-results", "#method"]
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets if target} <= set(ids)
    assert [id for id in ids if f"#{id}" in targets] == [target[1:] for target in targets if target]
    assert files.markdown is not None
    headings = re.findall(r"^## (.*)$", files.markdown.read_text(), re.MULTILINE)
    assert headings == ["Warnings", *titles]


def test_the_estimand_and_the_method_are_in_words(page: Page) -> None:
    ablation = full_ablation()
    for text in (ablation.estimand, ablation.interval, str(ablation.protocol["seed_varies"]), *ablation.warnings):
        assert text in page.shown
    assert "notes.json is left out: it is no result" in page.shown


def test_the_page_loads_and_runs_nothing_and_can_be_used_without_seeing_it(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    policy = [found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag, found in page.tags:
        for name, value in found.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset"):
                assert (value or "").startswith("data:image/png;base64,"), tag
    assert len(page.all("h1")) == 1
    assert [len(image["alt"] or "") > 60 for image in page.all("img")] == [True] * 8
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_pictures_lie_in_figures_and_the_markdown_shows_them(files: ReportFiles) -> None:
    folder = files.html.parent
    assert [str(path.relative_to(folder)) for path in files.pngs] == [
        f"figures/{name}.png" for name in (*PROFILE, "forest", "differences", "heat_map", "confusion", "reliability")
    ]
    assert files.markdown is not None
    shown_files = re.findall(r"^!\[.*\]\((.*)\)$", files.markdown.read_text(), re.MULTILINE)
    assert [folder / name for name in shown_files] == list(files.pngs)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files.pngs)


def test_the_markdown_has_the_pages_tables(files: ReportFiles, page: Page) -> None:
    assert files.markdown is not None
    lines = files.markdown.read_text().splitlines()
    for id in ("ablation-1-classes", "ablation-1-controls", "ablation-1-differences", "cache-1-features"):
        for row in page.tables[id]:
            expected = " | ".join(escaped(cell["text"]) for cell in row)
            assert f"| {expected} |" in lines, id
    tables = re.findall(r"(?:^\|.*\n)+", files.markdown.read_text(), re.MULTILINE)
    for table in tables:  # every row of a table has as many cells
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def hostile(value: Any, text: str) -> Any:
    """The value with this text in every place that holds any, but for what must stay an id."""
    if isinstance(value, str):
        return text
    if is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Ablation):
            return hostile_ablation(text)
        kept = {"StageTimes": "id", "WhatIf": "id", "Span": "stage"}.get(type(value).__name__)
        names = [each.name for each in fields(value) if each.name != kept]
        return replace(value, **{name: hostile(getattr(value, name), text) for name in names})
    if isinstance(value, dict):
        return {f"{text}{number}": hostile(item, text) for number, item in enumerate(value.values())}
    if isinstance(value, list | tuple):
        return type(value)(hostile(item, text) for item in value)
    return value


def tainted(text: str) -> Results:
    results = example_results()
    profile = replace(
        hostile(full_profile(), text),
        failures=({"uri": text, "stage": text, "reason": text, "n": 1},),
        **{name: {text: text} for name in ("environment", "settings", "memory", "gpu", "host", "recordings")},
    )
    failed = FailedTrial(representation=text, experiment=text, control=text, seed=0, reason=text)
    return Results(
        name=text,
        profiles={text: profile},
        builds=hostile(results.builds, text),
        caches=hostile(results.caches, text),
        ablations={text: replace(hostile_ablation(text), failures=(failed,))},
        arms={text: hostile_arms(text)},
        warnings=(text,),
    )


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    files = write_results(tainted(HOSTILE), tmp_path)
    page = Page(files.html.read_text())
    assert not page.all("script")
    assert len(page.all("img")) == 9  # arms have one
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert page.shown.count(HOSTILE) > 100  # shown as it is, in every place
    assert files.markdown is not None
    text = files.markdown.read_text()
    assert not re.search(r"(?<!\\)<", text)
    assert "7*7" not in text.replace(r"7\*7", "")
    for line in text.splitlines():
        assert re.fullmatch(r"[^\x00-\x08]*", line)
        if line.startswith("!["):
            assert re.fullmatch(r"!\[(?:[^\[\]\\]|\\.)*\]\(figures/\w+\.png\)", line)


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800 \x00 \x1b[31m 名前 🎬 \u202e", "line\n\n# heading\n| a", ""])
def test_any_text_gives_a_report(tmp_path: Path, text: str) -> None:
    files = write_results(replace(tainted(text), profiles={}), tmp_path)  # a profile's names: test_report_page
    Page(files.html.read_text())
    assert files.markdown is not None
    assert files.markdown.read_text().count("\n# ") == 0
    assert files.html.stat().st_size < 6_000_000


def test_what_runs_from_right_to_left_is_kept_apart() -> None:
    assert shown("abc") == "abc"
    assert shown("\u202egnp.exe") == "\u2068\ufffdgnp.exe\u2069"
    assert shown("שלום") == "\u2068שלום\u2069"
    assert shown("a\n b\x00") == "a b\ufffd"
    assert len(shown("x" * 500)) == 120


def test_a_minimal_ablation_has_no_empty_sections(tmp_path: Path) -> None:
    results = Results(name="x", profiles={}, ablations={"ablation.json": minimal_ablation()})
    page = Page(write_results(results, tmp_path).html.read_text())
    assert "ablation-1-controls" not in page.tables
    assert "Controls" not in page.shown
    assert "Layer by layer" not in page.shown
    head, row = page.tables["ablation-1-estimates"]
    assert head[-1]["text"] == "chance"  # no linear baseline
    assert row[8]["text"] == row[9]["text"] == "–"
    for absent in ("Where the time goes", "Differences", "Arms"):
        assert absent not in page.shown
    assert len(page.all("img")) == 3


def test_several_profiles_and_ablations_have_a_section_each(tmp_path: Path) -> None:
    small = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=2)
    results = Results(
        name="x",
        profiles={"a.json": faulted_profile(), "b.json": faulted_profile()},
        ablations={"one/ablation.json": small, "two/ablation.json": replace(small, name="second")},
    )
    files = write_results(results, tmp_path)
    page = Page(files.html.read_text())
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for title in ("Where the time goes: a.json", "Where the time goes: b.json", "Ablation: digits", "Ablation: second"):
        assert title in page.shown
    assert page.shown.index("Ablation digits: Test") < page.shown.index("Ablation second: Test")
    assert page.shown.count("This profile ended early, in ffmpeg extraction (pyav)") == 2
    assert [path.name for path in files.pngs] == [
        "waterfall.png", "waterfall-2.png", *(f"{name}.png" for name in ABLATION),
        *(f"{name}-2.png" for name in ABLATION),
    ]  # fmt: skip


@pytest.mark.usefixtures("few_figures")
def test_an_earlier_reports_pictures_go_and_nothing_else(tmp_path: Path) -> None:
    small = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=2)
    both = Results(name="x", profiles={}, ablations={"one": small, "two": small})
    write_results(replace(both, cells=("stats:all",)), tmp_path)
    mine = {"figures/mine.png": b"a", "figures/forest-x.png": b"b", "waterfall.png": b"c", "profile.json": b"d"}
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    write_results(replace(both, ablations={"one": minimal_ablation()}), tmp_path)
    left = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert left.keys() == mine.keys() | {"report.html", "report.md", "figures/forest.png"}
    assert {name: left[name] for name in mine} == mine


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    small = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=2)
    results = replace(example_results(), profiles={}, ablations={"ablation.json": small})
    one, two = (write_results(results, tmp_path / name) for name in ("one", "two"))
    assert one.html.read_bytes() == two.html.read_bytes()
    assert [path.read_bytes() for path in one.pngs] == [path.read_bytes() for path in two.pngs]
    assert (tmp_path / "one" / "report.md").read_bytes() == (tmp_path / "two" / "report.md").read_bytes()
