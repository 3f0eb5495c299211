"""Values of a profile, for tests: what they do not say is unremarkable."""

from __future__ import annotations

from typing import Any

from fovcache.bench.profiler.predict import PipelineModel, StageCost
from fovcache.bench.profiler.result import OverlappedRun, SerialRun, StageTimes, WhatIf

RESOURCES = {"fetch": "network", "decode": "cpu", "load": "disk"}


def cost(id_: str, wall_s: float, core_s: float = 0.0, **settings: Any) -> StageCost:
    return StageCost(id=id_, name=id_, resource=RESOURCES.get(id_, "gpu"), wall_s=wall_s, core_s=core_s, **settings)


def model(*stages: StageCost, batch_size: int = 4, num_cores: float = 4, **settings: Any) -> PipelineModel:
    """`fetch`, `decode` and `load` are inputs, the rest are steps."""
    return PipelineModel(
        inputs=tuple(stage for stage in stages if stage.id in RESOURCES),
        steps=tuple(stage for stage in stages if stage.id not in RESOURCES),
        batch_size=batch_size,
        num_cores=num_cores,
        **settings,
    )


def times(id_: str, mean_s: float, share: float = 0.0, **settings: Any) -> StageTimes:
    settings = {"n": 40, "failed": 0, "failed_s": 0.0, "cpu_s": 0.0, **settings}
    n = settings["n"]
    return StageTimes(
        id=id_,
        name=settings.pop("name", id_),
        resource=RESOURCES.get(id_, "gpu"),
        num_units=n,
        total_s=mean_s * n + settings["failed_s"],
        mean_s=mean_s,
        median_s=mean_s,
        p10_s=mean_s * 0.9,
        p90_s=mean_s * 1.1,
        ci95_s=(mean_s * 0.95, mean_s * 1.05),
        share=share,
        **settings,
    )


def serial_run(s_per_sample: float, unattributed_share: float = 0.0, n: int = 40) -> SerialRun:
    return SerialRun(
        s_per_sample=s_per_sample,
        samples_per_hour=3600 / s_per_sample,
        unattributed_share=unattributed_share,
        wall_s=s_per_sample * n,
        n=n,
    )


def overlapped_run(s_per_sample: float, stall: float = 0.0, n: int = 40) -> OverlappedRun:
    return OverlappedRun(
        s_per_sample=s_per_sample,
        samples_per_hour=3600 / s_per_sample,
        ci95_s=(s_per_sample * 0.95, s_per_sample * 1.05),
        busy={"cpu": 0.5, "gpu": 1 - stall},
        stall=stall,
        wall_s=s_per_sample * n,
        n=n,
        device_s={},
        num_workers={"fetch": 4, "decode": 2},
    )


def what_if(id_: str, s_per_sample: float, base_s: float, **settings: Any) -> WhatIf:
    return WhatIf(
        id=id_,
        change=settings.pop("change", id_),
        s_per_sample=s_per_sample,
        samples_per_hour=3600 / s_per_sample,
        speedup=base_s / s_per_sample,
        **settings,
    )
