"""The linear baseline of an ablation whose head is none: an arm that differs from it in a linear head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fovcache.probes.result import Ablation, ArmComparison, Estimate

_LINEAR = ("ridge", "logistic", "linear")
"""Heads, the one that is wanted most first."""


def linear_baseline(ablation: Ablation, arms: Sequence[ArmComparison]) -> ArmComparison | None:
    """The arm; None where the head is linear itself, or no arm has one that is."""
    if ablation.protocol.get("head") in _LINEAR:
        return None
    found = {kind: arm for arm in reversed(arms) if (kind := _head_of(arm)) in _LINEAR}
    return next((found[kind] for kind in _LINEAR if kind in found), None)


def baseline_accuracy(arm: ArmComparison, estimate: Estimate) -> float | None:
    """The arm's mean test accuracy where the estimate has its own; None unless the same seeds were compared."""
    for each in arm.differences:
        if (each.representation, each.experiment) == (estimate.representation, estimate.experiment):
            return estimate.mean + each.mean if each.num_seeds == estimate.num_seeds else None
    return None


def _head_of(arm: ArmComparison) -> str | None:
    """The kind of head that it changes to; None where it changes something else."""
    if arm.setting not in ("head", "head.kind"):
        return None
    kind = arm.arm_value.get("kind") if isinstance(arm.arm_value, Mapping) else arm.arm_value
    return kind if isinstance(kind, str) else None
