"""Figures of a profile: ink where bars must be, one colour a stage, the same bytes each time, any text."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_figures import picture, rgb, runs
from example_profiles import faulted_profile, full_profile, serial_profile, stage_times

from fovcache.bench.profiler.result import Profile, Span
from fovcache.reports import captions
from fovcache.reports.figures import drawable, drawing, png
from fovcache.reports.palette import DARK, LIGHT, Theme, contrast, stage_colours
from fovcache.reports.timeline import draw_timeline, shown_spans
from fovcache.reports.waterfall import draw_waterfall
from fovcache.reports.what_if import draw_what_if

EDGES = 3
"""Pixels that a bar's two edges take of its colour."""
ALL = (draw_waterfall, draw_timeline, draw_what_if)


def test_serial_bars_are_as_long_as_their_stages_took_and_follow_each_other() -> None:
    profile = serial_profile(list(full_without_failures()))
    pixels = picture(draw_waterfall, profile)
    colours = stage_colours([stage.id for stage in profile.stages])
    bars = {stage.id: runs(pixels, colours[stage.id]) for stage in profile.stages}
    assert all(len(found) == 1 for found in bars.values()), bars
    (total,) = runs(pixels, LIGHT.measured)
    assert profile.serial is not None
    per_second = (total[3] + EDGES) / profile.serial.s_per_sample
    end = total[1]
    for stage in profile.stages:
        top, left, _, width = bars[stage.id][0]
        assert width + EDGES == pytest.approx(stage.mean_s * per_second, abs=2), stage.id
        assert left == pytest.approx(end, abs=2), stage.id
        assert top > max((bars[other.id][0][0] for other in before(profile, stage.id)), default=0)
        end += stage.mean_s * per_second


def test_a_stages_bar_holds_its_failed_time_hatched() -> None:
    slow = stage_times("decode", "decode", "cpu", 0.1, failed=10, failed_s=16.0, total_s=48.0)
    pixels = picture(draw_waterfall, serial_profile([stage_times("fetch", "fetch", "network", 0.1), slow]))
    colours = stage_colours(["fetch", "decode"])
    (fetch,), (decode,) = runs(pixels, colours["fetch"]), runs(pixels, colours["decode"])
    assert fetch[3] == pytest.approx(decode[3], abs=2)  # 0.1 s a sample both; 0.05 s of failures behind it
    behind = pixels[decode[0] + decode[2] // 2, decode[1] + decode[3] + 4 :][: decode[3] // 2 - 8]
    assert (behind != 255).any(axis=1).all()  # not paper: hatched
    after = pixels[decode[0] + decode[2] // 2, decode[1] + decode[3] * 3 // 2 + 6 :][:6]
    assert (after == 255).all()


def test_busy_bars_are_their_share_of_the_time_a_sample_takes() -> None:
    profile = replace(full_profile(), predicted=(), stages=(), serial=None)
    assert profile.overlapped is not None
    profile = replace(profile, overlapped=replace(profile.overlapped, busy={"cpu": 0.25, "network": 0.75}, stall=0.5))
    pixels = picture(draw_waterfall, profile)
    network, cpu = runs(pixels, LIGHT.measured)  # without stages no stage's colour; in this order
    below = cpu[0] + cpu[2] // 2 + cpu[0] - network[0]
    is_track, is_wait = ((pixels == rgb(colour)).all(axis=2) for colour in (LIGHT.track, LIGHT.wait))
    until = [np.flatnonzero(is_track[at]).max() for at in (network[0] + 9, cpu[0] + 9)]
    whole = until[0] - network[1]
    assert until[0] == until[1]
    assert network[3] / whole == pytest.approx(0.75, abs=0.01)
    assert cpu[3] / whole == pytest.approx(0.25, abs=0.01)
    assert (np.flatnonzero(is_wait[below]).min() - network[1]) / whole == pytest.approx(0.5, abs=0.01)
    assert np.flatnonzero(is_wait[below]).max() == pytest.approx(until[0], abs=4)


def test_predictions_are_drawn_on_the_same_scale_as_the_serial_run() -> None:
    profile = full_profile()
    assert profile.serial is not None
    pixels = picture(draw_waterfall, profile)
    (total,) = runs(pixels, LIGHT.measured)
    bars = [bar for bar in runs(pixels, LIGHT.predicted) if bar[1] == pytest.approx(total[1], abs=1)]
    assert len(bars) == len(profile.predicted)
    for bar, each in zip(bars, profile.predicted, strict=True):
        wanted = total[3] * each.s_per_sample / profile.serial.s_per_sample
        if each.id != "cached_all":  # whose end is under the mark of what was measured
            assert bar[3] == pytest.approx(wanted, abs=3), each.id


def test_measured_throughput_is_drawn_below_predicted() -> None:
    profile = full_profile()
    pixels = picture(draw_what_if, profile)
    predicted, measured = (runs(pixels, colour, least=12) for colour in (LIGHT.predicted, LIGHT.measured))
    widest = max(predicted, key=lambda bar: bar[3]), max(measured, key=lambda bar: bar[3])
    each = next(each for each in profile.predicted if each.id == "cached_all")
    assert each.measured is not None
    ratio = each.measured.samples_per_hour / each.samples_per_hour
    assert widest[1][3] / widest[0][3] == pytest.approx(ratio, abs=0.01)
    assert widest[1][0] > widest[0][0]


def test_a_vast_promise_is_cut_and_does_not_hide_the_others() -> None:
    full = full_profile()
    vast = replace(full.predicted[0], samples_per_hour=1e7)
    profile = replace(full, predicted=(*full.predicted, vast))
    assert "is cut" in captions.what_if_caption(profile)
    assert "is cut" not in captions.what_if_caption(full)
    pixels = picture(draw_what_if, profile)
    bars = runs(pixels, LIGHT.predicted, least=12)
    lengths = {}
    for top, _, _, width in bars:
        lengths[top] = lengths.get(top, 0) + width
    *_, promised, cut = (lengths[top] for top in sorted(lengths))
    assert 2 * promised < cut < 12 * promised
    assert sum(top == max(lengths) for top, *_ in bars) == 3  # two gaps


def test_the_timeline_shows_spans_and_gaps() -> None:
    spans = (
        Span(stage="fetch", lane="fetch-0", start_s=10.0, end_s=10.25),
        Span(stage="fetch", lane="fetch-0", start_s=10.5, end_s=11.0),
        Span(stage="forward", lane="device", start_s=10.25, end_s=10.75),
    )
    profile = replace(full_profile(), timeline=spans)
    pixels = picture(draw_timeline, profile)
    colours = stage_colours([stage.id for stage in profile.stages])
    fetch = [bar for bar in runs(pixels, colours["fetch"], least=20) if bar[2] > 30]
    (forward,) = [bar for bar in runs(pixels, colours["forward"], least=20) if bar[2] > 30]
    assert len(fetch) == 2
    assert fetch[1][3] / fetch[0][3] == pytest.approx(2, abs=0.05)
    assert fetch[0][1] + fetch[0][3] == pytest.approx(forward[1], abs=3)
    gap = pixels[fetch[0][0] + 10, fetch[0][1] + fetch[0][3] + 4 : fetch[1][1] - 4]
    assert (gap == rgb(LIGHT.track)).all()


def test_the_timeline_ends_where_its_busiest_lane_would_be_too_dense() -> None:
    spans = [Span(stage="decode", lane="decode-0", start_s=k / 10, end_s=k / 10 + 0.09) for k in range(1000)]
    spans.append(Span(stage="fetch", lane="fetch-0", start_s=0.0, end_s=100.0))
    shown = shown_spans(replace(full_profile(), timeline=tuple(spans)))
    assert 50 < len(shown) < 200
    end = max(span.end_s for span in shown if span.lane == "decode-0")
    assert max(span.end_s for span in shown) == pytest.approx(end, abs=0.1)  # the long one is cut there too


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_same_profile_gives_the_same_bytes(draw: Callable[..., object], theme: Theme) -> None:
    with drawing(theme):
        first, second = (png(draw(full_profile(), theme)) for _ in range(2))
    assert first == second
    assert b"matplotlib" not in first.lower()


def test_a_users_configuration_changes_nothing() -> None:
    import matplotlib

    before = picture(draw_waterfall, full_profile())
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20, "text.usetex": True}):
        assert (picture(draw_waterfall, full_profile()) == before).all()
        assert matplotlib.rcParams["font.size"] == 20  # and it is as it was afterwards


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "name",
    [
        "$\\frac{1}{0}$ $x_",
        "_hidden {x:,.0f} %s \\$ \\",
        "名前 🎬 \u202e \ud800 \x00\x1b[31m line\nline\r\n",
        "x" * 5000,
        "",
    ],
)
def test_any_name_can_be_drawn(draw: Callable[..., object], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fovcache.reports.figures.DPI", 40)
    pixels = picture(draw, renamed(full_profile(), name))
    assert pixels.shape[1] == pytest.approx(9.6 * 40, abs=2)
    assert (pixels != 255).any()


def test_long_names_are_cut_with_a_sign() -> None:
    assert drawable("a" * 50) == "a" * 33 + "…"
    assert drawable("  a\tb\n") == "a b"
    assert drawable("名\x00") == "\ufffd\ufffd"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 0.0, 1e300, 5e-324])
def test_numbers_that_cannot_be_right_are_drawn_all_the_same(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fovcache.reports.figures.DPI", 40)
    full = full_profile()
    assert full.overlapped is not None
    assert full.serial is not None
    stages = [replace(stage, total_s=bad, mean_s=bad, cpu_s=bad, share=bad, failed_s=bad) for stage in full.stages]
    run = {"samples_per_hour": bad, "stall": bad, "busy": {"cpu": bad, "gpu": bad}, "device_s": {"copy": bad}}
    bad_profile = replace(
        full,
        stages=tuple(stages),
        serial=replace(full.serial, s_per_sample=bad, unattributed_share=bad, n=0),
        overlapped=replace(full.overlapped, s_per_sample=bad, **run),
        predicted=tuple(replace(each, s_per_sample=bad, samples_per_hour=bad) for each in full.predicted),
        timeline=(*full.timeline, Span(stage="fetch", lane="x", start_s=bad, end_s=bad)),
    )
    for draw in ALL:
        assert picture(draw, bad_profile).size
    assert picture(draw_waterfall, replace(full, stages=(stages[0], *full.stages[1:]))).size


@pytest.mark.parametrize("num", [0, 1, 30])
def test_any_number_of_stages(num: int) -> None:
    stages = [stage_times(f"stage{k}", f"stage {k}", "cpu", 0.01 + 0.001 * k) for k in range(num)]
    profile = serial_profile(stages) if num else Profile(environment={}, settings={}, warmup_dropped=0, stages=())
    if num == 0:
        assert all(draw(profile) is None for draw in ALL)
        return
    pixels = picture(draw_waterfall, profile)
    colours = stage_colours([stage.id for stage in profile.stages])
    assert len(set(colours.values())) == num
    assert all(runs(pixels, colour) for colour in colours.values())


def test_what_a_fault_left_is_drawn() -> None:
    profile = faulted_profile()
    colours = stage_colours([stage.id for stage in profile.stages])
    pixels = picture(draw_waterfall, profile)
    (fetch,), (decode,) = runs(pixels, colours["fetch"]), runs(pixels, colours["decode"])
    ratio = profile.stages[1].mean_s / profile.stages[0].mean_s
    assert decode[3] / fetch[3] == pytest.approx(ratio, abs=0.02)
    assert draw_timeline(profile) is None
    assert draw_what_if(profile) is None


def test_a_stage_has_one_colour_whatever_is_beside_it() -> None:
    known = stage_colours(["fetch", "decode"])
    assert stage_colours(["decode", "mine", "fetch"]) == {**known, "mine": stage_colours(["mine", *known])["mine"]}
    assert len(set(stage_colours([f"x{k}" for k in range(30)]).values())) == 30


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_can_be_read(theme: Theme) -> None:
    assert contrast(theme.ink, theme.paper) >= 7
    assert contrast(theme.muted, theme.paper) >= 4.5
    assert contrast(theme.wait, theme.paper) >= 3


def test_colours_differ_for_colour_blind_readers() -> None:
    colours = list(stage_colours(["fetch", "decode", "copy", "vae_encode", "encode", "forward", "backward"]).values())
    for matrix in (_DEUTERANOPIA, _PROTANOPIA):
        seen = [matrix @ (np.array(rgb(colour)) / 255) ** 2.2 for colour in colours]
        far = [np.abs(one - other).max() for k, one in enumerate(seen) for other in seen[:k]]
        assert min(far) > 0.02


def test_drawing_says_nothing_and_leaves_logging_as_it_was(tmp_path: Path) -> None:
    code = (
        "import logging, sys\n"
        f"sys.path.append({str(Path(__file__).parents[1] / 'contracts')!r})\n"
        "import fovcache.reports\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules\n"
        "from example_profiles import full_profile\n"
        "logging.basicConfig()\n"
        "from pathlib import Path\n"
        f"fovcache.reports.write_report(full_profile(), Path({str(tmp_path / 'out')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {"PATH": "", "MPLCONFIGDIR": str(tmp_path / "fresh"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    level = logging.getLogger("matplotlib").level
    with drawing(LIGHT):
        pass
    assert logging.getLogger("matplotlib").level == level


# Viénot 1999, on linear RGB.
_DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
_PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])


def full_without_failures() -> Iterator[object]:
    for stage in full_profile().stages:
        yield replace(stage, n=320, failed=0, failed_s=0.0, total_s=320 * stage.mean_s)


def before(profile: Profile, stage_id: str) -> list[object]:
    ids = [stage.id for stage in profile.stages]
    return list(profile.stages[: ids.index(stage_id)])


def renamed(profile: Profile, name: str) -> Profile:
    assert profile.overlapped is not None
    return replace(
        profile,
        stages=tuple(
            replace(stage, name=name, id=name if stage.id == "copy" else stage.id) for stage in profile.stages
        ),
        predicted=tuple(replace(each, change=name, limited_by=name) for each in profile.predicted),
        overlapped=replace(profile.overlapped, busy={name: 0.5, **profile.overlapped.busy}),
        timeline=(*profile.timeline, Span(stage=name, lane=name, start_s=0.1, end_s=0.5)),
    )
