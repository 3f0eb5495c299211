"""The bottleneck is the stage that causes the wait."""

from __future__ import annotations

import pytest
from made_profiles import cost, model

from fovcache.bench.profiler.verdict import bottleneck

STAGES = (
    cost("fetch", 0.4, 0.001, num_workers=8),
    cost("decode", 0.12, 0.12, num_workers=2),
    cost("encode", 0.03),
    cost("backward", 0.01),
)


def test_a_step_that_waits_much_names_the_slowest_input() -> None:
    found = bottleneck(model(*STAGES), 0.333)
    assert (found.stage, found.resource, found.kind) == ("decode", "cpu", "input")
    assert found.reason == (
        "the training step waited for its input 33.3% of the time, for decode, 120 ms a sample, of which 2 threads "
        "give one every 60 ms"
    )
    more = bottleneck(model(*STAGES).with_workers("decode", 4), 0.21)
    assert (more.stage, more.resource, more.kind) == ("fetch", "network", "input")
    assert "8 threads give one every 50 ms" in more.reason


def test_a_step_that_hardly_waits_is_the_limit_itself() -> None:
    found = bottleneck(model(*STAGES), 0.049)
    assert (found.stage, found.resource, found.kind) == ("encode", "gpu", "device")
    assert "4.9% of the time: the input is not the problem; encode takes 30 ms a sample, 75% of the step's 40 ms" in (
        found.reason
    )
    by_events = bottleneck(model(*STAGES), 0.0, {"encode": 0.005, "backward": 0.02})
    assert by_events.stage == "backward"
    assert "20 ms a sample, 80% of the step's 25 ms" in by_events.reason


def test_in_between_both_are_named() -> None:
    found = bottleneck(model(*STAGES), 0.1)
    assert (found.stage, found.kind) == ("decode", "mixed")
    assert "2 threads give one every 60 ms; encode takes 30 ms" in found.reason
    assert bottleneck(model(*STAGES).with_workers("decode", 4).with_workers("fetch", 16), 0.1).stage == "encode"


def test_where_cores_are_short_it_is_the_input_that_uses_them_up() -> None:
    """Fetch is slower on its threads than decode, but decode has the cores."""
    stages = (cost("fetch", 0.4, 0.02, num_workers=8), cost("decode", 0.3, 0.3, num_workers=8), cost("encode", 0.01))
    found = bottleneck(model(*stages, num_cores=4), 0.5)
    assert (found.stage, found.resource, found.kind) == ("decode", "cpu", "input")
    assert "takes 300 ms of the 320 ms core time that a sample costs; 4 cores give one every 80 ms" in found.reason
    assert bottleneck(model(*stages, num_cores=16), 0.5).stage == "fetch"


@pytest.mark.parametrize("stall", [0.0, 0.1, 0.9])
def test_one_side_alone_is_named(stall: float) -> None:
    assert bottleneck(model(cost("encode", 0.01)), stall).stage == "encode"
    assert bottleneck(model(cost("decode", 0.01)), stall).stage == "decode"
    assert bottleneck(model(), stall).stage == "source"
