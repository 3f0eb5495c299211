"""Feature quality in the report of a folder: its numbers are the result's, its figures show them, names stay text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_figures import picture, rgb
from example_ablations import minimal_ablation
from example_qualities import hostile_quality, made_quality
from parsed_page import Page

from fovcache.bench.results_folder import find_results
from fovcache.errors import UsageError
from fovcache.probes.quality.page import write_quality
from fovcache.probes.quality.result import Quality
from fovcache.reports import Results, write_results
from fovcache.reports.layer_similarity import MAX_LAYERS, draw_layer_similarity
from fovcache.reports.palette import DARK, LIGHT, series_colours
from fovcache.reports.rank_bars import draw_rank_bars

HOSTILE = "<script>alert(1)</script><img src=\"http://127.0.0.1/x\" onerror='alert(2)'>&amp;|`*[a](b)${{7*7}}{%raw%}"


def report(folder: Path, *qualities: Quality) -> Page:
    named = {f"{number}/quality.json": each for number, each in enumerate(qualities)}
    results = Results(name="results", profiles={}, ablations={}, qualities=named)
    return Page(write_results(results, folder).html.read_text())


def test_the_tables_hold_the_results_numbers(tmp_path: Path) -> None:
    quality = made_quality()
    page = report(tmp_path, quality)
    _, *ranks = page.tables["quality-1-ranks"]
    _, *spread = page.tables["quality-1-spread"]
    assert len(ranks) == len(spread) == len(quality.layers)
    for row, other, each in zip(ranks, spread, quality.layers, strict=True):
        found, twin = each.numbers, each.twin
        assert twin is not None
        assert (row[0]["text"], row[1]["text"]) == (each.layer, each.verdict)
        assert [value for cell in row for value in cell["values"]] == [
            found.num_vectors, found.num_dimensions, found.variance_rank, found.gaussian_share,
            found.participation_ratio, found.largest_share, found.effective_rank, found.rankme,
        ]  # fmt: skip
        assert f"twin {100 * twin.gaussian_share:.1f}" in row[5]["text"]
        shown = [found.mean_variance, found.num_constant, found.mean_cosine, found.isotropy, found.uniformity,
                 each.cka_with_twin]  # fmt: skip
        assert [value for cell in other for value in cell["values"]] == [value for value in shown if value is not None]
    _, *cka = page.tables["quality-1-cka"]
    for place, row in enumerate(cka):
        assert [value for cell in row for value in cell["values"]] == [
            value for value in quality.cka[place] if value is not None
        ]
    assert [len(cell["values"]) for cell in cka[0][1:]] == [0] * 6  # the first layer is constant


def test_what_was_found_is_said_with_n_and_definitions_stand_below(tmp_path: Path) -> None:
    quality = made_quality()
    page = report(tmp_path, quality)
    text = page.shown.replace("\u00a0", " ")
    assert f"Feature quality of vit-tiny, 6 layers, 120 vectors each: {quality.verdicts}." in text
    assert "120 samples, drawn by content from 1,200 (seed 0)" in text
    assert "blocks.0: constant, since no dimension varies beyond rounding, of 120 vectors of 12 dimensions." in text
    assert "the same encoder with random weights (random:0)" in text
    assert quality.warnings[0] in text
    for name, definition in quality.definitions.items():
        assert f"{name}: {definition}" in text
    assert [found["href"] for found in page.all("a")] == ["#summary", "#quality-1-results", "#method"]
    headings = re.findall(r"^## (.*)$", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert headings == ["Warnings", "Feature quality: vit-tiny", "Method and environment"]


def test_without_a_twin_its_absence_and_the_way_to_one_are_said(tmp_path: Path) -> None:
    page = report(tmp_path, made_quality(3, has_twin=False))
    assert "No twin stands beside it: a twin would show" in page.shown
    assert "no random twin beside." in page.shown
    assert "twin " not in " ".join(cell["text"] for row in page.tables["quality-1-ranks"] for cell in row)
    assert len(page.all("img")) == 2


def test_one_layer_without_a_twin_has_nothing_to_compare(tmp_path: Path) -> None:
    page = report(tmp_path, made_quality(1, has_twin=False))
    assert "quality-1-cka" not in page.tables
    assert "How alike layers are" not in page.shown
    assert len(page.all("img")) == 1


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = report(tmp_path, hostile_quality(HOSTILE))
    assert not page.all("script")
    assert len(page.all("img")) == 2
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert page.shown.count(HOSTILE) > 10
    text = (tmp_path / "report.md").read_text()
    assert not re.search(r"(?<!\\)<", text)
    assert "7*7" not in text.replace(r"7\*7", "")


@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800 \x00 \x1b[31m 名前 🎬 \u202e", "line\n\n# heading\n| a", ""])
def test_any_text_gives_a_report(tmp_path: Path, text: str) -> None:
    report(tmp_path, hostile_quality(text))
    assert (tmp_path / "report.md").read_text().count("\n# ") == 0
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_bars_are_as_long_as_ranks_and_in_both_themes() -> None:
    quality = made_quality(2)
    long = replace(quality.layers[0].numbers, variance_rank=8.0, rankme=8.0)
    short = replace(long, variance_rank=2.0, rankme=2.0)
    layers = tuple(
        replace(each, numbers=numbers, twin=None) for each, numbers in zip(quality.layers, (long, short), strict=True)
    )
    for theme in (LIGHT, DARK):
        pixels = picture(draw_rank_bars, replace(quality, layers=layers), theme)
        colour = rgb(series_colours(["layer"], theme)["layer"])
        third = (pixels == colour).all(axis=2)[:, : pixels.shape[1] // 3]
        lengths = third.sum(axis=1)
        rows = np.unique(lengths[lengths > 20])
        assert rows.max() / rows.min() == pytest.approx(4, rel=0.05)


def test_missing_and_unnatural_numbers_draw_nothing_and_break_nothing(tmp_path: Path) -> None:
    quality = made_quality(3)
    odd = replace(quality.layers[1].numbers, variance_rank=math.nan, rankme=math.inf, mean_cosine=None, isotropy=-1e300)
    layers = (quality.layers[0], replace(quality.layers[1], numbers=odd, twin=odd), quality.layers[2])
    cka = ((1.0, None, math.nan), (None, 1.0, -1e300), (math.nan, -1e300, 1.0))
    page = report(tmp_path, replace(quality, layers=layers, cka=cka))
    assert len(page.all("img")) == 2


def test_many_layers_are_cut_in_figures_and_said_so(tmp_path: Path) -> None:
    quality = made_quality(2)
    layers = tuple(replace(quality.layers[0], layer=f"blocks.{place}") for place in range(130))
    cka = tuple(tuple(1.0 for _ in layers) for _ in layers)
    page = report(tmp_path, replace(quality, layers=layers, cka=cka))
    assert "10 more layers are in the table alone." in page.shown
    assert f"{130 - MAX_LAYERS} more layers are in the result's file alone." in page.shown
    assert len(page.tables["quality-1-ranks"]) == 131


def test_the_square_is_coloured_by_its_numbers() -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    quality = made_quality(2, has_twin=False)
    pixels = picture(draw_layer_similarity, replace(quality, cka=((1.0, 0.25), (0.25, 1.0))))
    sizes = [(pixels == rgb(to_hex(colormaps["viridis"](value)))).all(axis=2).sum() for value in (1.0, 0.25)]
    assert min(sizes) > 10_000
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_several_results_have_a_section_each_and_earlier_pictures_go(tmp_path: Path) -> None:
    page = report(tmp_path, made_quality(2), replace(made_quality(2), encoder="other"))
    assert {"quality-1-ranks", "quality-2-ranks"} <= page.tables.keys()
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "ranks-2.png", "ranks.png", "similarity-2.png", "similarity.png",
    ]  # fmt: skip
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    write_results(Results(name="x", profiles={}, ablations={"a.json": minimal_ablation()}), tmp_path)
    assert not list((tmp_path / "figures").glob("ranks*")) + list((tmp_path / "figures").glob("similarity*"))


def test_results_are_found_in_the_folder_and_in_folders_of_it(tmp_path: Path) -> None:
    write_quality(made_quality(2), tmp_path)
    write_quality(made_quality(3), tmp_path / "other")
    (tmp_path / "old.json").write_text(json.dumps({"format": "fovbench quality 0"}))
    found = find_results(tmp_path)
    assert {name: len(each.layers) for name, each in found.qualities.items()} == {
        "quality.json": 2, "other/quality.json": 3,
    }  # fmt: skip
    assert len(found.warnings) == 1
    assert "old.json is left out" in found.warnings[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="fovbench quality CACHE --out DIR"):
        find_results(tmp_path / "empty")
