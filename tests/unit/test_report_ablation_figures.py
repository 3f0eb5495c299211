"""Figures of an ablation: marks where the numbers are, missing cells told apart, any names and any number of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from drawn_figures import picture, rgb, runs, spans_of
from example_ablations import REPRESENTATIONS, full_ablation, hostile_ablation, made_ablation, minimal_ablation

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, Estimate
from fovcache.reports import ablation_captions as captions
from fovcache.reports.cells import controls, named_experiments, representations
from fovcache.reports.figures import MAX_HEIGHT_IN, drawing
from fovcache.reports.forest import draw_forest, shown_groups
from fovcache.reports.heat_map import draw_heat_map, shown_layers
from fovcache.reports.palette import DARK, LIGHT, Theme, series_colours


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures with few pixels, which are quickly drawn."""
    monkeypatch.setattr("fovcache.reports.figures.DPI", 40)


def with_estimates(ablation: Ablation, change: dict[tuple[str, str], dict[str, object]]) -> Ablation:
    """The ablation with fields of some estimates without control replaced, by representation and experiment."""

    def changed(each: Estimate) -> Estimate:
        fields = change.get((each.representation, each.experiment), {}) if each.control == NO_CONTROL else {}
        return replace(each, **fields)

    return replace(ablation, estimates=tuple(map(changed, ablation.estimates)))


def test_an_interval_is_drawn_from_its_low_to_its_high_end_around_the_mean() -> None:
    ablation = made_ablation(["stats"], {"one": 2, "two": 2}, num_layers=2, controls=[NO_CONTROL])
    ablation = with_estimates(
        ablation,
        {
            ("stats", "one"): {"mean": 0.5, "ci95": (0.4, 0.6)},
            ("stats", "two"): {"mean": 0.35, "ci95": (0.2, 0.4)},
        },
    )
    pixels = picture(draw_forest, ablation)
    colours = series_colours(["one", "two"], LIGHT)
    found = {}
    for name, colour in colours.items():
        hit = (np.abs(pixels.astype(int) - rgb(colour)).max(axis=2) <= 2) & (np.arange(pixels.shape[0])[:, None] > 80)
        rows = hit.sum(axis=1)
        line = hit[int(rows.argmax())]
        ((left, right),) = [span for span in spans_of(line) if span[1] - span[0] > 60]
        dot = hit[:, left:right].sum(axis=0)
        middle = float(np.flatnonzero(dot == dot.max()).mean()) + left
        found[name] = left, middle, right
    per_point = (found["one"][2] - found["one"][0]) / 20
    assert found["two"][2] - found["two"][0] == pytest.approx(20 * per_point, abs=3)
    assert found["two"][2] == pytest.approx(found["one"][0], abs=3)  # both end at 40 %
    assert found["one"][1] == pytest.approx(found["one"][0] + 10 * per_point, abs=3)
    assert found["two"][1] == pytest.approx(found["two"][0] + 15 * per_point, abs=3)
    is_chance = (np.abs(pixels.astype(int) - rgb(LIGHT.wait)).max(axis=2) <= 2)[80:]  # below its name
    chance = int(is_chance.sum(axis=0).argmax())
    expected = found["two"][0] - (0.2 - ablation.estimates[0].chance) * 100 * per_point
    assert chance == pytest.approx(expected, abs=6)


def test_controls_are_hollow_and_grey_below_their_estimate() -> None:
    ablation = made_ablation(["stats"], {"late": 2}, num_layers=4)
    ablation = with_estimates(ablation, {("stats", "late"): {"mean": 0.5, "ci95": (0.45, 0.55)}})
    bare = replace(ablation, estimates=tuple(each for each in ablation.estimates if each.control == NO_CONTROL))
    with_controls, without = picture(draw_forest, ablation), picture(draw_forest, bare)
    grey = (np.abs(with_controls.astype(int) - rgb(LIGHT.muted)).max(axis=2) <= 2).sum()
    assert grey > (np.abs(without.astype(int) - rgb(LIGHT.muted)).max(axis=2) <= 2).sum() + 200
    assert controls(ablation, ["late"]) == [RANDOM_LAYERS, SHUFFLED_LABELS]
    assert "Hollow: controls" in captions.forest_caption(ablation)
    assert "Hollow" not in captions.forest_caption(bare)


def heat_cells(ablation: Ablation, theme: Theme = LIGHT) -> tuple[np.ndarray, dict[tuple[str, str], str]]:
    """The heat map's pixels, and the colour that each cell should have."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    cells = {
        (each.representation, each.experiment): each
        for each in ablation.estimates
        if each.experiment in ablation.single_layers and each.control == NO_CONTROL
    }
    low = np.mean([each.chance for each in ablation.estimates if each.control == NO_CONTROL])
    means = [each.mean for each in cells.values()]
    low, high = min(low, *means), max(means)
    colours = {key: to_hex(colormaps["viridis"]((each.mean - low) / (high - low))) for key, each in cells.items()}
    return picture(draw_heat_map, ablation, theme), colours


def largest(pixels: np.ndarray, colour: str) -> tuple[int, int, int, int]:
    return max(runs(pixels, colour, least=8), key=lambda run: run[2] * run[3])


def test_each_cell_of_the_heat_map_has_the_colour_of_its_accuracy_and_a_missing_one_none() -> None:
    ablation = made_ablation(["stats", "spectral"], {"all": 3}, num_layers=3, controls=[NO_CONTROL])
    means = {"blocks.0": 0.2, "blocks.1": 0.5, "blocks.2": 0.8}
    ablation = with_estimates(
        ablation,
        {(name, layer): {"mean": mean + 0.05 * (name == "stats")} for name in ("stats", "spectral")
         for layer, mean in means.items()},
    )  # fmt: skip
    kept = [each for each in ablation.estimates if (each.representation, each.experiment) != ("spectral", "blocks.1")]
    ablation = replace(ablation, estimates=tuple(kept))
    pixels, colours = heat_cells(ablation)
    assert len(colours) == 5
    places = {
        cell: max(runs(pixels, colour, least=8), key=lambda run: run[2] * run[3]) for cell, colour in colours.items()
    }
    columns = representations(ablation)
    for (name, layer), (top, left, *_) in places.items():
        for (other, lower), (below, right, *_) in places.items():
            if layer < lower:
                assert top < below
            if columns.index(name) < columns.index(other):
                assert left < right
    top, left, height, _ = places["stats", "blocks.1"]
    column = places["spectral", "blocks.0"][1]
    missing = pixels[top + 4 : top + height - 4, column + 4 : column + 20].reshape(-1, 3)
    assert (missing == rgb(LIGHT.track)).all()
    there = pixels[top + 4 : top + height - 4, left + 4 : left + 20].reshape(-1, 3)
    assert (there == rgb(colours["stats", "blocks.1"])).all()


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(
    "ablation",
    [
        minimal_ablation(),
        made_ablation(["stats"], {"all": 40}, num_layers=40),
        made_ablation(
            REPRESENTATIONS, {f"late{number}": number + 1 for number in range(10)}, num_layers=40, num_seeds=2
        ),
        made_ablation(REPRESENTATIONS, {"all": 1}, num_layers=1, num_seeds=1, controls=[NO_CONTROL]),
    ],
    ids=["minimal", "one by forty", "ten by forty", "ten by one"],
)
def test_from_one_to_many_all_is_there_and_nothing_overlaps(ablation: Ablation, theme: Theme) -> None:
    with drawing(theme):
        for draw, rows in ((draw_forest, [each for _, found in shown_groups(ablation) for each in found]),
                           (draw_heat_map, shown_layers(ablation))):  # fmt: skip
            figure = draw(ablation, theme)
            if not rows:
                assert figure is None
                continue
            assert figure is not None
            figure.draw_without_rendering()  # lays it out
            axes = figure.axes[0]
            labels = [label for label in axes.get_yticklabels() if label.get_text()]
            assert len(labels) >= len(rows)
            boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
            assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
            assert all(box.x0 >= 0 and box.x1 <= axes.get_window_extent().x0 + 1 for box in boxes)
            across = sorted((label.get_window_extent() for label in axes.get_xticklabels()), key=lambda box: box.x0)
            assert all(left.x1 <= right.x0 + 1 for left, right in itertools.pairwise(across))
            assert figure.get_size_inches()[1] < MAX_HEIGHT_IN


def test_cells_hold_their_numbers_within_their_edges() -> None:
    ablation = made_ablation(REPRESENTATIONS, {"all": 3}, num_layers=3)
    ablation = with_estimates(ablation, {("stats", "blocks.0"): {"mean": 1.0, "ci95": (0.6, 1.0)}})
    with drawing(LIGHT):
        figure = draw_heat_map(ablation)
        assert figure is not None
        figure.draw_without_rendering()
        axes = figure.axes[0]
        texts = {text.get_text(): text.get_window_extent() for text in axes.texts}
        width = axes.get_window_extent().width / len(REPRESENTATIONS)
        assert {"100.0", "±\u00a020.0"} <= texts.keys()
        for estimate in ablation.estimates:
            if estimate.experiment in ablation.single_layers and estimate.control == NO_CONTROL:
                assert f"{100 * estimate.mean:.1f}" in texts
        assert texts["100.0"].width + texts["±\u00a020.0"].width < width


def test_more_than_fits_is_cut_and_said() -> None:
    many = [f"r{number}" for number in range(30)]
    ablation = made_ablation(many, {f"late{number}": 1 for number in range(8)}, num_layers=2, num_seeds=2)
    assert len(shown_groups(ablation)) < 30
    assert "12 more representations are in the table alone" in captions.forest_caption(ablation)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("text", ["<script>$x_{1}$ ", "\u202e\ud800 \x00 名前 🎬", "x" * 3000, "_", ""])
def test_any_names_can_be_drawn(text: str) -> None:
    ablation = hostile_ablation(text)
    for draw in (draw_forest, draw_heat_map):
        assert picture(draw, ablation).std() > 0
    for words in (captions.forest_alt, captions.heat_map_alt):
        assert len(words(ablation)) < 5000


@pytest.mark.usefixtures("coarse")
def test_numbers_that_are_none_are_not_drawn() -> None:
    ablation = full_ablation()
    odd = {
        (name, experiment): {"mean": mean, "ci95": (math.nan, math.inf), "chance": math.nan}
        for name, mean in (("stats", math.nan), ("spectral", math.inf))
        for experiment in (*named_experiments(ablation), *ablation.single_layers)
    }
    ablation = with_estimates(ablation, odd)
    for draw in (draw_forest, draw_heat_map):
        assert picture(draw, ablation).std() > 0


@pytest.mark.usefixtures("coarse")
def test_the_same_ablation_gives_the_same_picture() -> None:
    ablation = made_ablation(["stats", "spectral"], {"all": 3}, num_layers=3)
    for draw in (draw_forest, draw_heat_map):
        assert (picture(draw, ablation) == picture(draw, ablation)).all()
