"""What holds of every prediction, whatever the stages cost."""

from __future__ import annotations

from typing import Any

import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from made_profiles import cost, model, times

from fovcache.bench.profiler.predict import PipelineModel, StageCost, predict
from fovcache.bench.profiler.verdict import DEVICE_STALL, INPUT_STALL, bottleneck
from fovcache.bench.profiler.what_if import Artefact, Caching, Options, what_ifs

INPUTS = ("fetch", "decode")
STEPS = ("copy", "vae_encode", "encode", "forward", "backward")
NUM_CORES = 4.0
FEW = examples(12)
"""Each is a few simulations."""
ANOMALY = 1.1
"""Uneven costs can make a queue fill up in an unlucky order, in the real pipeline as in the simulated one."""


@st.composite
def stage_costs(draw: st.DrawFn, id_: str) -> StageCost:
    wall_s = draw(st.floats(0.001, 1.0))
    most_cores = 1.0 if id_ in INPUTS else NUM_CORES
    settings: dict[str, Any] = {"units_s": draw(st.lists(st.floats(0.1, 5.0), max_size=12).map(tuple))}
    if id_ in INPUTS:
        settings |= {"num_workers": draw(st.integers(1, 6)), "max_queued": draw(st.integers(1, 16))}
    return cost(id_, wall_s, wall_s * draw(st.floats(0, most_cores)), **settings)


@st.composite
def models(draw: st.DrawFn) -> PipelineModel:
    inputs = [draw(stage_costs(id_)) for id_ in INPUTS]
    steps = [draw(stage_costs(id_)) for id_ in STEPS if draw(st.booleans()) or id_ == "backward"]
    batch_size = draw(st.integers(1, 8))
    return model(
        *inputs,
        *steps,
        batch_size=batch_size,
        num_cores=NUM_CORES,
        max_queued=batch_size + draw(st.integers(0, 8)),
        is_async=draw(st.booleans()),
    )


@FEW
@given(models())
def test_a_prediction_lies_between_the_bound_and_no_overlap_at_all(made: PipelineModel) -> None:
    prediction = predict(made)
    assert prediction.bound_s == max(made.bounds().values())
    assert prediction.s_per_sample >= prediction.bound_s
    assert prediction.s_per_sample <= sum(stage.wall_s for stage in made.stages) * 1.01


@FEW
@given(models(), st.sampled_from(INPUTS), st.integers(1, 8))
def test_more_workers_never_predict_slower(made: PipelineModel, stage_id: str, more: int) -> None:
    now = next(stage.num_workers for stage in made.inputs if stage.id == stage_id)
    changed = made.with_workers(stage_id, now + more)
    assert predict(changed).bound_s <= predict(made).bound_s
    assert predict(changed).s_per_sample <= predict(made).s_per_sample * ANOMALY
    first, *changes = what_ifs(made, [], None, Options())
    for entry in changes:
        assert entry.s_per_sample <= first.s_per_sample


@FEW
@given(models(), st.sampled_from((*INPUTS, *STEPS)))
def test_without_a_stage_it_is_never_predicted_slower(made: PipelineModel, stage_id: str) -> None:
    less = made.without(stage_id)
    assume(less.stages)
    assert predict(less).bound_s <= predict(made).bound_s
    if stage_id in STEPS:  # with an input stage goes a queue, and what waited in it
        assert predict(less).s_per_sample <= predict(made).s_per_sample * ANOMALY


@FEW
@given(models(), st.floats(0.0, 0.5), st.integers(1, 10**9))
def test_the_ceiling_is_above_what_caching_gives_the_serial_pipeline(
    made: PipelineModel, unattributed: float, read_bytes_per_s: int
) -> None:
    total_s = sum(stage.wall_s for stage in made.stages) / (1 - unattributed)
    stages = [times(stage.id, stage.wall_s, stage.wall_s / total_s) for stage in made.stages]
    artefacts = tuple(Artefact(stage=id_, what=id_, bytes_per_sample=10_000) for id_ in ("vae_encode", "encode"))
    caching = Caching(artefacts=artefacts, num_samples=10, read_bytes_per_s=read_bytes_per_s)
    cached = [each for each in what_ifs(made, stages, None, Options(caching=caching)) if each.ceiling is not None]
    assert len(cached) == {0: 0, 1: 1, 2: 3}[sum(stage.id in ("vae_encode", "encode") for stage in made.stages)]
    for entry in cached:
        gone = {"cached_latents": {"vae_encode"}, "cached_features": {"encode"}}.get(entry.id, set())
        if not gone or len(cached) == 1:
            gone = {"fetch", "decode", "copy", "vae_encode", "encode"}
        saved_s = sum(stage.wall_s for stage in made.stages if stage.id in gone)
        load_s = entry.bytes_on_disk / 10 / read_bytes_per_s
        assert entry.ceiling >= total_s / (total_s - saved_s + load_s) * (1 - 1e-9)
        assert entry.ceiling == pytest.approx(total_s / (total_s - saved_s))


@FEW
@given(models())
def test_the_bottleneck_is_never_the_stage_that_waits(made: PipelineModel) -> None:
    """With the stall that the simulation says there is."""
    step_s = sum(stage.wall_s for stage in made.steps)
    stall = max(0.0, 1 - step_s / predict(made).s_per_sample)
    found = bottleneck(made, stall)
    if stall < DEVICE_STALL:
        assert found.kind == "device"
        assert found.stage == max(made.steps, key=lambda stage: stage.wall_s).id
    elif stall > INPUT_STALL:
        assert found.kind == "input"
        assert found.stage in INPUTS
        (named,) = (stage for stage in made.inputs if stage.id == found.stage)
        is_slowest = all(named.worker_s >= other.worker_s for other in made.inputs)
        is_hungriest = all(named.core_s >= other.core_s for other in made.inputs)
        assert is_slowest or is_hungriest
    else:
        assert found.kind == "mixed"
    assert f"{stall:.1%}" in found.reason
