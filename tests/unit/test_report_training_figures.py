"""Figures of controlled training: what is drawn is what is stored, for seeds that failed and for any names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_figures import Drawn, rgb
from example_trainings import ARMS, SAMPLES, bare_suite, hostile_suite, made_run, made_suite, suite_with_failures

from fovcache.probes.train.result import BASE, MAIN, AttentionMap, Condition, Evaluation, TrainSuite, Verdict
from fovcache.reports import train_captions as captions
from fovcache.reports.attention_maps import draw_attention, looking_runs, shown_maps
from fovcache.reports.figures import drawing
from fovcache.reports.palette import DARK, LIGHT, Theme, series_colours, share_colour, stage_colours
from fovcache.reports.train_curves import MAX_ARMS, draw_looks, draw_loss
from fovcache.reports.train_forest import draw_verdict, groups
from fovcache.reports.train_time import draw_time

DRAW = (draw_verdict, draw_loss, draw_looks, draw_attention, draw_time)


@pytest.fixture(scope="module", autouse=True)
def half_the_pixels() -> Iterator[None]:
    """Enough to find a line in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovcache.reports.figures.DPI", 100)
        yield


def near(drawn: Drawn, x: float, y: float, colour: str, *, within: int = 2) -> bool:
    """Whether a pixel about a place of the first axes has this colour."""
    places = range(-within, within + 1)
    return any(drawn.is_there(0, x, y, colour, off=(right, down)) for right in places for down in places)


def judged(*conditions: Condition, diagnostics: tuple[Condition, ...] = ()) -> TrainSuite:
    verdict = Verdict(helps=False, sentence="no", metric="loss", conditions=conditions, diagnostics=diagnostics)
    return replace(bare_suite(), verdict=verdict)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_an_interval_is_drawn_around_its_mean_beside_the_neutral_line_with_each_seed_below(theme: Theme) -> None:
    better = Condition(
        name="a", holds=True, said="", mean=-1.0, ci=(-1.5, -0.25), per_seed=(-1.25, -0.75), within=(-0.5, 0.5)
    )
    worse = replace(better, name="b", holds=False, mean=0.5, ci=(-0.25, 1.0), per_seed=(), within=None)
    drawn = Drawn(draw_verdict, judged(better, worse), theme)
    told, ruled_out = share_colour(1, theme), theme.wait
    assert drawn.is_there(0, -1.0, 0, told)
    assert all(near(drawn, x, 0, told) for x in (-1.46, -0.3))
    assert not any(near(drawn, x, 0, told) for x in (-1.55, -0.2))
    assert drawn.is_there(0, 0.5, 1, theme.paper)  # hollow, since it does not hold
    assert all(near(drawn, x, 1, ruled_out) for x in (-0.2, 0.95))
    assert drawn.is_there(0, 0.4, 0.3, theme.track)
    assert all(near(drawn, x, 0.27, theme.muted) for x in better.per_seed)
    assert not near(drawn, -0.9, 0.27, theme.muted)
    assert near(drawn, 0, -0.5, theme.ink)


def test_differences_ratios_and_diagnostics_have_axes_of_their_own_and_wide_ratios_are_logarithmic() -> None:
    suite = made_suite()
    assert [(group.neutral, group.kind, len(group.conditions)) for group in groups(suite)] == [
        (0.0, "", 4), (1.0, "", 1), (0.0, "negative control", 1), (1.0, "diagnostic, biased", 2),
    ]  # fmt: skip
    wide = Condition(name="within the base", holds=None, said="", mean=130.0, ci=(100.0, 160.0), neutral=1.0)
    near = Condition(name="control", holds=True, said="", mean=1.0, ci=(0.99, 1.01), neutral=1.0)
    with drawing(LIGHT):
        figure = draw_verdict(judged(near, diagnostics=(wide,)))
    assert figure is not None
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    assert "diagnostic, biased" in figure.axes[1].get_xlabel()
    assert "diagnostic, biased" in captions.verdict_alt(judged(near, diagnostics=(wide,)))
    open_condition = Condition(name="c", holds=None, said="an arm is missing")
    assert draw_verdict(judged(open_condition)) is None
    assert draw_verdict(bare_suite()) is None


def with_losses(losses: dict[tuple[str, int, str], list[float]]) -> TrainSuite:
    """Runs by arm, seed and state, evaluated at 0, 100, 200 … samples."""
    runs = [
        replace(
            made_run(arm, MAIN, seed, num=1),
            state=state,
            evaluations=tuple(
                Evaluation(samples_seen=100 * place, values={"loss": loss}, seconds=0.1)
                for place, loss in enumerate(values)
            ),
        )
        for (arm, seed, state), values in losses.items()
    ]
    return replace(bare_suite(), runs=tuple(runs))


def test_curves_go_through_the_mean_with_a_band_and_broken_seeds_stay_apart() -> None:
    losses = {(BASE, 0, "done"): [4.0, 2.0, 2.0], (BASE, 1, "done"): [4.0, 4.0, 3.0], (BASE, 2, "failed"): [5.0, 5.0]}
    drawn = Drawn(draw_loss, with_losses({**losses, ("coarse", 0, "stopped"): [4.5, 4.5]}))
    colours = series_colours([BASE, "coarse"], LIGHT)
    assert near(drawn, 150, 2.75, colours[BASE])  # the mean goes from 3.0 to 2.5
    assert not near(drawn, 150, 3.2, LIGHT.paper)  # within the band, which goes up to 3.5
    assert near(drawn, 150, 3.8, LIGHT.paper)
    assert near(drawn, 100, 5.0, colours[BASE])  # the cross where it failed
    assert drawn.is_there(0, 100, 4.5, LIGHT.paper)  # the hollow square where it was stopped
    assert near(drawn, 100, 4.5, colours["coarse"], within=6)
    names = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert names == [BASE, "coarse", "a seed that failed", "a seed that was stopped"]


def test_each_task_has_a_panel_and_a_loss_that_falls_far_is_logarithmic() -> None:
    with drawing(LIGHT):
        figure = draw_loss(made_suite())
        looks = draw_looks(made_suite())
    assert figure is not None
    assert looks is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["main task", "negative control"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    assert [axes.get_title(loc="left") for axes in looks.axes[:3]] == [
        "entropy static", "entropy dynamic", "query diversity",
    ]  # fmt: skip
    assert len(looks.axes) == 6
    assert draw_looks(bare_suite()) is None
    assert draw_loss(replace(bare_suite(), runs=())) is None


def test_more_arms_than_colours_are_cut_and_said() -> None:
    suite = with_losses({(f"arm {number:02}", 0, "done"): [1.0, 0.5] for number in range(MAX_ARMS + 3)})
    assert captions.loss_caption(suite).endswith("3 more arms are in the table alone.")
    with drawing(LIGHT):
        figure = draw_loss(suite)
    assert figure is not None
    assert len(figure.legends[0].get_texts()) == MAX_ARMS


def test_maps_are_of_the_bases_first_done_seed_and_a_coarse_arm_and_coloured_by_their_numbers() -> None:
    suite = suite_with_failures()
    assert [(run.arm, run.seed) for run in looking_runs(suite)] == [(BASE, 0), ("coarse", 0)]
    assert [(row.run.arm, row.name, len(row.maps)) for row in shown_maps(suite)] == [
        (BASE, "coarse", 2), (BASE, "fine", 2), ("coarse", "coarse", 2),
    ]  # fmt: skip
    frames = (((0.64, 0.16), (0.2, 0.0)), ((0.25, 0.25), (0.25, 0.25)))
    run = replace(made_run(num=1), attention=(AttentionMap(name="fine", sample="a", frames=frames),))
    drawn = Drawn(draw_attention, replace(bare_suite(), runs=(run,)))
    for number, frame in enumerate(frames):
        for (row, column), value in np.ndenumerate(frame):
            assert drawn.is_there(number, column, row, _heat(math.sqrt(value / 0.64))), (number, row, column)


def _heat(part: float) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["viridis"](part))


@pytest.mark.parametrize(
    ("frames", "num_images"),
    [((), None), ((((),),), None), ((((0.5,), (0.5, 0.1)),), None), ((((math.nan, 1.0),),) * 20, 16)],
)
def test_maps_that_are_none_are_left_out_and_long_ones_cut(frames: Any, num_images: int | None) -> None:
    run = replace(made_run(num=1), attention=(AttentionMap(name="fine", sample="a", frames=frames),))
    suite = replace(bare_suite(), runs=(run,))
    with drawing(LIGHT):
        figure = draw_attention(suite)
    assert (figure and sum(len(axes.images) for axes in figure.axes)) == num_images
    assert ("first 16 of 20 frames" in captions.attention_caption(suite)) == (num_images is not None)


def test_bars_are_as_long_as_parts_took_and_the_plan_lies_above() -> None:
    run = made_run()
    assert run.plan is not None
    drawn = Drawn(draw_time, replace(bare_suite(), runs=(run,)))
    colours = stage_colours(["forward", "load", "vae_encode", "write", "copy"])
    assert drawn.is_there(0, run.spent.compute_s - 0.2, 0.19, colours["forward"])
    after = run.spent.compute_s + run.spent.data_s
    assert drawn.is_there(0, after + 0.2, 0.19, colours["vae_encode"])
    assert drawn.is_there(0, after + run.spent.evaluation_s - 0.2, 0.19, colours["vae_encode"])
    assert not drawn.is_there(0, 1.0, -0.19, colours["forward"])  # the plan's is paler
    assert not drawn.is_there(0, 1.0, -0.19, LIGHT.paper)
    texts = [text.get_text().replace("\u00a0", " ") for text in drawn.figure.axes[0].texts]
    assert texts == [f"planned {run.plan.spent.wall_s:.1f} s", "took 24.6 s"]


def test_runs_that_did_not_run_at_once_have_no_bars() -> None:
    run = made_run()
    resumed, stopped = replace(run, num_resumed=1), replace(run, seed=1, state="stopped")
    assert draw_time(replace(bare_suite(), runs=(resumed, stopped))) is None


@pytest.mark.parametrize("text", ["_x", "$x_1$ \\frac{", "名前 🎬 \u202e\x00", "long " * 100])
def test_any_names_can_be_drawn(text: str) -> None:
    suite = hostile_suite(text)
    for draw in (draw_verdict, draw_loss, draw_attention):
        with drawing(LIGHT):
            figure = draw(suite)
        assert figure is not None
        figure.set_dpi(20)
        figure.draw_without_rendering()


@pytest.mark.parametrize("bad", [math.nan, -1e300])
def test_numbers_that_are_none_are_not_drawn(bad: float) -> None:
    suite = made_suite((0,), tasks=(MAIN,))
    values = {"loss": bad, "entropy_static": bad}
    runs = tuple(
        replace(
            run,
            evaluations=(*run.evaluations, Evaluation(samples_seen=2 * SAMPLES, values=values, seconds=bad)),
            spent=replace(run.spent, compute_s=bad, data_s=bad),
        )
        for run in suite.runs
    )
    condition = Condition(
        name="a", holds=True, said="", mean=0.1, ci=(bad, 0.2), per_seed=(bad, 0.1), within=(bad, bad)
    )
    verdict = Verdict(helps=True, sentence="", metric="loss", conditions=(condition, replace(condition, mean=bad)))
    odd = replace(suite, runs=runs, verdict=verdict)
    for draw, words in zip(
        DRAW,
        (captions.verdict_alt, captions.loss_alt, captions.looks_alt, captions.attention_alt, captions.time_alt),
        strict=True,
    ):
        with drawing(LIGHT):
            figure = draw(odd)
            if figure is not None:
                figure.set_dpi(20)
                figure.draw_without_rendering()
        words(odd)
    assert len(groups(odd)[0].conditions) == 1


@pytest.mark.parametrize("draw", [draw_loss, draw_attention])
def test_the_same_suite_gives_the_same_picture(draw: Callable[..., object]) -> None:
    suite = made_suite((0, 1), tasks=(MAIN,))
    assert (Drawn(draw, suite).pixels == Drawn(draw, suite).pixels).all()


def test_arms_have_the_same_colour_in_every_figure() -> None:
    suite = made_suite()
    drawn = Drawn(draw_looks, suite)
    for arm, colour in series_colours([BASE, *ARMS], LIGHT).items():
        assert (np.abs(drawn.pixels.astype(int) - rgb(colour)).max(axis=2) <= 3).any(), arm
