"""The stage to mend first: the one that causes the wait, never the one that waits."""

from __future__ import annotations

from collections.abc import Mapping

from .predict import CORES, PipelineModel, StageCost
from .result import Bottleneck

DEVICE_STALL = 0.05
"""Below this part of the time spent waiting, the input is not the problem."""
INPUT_STALL = 0.2
"""Above it, it is."""


def bottleneck(model: PipelineModel, stall: float, device_s: Mapping[str, float] | None = None) -> Bottleneck:
    """What holds the pipeline up, by `stall`: the part of the time in which the steps waited for their input, 0 to 1.

    `device_s` are the steps' seconds a sample on the device, by events; without them, what they took serially counts.
    """
    step = _slowest_step(model, device_s or {})
    source = _slowest_input(model)
    waited = f"the training step waited for its input {stall:.1%} of the time"
    if source is None or (step is not None and stall < DEVICE_STALL):
        if step is None:
            return Bottleneck(stage="source", resource="cpu", kind="input", reason=f"{waited}; no stage took any time")
        return Bottleneck(
            stage=step.id,
            resource=step.resource,
            kind="device",
            reason=f"{waited}: the input is not the problem; {_of_step(step, model, device_s or {})}",
        )
    if step is None or stall > INPUT_STALL:
        return Bottleneck(
            stage=source.id, resource=source.resource, kind="input", reason=f"{waited}, for {_of_input(source, model)}"
        )
    is_source = _input_s(source, model) >= _step_s(model)
    return Bottleneck(
        stage=source.id if is_source else step.id,
        resource=source.resource if is_source else step.resource,
        kind="mixed",
        reason=f"{waited}: both count; {_of_input(source, model)}; {_of_step(step, model, device_s or {})}",
    )


def _slowest_input(model: PipelineModel) -> StageCost | None:
    """By seconds over threads; by core-seconds where cores are shorter than threads."""
    if _are_cores_short(model):
        hungry = max(model.inputs, key=lambda stage: stage.core_s, default=None)
        if hungry is not None and hungry.core_s > 0:
            return hungry
    return max(model.inputs, key=lambda stage: stage.worker_s, default=None)


def _slowest_step(model: PipelineModel, device_s: Mapping[str, float]) -> StageCost | None:
    return max(model.steps, key=lambda stage: device_s.get(stage.id, stage.wall_s), default=None)


def _are_cores_short(model: PipelineModel) -> bool:
    bounds = model.bounds()
    return CORES in bounds and bounds[CORES] > max((stage.worker_s for stage in model.inputs), default=0.0)


def _input_s(stage: StageCost, model: PipelineModel) -> float:
    return max(stage.worker_s, model.bounds()[CORES]) if _are_cores_short(model) else stage.worker_s


def _step_s(model: PipelineModel) -> float:
    return sum(stage.wall_s for stage in model.steps)


def _of_input(stage: StageCost, model: PipelineModel) -> str:
    if _are_cores_short(model):
        total_s = model.bounds()[CORES] * model.num_cores
        return (
            f"{stage.name}, which takes {_ms(stage.core_s)} of the {_ms(total_s)} core time that a sample costs; "
            f"{model.num_cores:g} cores give one every {_ms(total_s / model.num_cores)}"
        )
    threads = "1 thread gives" if stage.num_workers == 1 else f"{stage.num_workers} threads give"
    return f"{stage.name}, {_ms(stage.wall_s)} a sample, of which {threads} one every {_ms(stage.worker_s)}"


def _of_step(stage: StageCost, model: PipelineModel, device_s: Mapping[str, float]) -> str:
    own_s = device_s.get(stage.id, stage.wall_s)
    total_s = sum(device_s.get(each.id, each.wall_s) for each in model.steps)
    share = own_s / total_s if total_s > 0 else 0.0
    return f"{stage.name} takes {_ms(own_s)} a sample, {share:.0%} of the step's {_ms(total_s)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
