"""What a profile does often: recording calls, and simulating pipelines for its predictions."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.profiler.recorder import Recorder
from fovcache.bench.profiler.simulation import Server, simulated_s_per_sample
from fovcache.pipeline.stage import Stage


def test_record_a_thousand_calls(benchmark: BenchmarkFixture) -> None:
    stage = Stage(id="decode", name="", resource="cpu", run=lambda item: item)

    def run() -> int:
        recorder = Recorder()
        recorded = recorder.recorded(stage)
        for item in range(1000):
            recorded.run(item)
        return len(recorder.calls["decode"])

    assert benchmark(run) == 1000


def test_simulate_a_pipeline(benchmark: BenchmarkFixture) -> None:
    inputs = (
        Server(durations_s=(0.010, 0.020, 0.030), num_workers=4),
        Server(durations_s=(0.010, 0.030, 0.020), cores=1, num_workers=4),
    )
    step = Server(durations_s=(0.032,), cores=1)
    s_per_sample = benchmark(
        simulated_s_per_sample, inputs, step, batch_size=8, num_batches=32, num_warm_up=4, num_cores=4
    )
    assert s_per_sample > 0.004
