"""The report of a profile: its numbers are the profile's, text stays text, and nothing is loaded or run."""

import base64
import json
import re
import resource
import signal
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from example_profiles import faulted_profile, full_profile, serial_profile, stage_times
from parsed_page import Page
from PIL import Image

from fovcache.bench.profiler.result import Fault, Profile
from fovcache.reports import ReportFiles, write_report
from fovcache.reports import numbers as formats

HOSTILE = "<script>alert(1)</script><img src=\"http://127.0.0.1/x\" onerror='alert(2)'>&amp;$x_{1}${{7*7}}{%raw%}"


def page_of(profile: Profile, folder: Path) -> Page:
    return Page(write_report(profile, folder).html.read_text())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    profile = Profile.from_document(json.loads(json.dumps(full_profile().document())))
    return write_report(profile, tmp_path_factory.mktemp("report"))


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures with few pixels, which are quickly drawn."""
    monkeypatch.setattr("fovcache.reports.figures.DPI", 40)


@pytest.fixture(scope="module")
def page(files: ReportFiles) -> Page:
    return Page(files.html.read_text())


def test_the_stage_table_holds_the_profiles_numbers(page: Page) -> None:
    profile = full_profile()
    serial = profile.serial
    assert serial is not None
    head, *rows = page.tables["stages"]
    assert [cell["text"] for cell in head] == [
        "stage", "n", "mean", "median", "p10", "p90", "95 % interval", "core time", "total (s)", "failed", "share",
    ]  # fmt: skip
    assert len(rows) == len(profile.stages) + 2
    for row, stage in zip(rows, profile.stages, strict=False):
        assert stage.name in row[0]["text"]
        assert stage.resource in row[0]["text"]
        units = [float(stage.num_units)] if stage.num_units != stage.n else []
        failed = [float(stage.failed)] + ([stage.failed_s] if stage.failed else [])
        assert [cell["values"] for cell in row[1:]] == [
            [stage.n, *units], [stage.mean_s], [stage.median_s], [stage.p10_s], [stage.p90_s], list(stage.ci95_s),
            [stage.cpu_s], [stage.total_s], failed, [stage.share],
        ]  # fmt: skip
    values = [[cell["values"] for cell in row if cell["values"]] for row in rows[-2:]]
    rest = serial.unattributed_share
    assert values[0] == [[rest * serial.s_per_sample], [rest * serial.wall_s], [rest]]
    assert values[1] == [[serial.n], [serial.s_per_sample], [serial.wall_s], [1]]


def test_what_is_read_is_what_the_numbers_are(page: Page) -> None:
    """A cell's text says its value to three digits, in the unit of the caption."""
    assert "Times in ms a sample" in page.shown
    for row in page.tables["stages"][1:]:
        for cell in row[2:3]:
            assert float(cell["text"].replace(",", "")) == pytest.approx(1000 * cell["values"][0], rel=0.0051)
        share = row[-1]
        assert share["text"] == f"{100 * share['values'][0]:.1f}\u00a0%"
    for row in page.tables["predictions"][1:]:
        if len(row) > 2:
            assert float(row[2]["text"].replace(",", "")) == pytest.approx(row[2]["values"][0], rel=0.0051)


def test_predictions_stand_beside_measurements(page: Page) -> None:
    rows = page.tables["predictions"][1:]
    for each in full_profile().predicted:
        row = rows.pop(0)
        assert row[0]["text"] == each.change
        assert [cell["values"] for cell in row[1:4]] == [[each.s_per_sample], [each.samples_per_hour], [each.speedup]]
        assert row[5]["values"] == ([] if each.ceiling is None else [each.ceiling])
        assert row[6]["values"] == ([] if each.bytes_on_disk is None else [each.bytes_on_disk])
        if each.measured:
            assert [value for cell in row[7:] for value in cell["values"]] == [
                each.measured.s_per_sample, each.measured.n, each.measured.samples_per_hour, each.measured.error,
            ]  # fmt: skip
        else:
            assert row[7]["text"] == (each.not_measured or "not measured: --verify does")
        if each.command:
            assert rows.pop(0)[0]["text"] == each.command
    assert not rows


def test_the_headline_and_the_method(page: Page) -> None:
    profile = full_profile()
    assert profile.serial is not None
    assert profile.overlapped is not None
    rates = [
        profile.serial.samples_per_hour,
        profile.overlapped.samples_per_hour,
        profile.predicted[0].samples_per_hour,
    ]
    values = [float(found["value"] or "nan") for found in page.all("data")]
    assert [value for value in values if value in rates][:3] == rates
    shown = page.shown.replace("\u00a0", " ")
    assert "6,190 samples/h" in shown
    assert "Bottleneck: ffmpeg extraction (pyav) (cpu): the device waits 22.6 % of the time" in shown
    for line in (*profile.advice, *profile.warnings, profile.ci_method):
        assert " ".join(line.split()) in shown
    assert "Warm-up: 32 samples before the measured ones were dropped" in shown
    assert "0.2 % of the serial and 0.6 % of the overlapped wall time (the same run without clocks, 3 times)" in shown
    assert "share of time in which any kernel ran 74.3 % on average" in shown
    for text in (
        "torch 2.13.0",
        "batch size 8",
        "13.0 GiB",
        "throttled not measured: the driver does not tell",
        "trace: kernels 1912",
    ):
        assert text in shown
    assert "HTTP 404 Not Found" in shown


def test_it_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "svg",
    } == set()
    policy = [found["content"] for found in page.all("meta") if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert page.tags.index(("meta", page.all("meta")[1])) < [tag for tag, _ in page.tags].index("style")
    for tag, found in page.tags:
        for name, value in found.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset"):
                assert (value or "").startswith("data:image/png;base64,"), tag
            if name == "href":
                assert (value or "").startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    targets = {(found["href"] or "")[1:] for found in page.all("a")}
    targets |= {found["aria-labelledby"] for _, found in page.tags if "aria-labelledby" in found}
    assert targets <= set(ids)


def test_it_can_be_used_without_seeing_it(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("img")) == 3
    for image in page.all("img"):
        assert len(image["alt"] or "") > 60
        assert int(image["width"] or 0) == 960
    assert len(page.all("caption")) == len(page.all("table"))
    for rows in page.tables.values():
        assert all(cell["tag"] == "th" and cell["scope"] == "col" for cell in rows[0])
        assert all(row[0].get("scope") == "row" for row in rows[1:] if "colspan" not in row[0])


def test_a_shade_of_the_stages_colour_stands_in_its_row(page: Page) -> None:
    from fovcache.reports.palette import stage_colours

    colours = stage_colours([stage.id for stage in full_profile().stages])
    swatches = [found["style"] for found in page.all("span") if found.get("class") == "swatch"]
    assert swatches == [f"background:{colour}" for colour in colours.values()]


@pytest.mark.usefixtures("coarse")
def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = _hostile(full_profile(), HOSTILE)
    page = page_of(hostile, tmp_path)
    assert not page.all("script")
    assert len(page.all("img")) == 3
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert page.shown.count(HOSTILE) > 60  # shown as it is, in every place
    assert "49" not in {cell["text"] for rows in page.tables.values() for row in rows for cell in row}
    for found in page.all("span"):
        assert re.fullmatch(r"(width:[\d.]+%;)?background:#[0-9a-f]{6}", found.get("style") or "background:#000000")


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800 \x00 \x1b[31m 名前 🎬 \u202e", ""])
def test_any_text_gives_a_page(tmp_path: Path, text: str) -> None:
    page = page_of(_hostile(full_profile(), text), tmp_path)
    assert "Stage-time profile" in page.shown


@pytest.mark.usefixtures("coarse")
def test_a_fault_is_said_at_the_top_and_what_there_is_is_shown(tmp_path: Path) -> None:
    profile = faulted_profile()
    assert profile.fault is not None
    page = page_of(profile, tmp_path)
    shown = page.shown
    assert shown.index(profile.fault.reason) < shown.index("Summary")
    assert "ended early, in ffmpeg extraction (pyav)" in shown
    assert shown.count("not measured") >= 2
    rows = page.tables["stages"][1:]
    assert [row[2]["values"] for row in rows] == [[stage.mean_s] for stage in profile.stages]
    assert [row[-1]["text"].strip() for row in rows] == [formats.ABSENT] * 2  # shares of nothing
    assert "predictions" not in page.tables
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "waterfall.png"]


def test_a_fault_before_anything_was_measured(tmp_path: Path) -> None:
    fault = Fault(stage="source", reason="no sample came from it")
    nothing = Profile(environment={}, settings={}, warmup_dropped=0, stages=(), fault=fault)
    page = page_of(nothing, tmp_path)
    assert "ended early, in source: no sample came from it" in page.shown
    assert "No stage was measured." in page.shown
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.usefixtures("coarse")
def test_without_a_gpu_it_says_why(tmp_path: Path) -> None:
    full = full_profile()
    assert full.overlapped is not None
    run = replace(full.overlapped, busy={"cpu": 0.98, "step": 0.71}, device_s={})
    profile = replace(full, gpu={"absent": "NVML is not installed here"}, overlapped=run)
    shown = page_of(profile, tmp_path).shown
    assert "Not measured: NVML is not installed here" in shown
    assert "any kernel ran" not in shown


@pytest.mark.usefixtures("coarse")
def test_thirty_stages_and_long_names(tmp_path: Path) -> None:
    stages = [stage_times(f"stage{k}", f"stage {k} " + "name" * 40, "cpu", 0.01 * (k + 1)) for k in range(30)]
    page = page_of(serial_profile(stages), tmp_path)
    assert len(page.tables["stages"]) == 33
    assert all(stage.name in page.shown for stage in stages)  # the figure cuts them, the table does not


@pytest.mark.usefixtures("coarse")
def test_many_failures_are_cut_and_counted(tmp_path: Path) -> None:
    failures = tuple({"uri": f"clip-{k}.mp4", "stage": "fetch", "reason": "gone", "n": 1} for k in range(1234))
    shown = page_of(replace(faulted_profile(), failures=failures), tmp_path).shown
    assert "The first 100 of 1,234" in shown
    assert "clip-99.mp4" in shown
    assert "clip-100.mp4" not in shown


def test_pictures_in_the_page_are_the_files_beside_it(files: ReportFiles, page: Page) -> None:
    inside = [base64.b64decode((found["src"] or "").partition(",")[2]) for found in page.all("img")]
    assert inside == [path.read_bytes() for path in files.pngs]
    assert [path.name for path in files.pngs] == ["waterfall.png", "timeline.png", "what_if.png"]
    for path, found in zip(files.pngs, page.all("img"), strict=True):
        with Image.open(path) as image:
            image.load()
            assert image.width == pytest.approx(2 * int(found["width"] or 0), abs=1)
            assert image.height == pytest.approx(2 * int(found["height"] or 0), abs=1)


def test_the_same_profile_gives_the_same_files(files: ReportFiles, tmp_path: Path) -> None:
    again = write_report(full_profile(), tmp_path / "new" / "folder")
    assert again.html.read_bytes() == files.html.read_bytes()
    assert [path.read_bytes() for path in again.pngs] == [path.read_bytes() for path in files.pngs]


@pytest.mark.usefixtures("coarse")
def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    write_report(full_profile(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    files = write_report(faulted_profile(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "waterfall.png", "notes.txt"}
    assert [path.name for path in files.pngs] == ["waterfall.png"]


@pytest.mark.usefixtures("coarse")
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_report(faulted_profile(), tmp_path / "file")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(faulted_profile(), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "waterfall.png"}


def test_a_disk_that_fills_up_leaves_the_earlier_page(tmp_path: Path) -> None:
    before = write_report(faulted_profile(), tmp_path).html.read_bytes()
    kept = {path.name for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then write() fails with EFBIG
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(OSError, match="too large"):
            write_report(full_profile(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "report.html").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.usefixtures("coarse")
def test_environment_variables_never_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretindeed")
    assert "hf_verysecretindeed" not in write_report(faulted_profile(), tmp_path).html.read_text()


def _hostile(profile: Profile, text: str) -> Profile:
    """The profile with this text in every place that holds any, but for stages' ids: they say what belongs together."""

    def taint(value: Any) -> Any:
        if isinstance(value, str):
            return text
        if is_dataclass(value) and not isinstance(value, type):
            kept = {"StageTimes": "id", "WhatIf": "id", "Span": "stage"}.get(type(value).__name__)
            names = [each.name for each in fields(value) if each.name != kept]
            return replace(value, **{name: taint(getattr(value, name)) for name in names})
        if isinstance(value, dict):
            return {text if isinstance(item, str) else name: taint(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(taint, value))
        return value

    failures = tuple(dict.fromkeys(("uri", "stage", "reason"), text) | {"n": 1} for _ in range(3))
    return replace(taint(profile), failures=failures)
