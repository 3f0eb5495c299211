"""How fast stages could be at best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import UsageError, nearest


def resource_bound(demands: Iterable[tuple[str, float]], capacities: Mapping[str, float]) -> float:
    """Seconds per item that no overlap can beat: the largest of all resources' `resource_times`."""
    return max(resource_times(demands, capacities).values(), default=0.0)


def resource_times(demands: Iterable[tuple[str, float]], capacities: Mapping[str, float]) -> dict[str, float]:
    """Seconds per item that each resource allows at best: Σ demand ÷ capacity.

    `demands` are each stage's resource and its seconds of it per item; stages that share a resource add up.
    `capacities` say how many items a resource serves at a time: cores, connections, GPUs.
    """
    totals: dict[str, float] = {}
    for resource, demand_s in demands:
        if resource not in capacities:
            raise UsageError(f"resource {resource!r} has no capacity{nearest(resource, capacities)}")
        if not demand_s >= 0 or not capacities[resource] > 0:
            raise UsageError(
                f"{demand_s} s per item of {resource!r} with capacity {capacities[resource]}; expected a demand of at "
                "least 0 s and a capacity above 0"
            )
        totals[resource] = totals.get(resource, 0.0) + demand_s
    return {resource: total / capacities[resource] for resource, total in totals.items()}
