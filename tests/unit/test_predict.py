"""Predictions whose numbers can be worked out by hand."""

from __future__ import annotations

import pytest
from made_profiles import cost, model, times

from fovcache.bench.profiler.predict import CORES, DEVICE, STEP, pipeline_model, predict
from fovcache.bench.profiler.simulation import Server, core_slowdown, simulated_s_per_sample
from fovcache.bench.profiler.workload import Workload
from fovcache.errors import UsageError
from fovcache.pipeline.bound import resource_times
from fovcache.pipeline.stage import Stage


def test_each_bound_is_the_slowest_for_once() -> None:
    """0.08 s of fetch on 4 threads, 0.05 s of decode on 2, a chain of 0.01 + 0.004 + 0.003 s."""
    steps = (cost("encode", 0.01), cost("forward", 0.004), cost("backward", 0.003))
    fetch, decode = cost("fetch", 0.08, num_workers=4), cost("decode", 0.05, 0.05, num_workers=2)
    as_it_is = model(fetch, decode, *steps)
    assert as_it_is.bounds() == pytest.approx({"fetch": 0.02, "decode": 0.025, CORES: 0.0125, STEP: 0.017})
    assert (predict(as_it_is).limited_by, predict(as_it_is).s_per_sample) == ("decode", pytest.approx(0.025))

    more_decode = as_it_is.with_workers("decode", 4)
    assert (predict(more_decode).limited_by, predict(more_decode).s_per_sample) == ("fetch", pytest.approx(0.02))

    more_fetch = more_decode.with_workers("fetch", 8)
    assert (predict(more_fetch).limited_by, predict(more_fetch).s_per_sample) == (STEP, pytest.approx(0.017))

    fewer_cores = model(fetch, decode, *steps, num_cores=1).with_workers("decode", 4)
    assert (predict(fewer_cores).limited_by, predict(fewer_cores).bound_s) == (CORES, pytest.approx(0.05))
    assert predict(fewer_cores).s_per_sample == pytest.approx(0.05, rel=0.02)

    fed = as_it_is.without("fetch", "decode", "encode")
    assert (predict(fed).limited_by, predict(fed).s_per_sample) == (STEP, pytest.approx(0.007))
    assert predict(fed.with_input(cost("load", 0.009))).limited_by == "load"
    assert predict(fed.without("forward", "backward")).s_per_sample == 0


def test_a_device_that_works_by_itself_leaves_the_cores_to_the_input() -> None:
    stages = [cost("decode", 0.1, 0.1, num_workers=4), cost("encode", 0.03, 0.03), cost("backward", 0.01, 0.01)]
    waited_for = model(*stages)
    by_itself = model(*stages, is_async=True)
    assert waited_for.bounds() == pytest.approx({"decode": 0.025, CORES: 0.035, STEP: 0.04})
    assert by_itself.bounds() == pytest.approx({"decode": 0.025, CORES: 0.025, DEVICE: 0.04})
    assert predict(by_itself).limited_by == DEVICE
    assert predict(by_itself).s_per_sample == pytest.approx(0.04)


def test_a_batch_that_finds_no_room_in_the_queue_is_waited_for() -> None:
    """Of 4 samples 1 can wait while the step of 40 ms runs; of the others 1 is in hand, 2 take 20 ms after it."""
    stages = [cost("decode", 0.01), cost("encode", 0.01)]
    assert predict(model(*stages, max_queued=4)).s_per_sample == pytest.approx(0.01)
    assert predict(model(*stages, max_queued=1)).s_per_sample == pytest.approx(0.06 / 4)
    ahead = model(*stages, max_queued=1, is_async=True)
    assert predict(ahead).s_per_sample == pytest.approx(0.01)


def test_uneven_costs_cost_more_than_their_mean() -> None:
    """Twenty of 30 ms, then twenty of 10, against the reverse: one waits for the other all the time, nearly 30 ms."""
    decode = Server(durations_s=(0.03,) * 20 + (0.01,) * 20)
    settings = {"batch_size": 1, "num_batches": 400, "num_warm_up": 80, "num_cores": 1}

    def against(*durations_s: float, max_queued: int) -> float:
        return simulated_s_per_sample([decode], Server(durations_s=durations_s, max_queued=max_queued), **settings)

    crossed = (*(0.01,) * 20, *(0.03,) * 20)
    assert 0.028 < against(*crossed, max_queued=1) < 0.03
    assert against(*crossed, max_queued=40) == pytest.approx(0.02, rel=0.02)  # there is room for all of it
    assert against(0.02, max_queued=40) == pytest.approx(0.02, rel=0.02)


def test_work_beyond_the_cores_slows_down_alike() -> None:
    assert core_slowdown([(1.0, 2), (0.0, 8)], 4) == 1
    assert core_slowdown([(1.0, 8)], 4) == pytest.approx(2)
    assert core_slowdown([(4.0, 1), (1.0, 4)], 4) == pytest.approx(2)
    # Half of the time waiting: 8 that want 4 cores of 2 are not twice but three times as slow in the other half.
    assert core_slowdown([(0.5, 8)], 2) == pytest.approx(3)


def test_inputs_in_the_training_thread_overlap_with_nothing_but_a_device_that_works_by_itself() -> None:
    stages = [cost("fetch", 0.03, num_workers=4), cost("decode", 0.02, num_workers=4), cost("encode", 0.04)]
    alone = model(*stages, is_prefetched=False)
    assert (predict(alone).limited_by, predict(alone).s_per_sample) == (STEP, pytest.approx(0.09))
    ahead = model(*stages, is_prefetched=False, is_async=True)
    assert ahead.bounds() == pytest.approx({STEP: 0.05, DEVICE: 0.04, CORES: 0})
    assert (predict(ahead).limited_by, predict(ahead).s_per_sample) == (STEP, pytest.approx(0.05))


def test_failed_samples_cost_time_too() -> None:
    """40 came through in 4 s of fetch; 10 failed in it and took another 1 s."""
    workload = Workload(
        source=lambda: iter(()),
        inputs=(Stage(id="fetch", name="download", resource="network", run=len, num_workers=2, max_queued=3),),
        steps=(Stage(id="encode", name="encode", resource="cpu", run=len, max_queued=32),),
        batch_size=4,
    )
    stages = [times("fetch", 0.1, failed=10, failed_s=1.0, cpu_s=0.02), times("encode", 0.01)]
    made = pipeline_model(workload, stages, num_samples=40, num_cores=4, units_s={"fetch": [1.0, 2.0]})
    assert made.batch_size == 4
    assert made.max_queued == 32
    (fetch,), (encode,) = made.inputs, made.steps
    assert (fetch.wall_s, fetch.core_s) == pytest.approx((0.125, 0.025))
    assert (fetch.name, fetch.resource, fetch.num_workers, fetch.max_queued) == ("download", "network", 2, 3)
    assert fetch.units_s == (1.0, 2.0)
    assert encode.wall_s == 0.01
    assert predict(made).bound_s == pytest.approx(0.0625)
    with pytest.raises(UsageError, match=r"stages \['encode'\] were not measured"):
        pipeline_model(workload, stages[:1], num_samples=40, num_cores=4)
    with pytest.raises(UsageError, match="0 samples came through"):
        pipeline_model(workload, stages, num_samples=0, num_cores=4)


def test_single_durations_are_scaled_to_the_mean() -> None:
    assert cost("decode", 0.02, units_s=(1.0, 3.0)).durations_s() == pytest.approx((0.01, 0.03))
    assert cost("encode", 0.02, units_s=(1.0, 3.0)).durations_s(8) == pytest.approx((0.08, 0.24))
    assert cost("copy", 0.02, units_s=(0.0, 0.0)).durations_s() == (0.02,)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no input stage 'decoed'; nearest: decode"):
        model(cost("decode", 0.1)).with_workers("decoed", 2)
    for broken in ({"wall_s": float("nan")}, {"wall_s": -1.0}, {"wall_s": 1.0, "num_workers": 0}):
        with pytest.raises(UsageError, match="stage 'decode'"):
            cost("decode", **broken)
    with pytest.raises(UsageError, match="on 0 cores"):
        model(cost("decode", 0.1), num_cores=0)
    with pytest.raises(UsageError, match="at least one duration"):
        Server(durations_s=())


def test_resource_times_are_by_resource() -> None:
    assert resource_times([("cpu", 1.0), ("cpu", 2.0), ("gpu", 1.0)], {"cpu": 4, "gpu": 1}) == {"cpu": 0.75, "gpu": 1.0}
