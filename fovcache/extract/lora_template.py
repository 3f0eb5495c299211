"""Which modules a LoRA adapts: names and shapes without the rank, which every file of a data set has to have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import UsageError
from ..keys.digest import document_digest
from .lora_keys import DOWN, UP, LoraKey, flat

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LoraTemplate:
    """The adapted modules. ΔW of one is (alpha / rank) · up · down, and has the shape of its weight."""

    modules: Mapping[str, Shape] = field(hash=False)
    """By name in dots the weight's shape: [outputs, inputs], of a convolution [outputs, inputs, height, width]."""

    def __post_init__(self) -> None:
        if not self.modules:
            raise UsageError("a LoRA's template has no module; expected at least one")
        for name, shape in self.modules.items():
            if len(shape) < 2 or min(shape) < 1:
                raise UsageError(f"module {name!r} has a weight of shape {shape}; expected [outputs, inputs, …]")

    @cached_property
    def digest(self) -> str:
        """Of names and shapes."""
        return document_digest({name: list(shape) for name, shape in self.modules.items()})

    @cached_property
    def scalars_per_rank(self) -> int:
        """Numbers in all factors of a LoRA of rank 1; one of rank r has r times as many."""
        return sum(outputs + inputs for outputs, inputs in self.matrices.values())

    @cached_property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs of each ΔW as a matrix: of a convolution the inputs times its places."""
        return {name: (shape[0], math.prod(shape[1:])) for name, shape in self.modules.items()}

    @cached_property
    def factors(self) -> tuple[LoraKey, ...]:
        """Every factor, in the order of the layers: `down` and `up` of one module after the other."""
        return tuple(LoraKey(module=module, part=part) for module in self.modules for part in (DOWN, UP))

    def shape(self, key: LoraKey, rank: int) -> Shape:
        """Of a factor in a file."""
        outputs, *inputs = self.modules[key.module]
        return (rank, *inputs) if key.part == DOWN else (outputs, rank, *(1 for _ in inputs[1:]))

    def size(self, key: LoraKey) -> int:
        """Numbers of a factor of rank 1."""
        outputs, inputs = self.matrices[key.module]
        return inputs if key.part == DOWN else outputs

    def rank_of(self, key: LoraKey, shape: Sequence[int]) -> int | None:
        """The rank at which a factor has this shape; None where there is none."""
        axis = 0 if key.part == DOWN else 1
        rank = shape[axis] if len(shape) > axis else 0
        return rank if rank > 0 and self.shape(key, rank) == tuple(shape) else None

    def find(self, module: str) -> str | None:
        """The module of this name, or the only one that kohya's style would call the same."""
        return module if module in self.modules else self._by_flat_name.get(flat(module))

    @cached_property
    def _by_flat_name(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in self.modules:
            found[flat(name)] = None if flat(name) in found else name
        return found
