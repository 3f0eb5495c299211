"""Advice: what helps, best first, each with its number and command; what makes the numbers doubtful."""

from __future__ import annotations

from typing import Any

from made_profiles import cost, model, overlapped_run, serial_run, times, what_if

from fovcache.bench.profiler.advice import advice
from fovcache.bench.profiler.predict import CORES, STEP
from fovcache.bench.profiler.result import Measured, Overhead, Profile
from fovcache.bench.profiler.verdict import bottleneck

STAGES = (times("fetch", 0.1, 0.5), times("encode", 0.1, 0.49))


def profile(**settings: Any) -> Profile:
    stages = settings.pop("stages", STAGES)
    return Profile(
        environment={}, settings={}, warmup_dropped=4, stages=stages, **{"serial": serial_run(0.2, 0.01), **settings}
    )


def test_what_helps_comes_best_first_with_number_and_command() -> None:
    predicted = (
        what_if("overlap", 0.1, 0.1),
        what_if("fetch_workers", 0.08, 0.1, change="fetch on 8 threads", command="fovbench profile --fetch-workers 8"),
        what_if("decode_workers", 0.098, 0.1),
        what_if(
            "cached_all",
            0.02,
            0.1,
            change="features from the cache",
            bytes_on_disk=3 * 2**30,
            limited_by="load",
            command="fovcache build clips",
        ),
    )
    assert advice(profile(predicted=predicted)) == (
        "features from the cache: 5.00× as fast, 180,000 samples/h (predicted) for 3.0 GiB on disk; the "
        "limit is then load: fovcache build clips",
        "fetch on 8 threads: 1.25× as fast, 45,000 samples/h (predicted): fovbench profile --fetch-workers 8",
    )


def measured(s_per_sample: float, **settings: float) -> Measured:
    return Measured(s_per_sample=s_per_sample, samples_per_hour=3600 / s_per_sample, error=0.0, n=40, **settings)


def test_a_measurement_counts_more_than_its_prediction() -> None:
    """Predicted 2×, measured nothing; predicted nothing, measured 1.25×."""
    predicted = (
        what_if("overlap", 0.09, 0.1, measured=measured(0.1, again_s=0.102)),
        what_if("fetch_workers", 0.05, 0.1, measured=measured(0.099)),
        what_if("decode_workers", 0.1, 0.1, measured=measured(0.08)),
    )
    (only,) = advice(profile(predicted=predicted))
    assert only == "decode_workers: 1.25× as fast, 45,000 samples/h (measured)"


def test_measurements_on_a_machine_that_changed_do_not_count() -> None:
    """All runs after the first were twice as fast."""
    predicted = (
        what_if("overlap", 0.1, 0.1, measured=measured(0.1, again_s=0.05)),
        what_if("fetch_workers", 0.1, 0.1, measured=measured(0.05)),
        what_if("cached_all", 0.02, 0.1, measured=measured(0.01)),
    )
    helps, doubt = advice(profile(predicted=predicted))
    assert helps == "cached_all: 5.00× as fast, 180,000 samples/h (predicted)"
    assert doubt.startswith("the pipeline as it is took 100 ms a sample at first and 50.0 ms after the other runs")


def test_where_nothing_helps_it_says_what_is_left() -> None:
    def left(limited_by: str, **settings: Any) -> str:
        predicted = (what_if("overlap", 0.1, 0.1, limited_by=limited_by), what_if("fetch_workers", 0.1, 0.1))
        (only,) = advice(profile(predicted=predicted, **settings))
        return only

    step = {
        "overlapped": overlapped_run(0.1, stall=0.03),
        "bottleneck": bottleneck(model(cost("fetch", 0.1), cost("encode", 0.1)), 0.03),
    }
    assert left(STEP, **step) == (
        "no change that was predicted helps by 5%: the training step is at work 97% of the time (most of it encode); "
        "a faster device or a smaller encoder is what is left"
    )
    assert "more or faster cores" in left(CORES, **step)
    assert "fetch is the limit, and more threads do not move it" in left("fetch")
    assert advice(profile()) == ()  # nothing was predicted


def test_doubts_are_said() -> None:
    overhead = Overhead(serial_share=0.06, overlapped_share=0.01, how="by hand")
    stages = (times("fetch", 0.1, n=16, failed=3, failed_s=0.4), times("decode", 0.1, n=14, failed=2, failed_s=0.1))
    found = advice(profile(stages=stages, serial=serial_run(0.25, 0.07, n=14), overhead=overhead))
    assert found == (
        "5 samples failed (3 in fetch, 2 in decode) and took 14.3% of the serial time: see `failures`, and take them "
        "out of the source",
        "only 14 samples were measured in decode: the intervals are wide; --samples 40",
        "7.0% of the serial time belongs to no stage (at most 5% is usual): the shares are too small by as much; the "
        "source may be slow to list",
        "measuring took 6.0% of the serial time (at most 5% is usual): the stages are very short; a larger "
        "--batch-size makes it less",
    )
    assert advice(profile(overhead=Overhead(serial_share=0.05, overlapped_share=0.05, how=""))) == ()
