"""Figures of answers and differences: what is drawn is what is stored, for any number of classes and any names."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from drawn_figures import Drawn
from example_ablations import full_ablation, hostile_ablation, hostile_arms, made_ablation, made_arms

from fovcache.probes.result import NO_CONTROL, Ablation, Metrics
from fovcache.reports import ablation_captions as captions
from fovcache.reports.cells import chosen
from fovcache.reports.confusion import draw_cell_confusion, draw_confusion
from fovcache.reports.difference_forest import draw_arms, draw_differences, is_told, shown_differences
from fovcache.reports.figures import MAX_HEIGHT_IN, drawing
from fovcache.reports.palette import DARK, LIGHT, Theme, share_colour
from fovcache.reports.reliability import draw_reliability

pytestmark = pytest.mark.usefixtures("half_the_pixels")


@pytest.fixture(scope="module")
def half_the_pixels() -> object:
    """Enough to find a line in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovcache.reports.figures.DPI", 100)
        yield


def with_answers(confusion: np.ndarray, /, **fields: object) -> Ablation:
    """One cell without control, with this confusion."""
    ablation = made_ablation(["stats"], {"all": 1}, num_layers=1, num_seeds=2, controls=[NO_CONTROL])
    recall = (confusion.diagonal() / np.maximum(confusion.sum(1), 1)).tolist()
    metrics = replace(
        ablation.metrics[0],
        confusion=tuple(map(tuple, confusion.tolist())),
        class_accuracies=tuple(recall),
        class_intervals=tuple((max(each - 0.1, 0.0), min(each + 0.05, 1.0)) for each in recall),
    )
    return replace(
        ablation,
        classes=tuple(f"class {number}" for number in range(len(confusion))),
        estimates=tuple(each for each in ablation.estimates if each.experiment == "all"),
        metrics=(replace(metrics, **fields),),
    )


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_confusions_colours_and_numbers_are_shares_of_the_class(theme: Theme) -> None:
    confusion = np.array([[80, 20, 0], [1, 299, 0], [10, 30, 10]])
    drawn = Drawn(draw_confusion, with_answers(confusion), theme)
    for row, line in enumerate(confusion / confusion.sum(1, keepdims=True)):
        for column, share in enumerate(line):
            assert drawn.is_there(0, column - 0.4, row - 0.4, share_colour(share, theme)), (row, column)
    texts = {text.xy: text.get_text() for text in drawn.figure.axes[0].texts}
    assert texts == {
        (0, 0): "80", (1, 0): "20", (0, 1): "<1", (1, 1): "100", (0, 2): "20", (1, 2): "60", (2, 2): "20",
    }  # fmt: skip
    for row, share in enumerate((0.8, 299 / 300, 0.2)):
        assert drawn.is_there(1, 100 * share, row, share_colour(1, theme))
        assert drawn.is_there(1, 100 * share - 9, row, theme.measured)  # its interval
        assert not drawn.is_there(1, 100 * share - 11, row, theme.measured)
        assert [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()][row] == f"class {row}"


@pytest.mark.parametrize("num", [2, 10, 30, 100])
def test_a_hundred_classes_are_readable(num: int) -> None:
    chance = np.random.default_rng(num)
    confusion = chance.integers(0, 3, (num, num)) + 40 * np.eye(num, dtype=np.int64)
    ablation = with_answers(confusion)
    drawn = Drawn(draw_confusion, ablation)
    axes = drawn.figure.axes[0]
    boxes = sorted((label.get_window_extent() for label in axes.get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) >= min(num, 30)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
    across = sorted((label.get_window_extent() for label in axes.get_xticklabels()), key=lambda box: box.x0)
    assert all(left.x1 <= right.x0 + 1 for left, right in itertools.pairwise(across))
    assert all(box.x0 >= 0 for box in boxes)
    shares = confusion / confusion.sum(1, keepdims=True)
    for row, column in [*chance.integers(0, num, (50, 2)).tolist(), [0, 0], [num - 1, num - 1]]:
        off = 0.4 if num <= 20 else 0.0  # beside the number
        assert drawn.is_there(0, column - off, row - off, share_colour(shares[row, column], LIGHT)), (row, column)


def test_a_confusion_that_is_not_known_is_not_drawn() -> None:
    ablation = with_answers(np.eye(3, dtype=np.int64), confusion=())
    assert draw_confusion(ablation) is None
    assert draw_reliability(replace(ablation, metrics=())) is None
    assert draw_cell_confusion(None, ablation) is None


def test_the_confusion_of_any_cell_can_be_drawn() -> None:
    ablation = full_ablation()
    cell = ablation.estimate("stats", "blocks.3")
    assert cell is not None
    assert cell != chosen(ablation)
    with drawing(LIGHT):
        assert draw_cell_confusion(cell, ablation) is not None
    assert captions.cell_confusion_caption(cell, ablation).startswith("Confusion of stats of blocks.3")


def test_a_difference_is_drawn_from_its_low_to_its_high_end_and_filled_where_it_is_told_from_none() -> None:
    ablation = made_ablation(["stats"], {"all": 2, "early": 1}, num_layers=2, num_seeds=5)
    told, untold = (
        replace(each, mean=mean, ci95=ci95, p_holm=p_holm)
        for each, mean, ci95, p_holm in zip(
            ablation.differences, (-0.1, 0.06), ((-0.18, -0.04), (-0.02, 0.13)), (0.012, 0.051), strict=False
        )
    )
    ablation = replace(ablation, differences=(told, untold))
    assert [is_told(each) for each in ablation.differences] == [True, False]
    drawn = Drawn(draw_differences, ablation)
    ((_, first), (_, second)) = shown_differences(ablation)
    heights = [tick for tick, label in zip(
        drawn.figure.axes[0].get_yticks(), drawn.figure.axes[0].get_yticklabels(), strict=True
    ) if label.get_text()]  # fmt: skip
    for (_, each), y in zip((*first, *second), heights, strict=True):
        colour = share_colour(1, LIGHT) if each is told else LIGHT.muted
        assert each.ci95 is not None
        low, high = (100 * end for end in each.ci95)
        assert drawn.is_there(0, low, y, colour, off=(2, 0))
        assert drawn.is_there(0, high, y, colour, off=(-2, 0))
        assert not drawn.is_there(0, low, y, colour, off=(-3, 0))
        assert not drawn.is_there(0, high, y, colour, off=(3, 0))
        assert drawn.is_there(0, 100 * each.mean, y, colour if each is told else LIGHT.paper)
    assert any(drawn.is_there(0, 0, heights[0], LIGHT.ink, off=(off, 0)) for off in (-1, 0, 1))  # the line of none
    texts = {text.get_text() for text in drawn.figure.axes[0].texts}
    assert {"−10.0", "−18.0\u00a0to\u00a0−4.0", "0.012", "+6.0", "−2.0\u00a0to\u00a0+13.0", "0.051"} <= texts
    assert "told from none" in captions.differences_alt(ablation)


def test_arms_have_a_forest_of_their_own() -> None:
    ablation = made_ablation(["stats"], {"all": 2}, num_layers=2, num_seeds=3)
    arms = made_arms(ablation)
    drawn = Drawn(draw_arms, arms)
    assert len([text for text in drawn.figure.axes[0].texts if text.get_text() == "−1.0"]) == 2
    assert "stats of all, ridge less the base: −1.0 points" in captions.arms_alt(arms)
    with drawing(LIGHT):
        assert draw_arms(()) is None


def test_reliability_is_drawn_where_the_bins_are_and_few_answers_are_hollow() -> None:
    bins = [(0, 0.0, 0.0)] * 15
    bins[7], bins[10], bins[14] = (120, 0.5, 0.62), (9, 0.7, 0.3), (300, 0.98, 0.9)
    ablation = with_answers(np.eye(3, dtype=np.int64), reliability=tuple(bins))
    drawn = Drawn(draw_reliability, ablation)
    colour = share_colour(1, LIGHT)
    for num, confidence, right in bins:
        if num:
            inside = colour if num >= 10 else LIGHT.paper
            assert drawn.is_there(0, 100 * confidence, 100 * right, inside), confidence
    for place, (num, *_) in enumerate(bins):
        middle, height = (place + 0.5) * 100 / 15, 100 * num / 429
        assert drawn.is_there(1, middle, height / 2, LIGHT.measured) == (num > 0)
        assert not drawn.is_there(1, middle, height, LIGHT.measured, off=(0, -3))
    assert "50.0\u00a0% sure, 62.0\u00a0% right (120)" in captions.reliability_alt(ablation)


@pytest.mark.parametrize("text", ["$x_{1}$ \u202e\ud800 \x00 名前 🎬", "x" * 3000, ""])
def test_any_names_can_be_drawn(text: str) -> None:
    ablation = hostile_ablation(text)
    for draw, result in (
        (draw_confusion, ablation), (draw_differences, ablation), (draw_reliability, ablation),
        (draw_arms, hostile_arms(text)),
    ):  # fmt: skip
        assert Drawn(draw, result).pixels.std() > 0
    for words in (captions.confusion_alt, captions.confusion_caption, captions.differences_alt,
                  captions.differences_caption, captions.reliability_caption):  # fmt: skip
        assert len(words(ablation)) < 6000


def test_numbers_that_are_none_are_not_drawn() -> None:
    ablation = full_ablation()
    odd = tuple(
        replace(each, mean=mean, ci95=(math.nan, math.inf), p_holm=None, effect_size=mean)
        for each, mean in zip(ablation.differences, itertools.cycle((math.nan, math.inf)))
    )
    metrics: list[Metrics] = [
        replace(each, class_accuracies=(None, math.nan) * 5, class_intervals=(None, (math.nan, 1.0)) * 5)
        for each in ablation.metrics
    ]
    ablation = replace(ablation, differences=odd, metrics=tuple(metrics))
    for draw in (draw_differences, draw_confusion):
        assert Drawn(draw, ablation).pixels.std() > 0


def test_more_differences_than_fit_are_cut_and_said() -> None:
    ablation = full_ablation()
    many = tuple(
        replace(each, experiment=f"{each.experiment}{number}") for number in range(8) for each in ablation.differences
    )
    ablation = replace(ablation, differences=many)
    with drawing(LIGHT):
        figure = draw_differences(ablation)
        assert figure is not None
        assert figure.get_size_inches()[1] < MAX_HEIGHT_IN
    shown = sum(len(group) for _, group in shown_differences(ablation))
    assert shown < len(many)
    assert f"{len(many) - shown} more differences are in the table alone" in captions.differences_caption(ablation)
