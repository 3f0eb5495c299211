"""All matrices of a LoRA in one vector, and the random numbers that fill it.

Axes: n samples, V values of a LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fovcache.models.lora_shapes import factor_shapes

DRIFT, CLASS, GROUP, SAMPLE, DUPLICATE, GAUGE = range(6)
"""What random numbers are drawn for: each has a stream of its own."""
_LEAST_DENSITY = 0.05
_LOG_MAGNITUDE_SD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each matrix lies in the vector of all values, in the order of `shapes`."""

    shapes: Mapping[str, tuple[int, int]]
    """Of each matrix, by `MODULE.lora.{down,up}.weight`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the matrices."""
        return tuple(self.shapes)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [matrices]: values of each."""
        return np.array([math.prod(shape) for shape in self.shapes.values()], np.int64)

    @property
    def num_values(self) -> int:
        """V."""
        return int(self.sizes.sum())

    def spread(self, of_matrix: Mapping[str, float]) -> np.ndarray:
        """float32 [V]: a number of each matrix at all its values; 0 for those that are not named."""
        numbers = np.array([of_matrix.get(name, 0.0) for name in self.names], np.float32)
        return np.repeat(numbers, self.sizes)

    def split(self, values_nV: np.ndarray) -> dict[str, np.ndarray]:
        """Views `[n, *shape]` of the matrices in `[n, V]`."""
        ends = np.cumsum(self.sizes)
        return {
            name: values_nV[:, end - size : end].reshape(len(values_nV), *self.shapes[name])
            for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }

    def direction(self, chance: np.random.Generator) -> np.ndarray:
        """float32 [V]: where what samples share lies.

        Its magnitude and the share of values that are not zero differ from matrix to matrix, so that it shows in the
        norms of matrices and in the shapes of their distributions as well as in single values. The mean square is
        about 1.
        """
        num = len(self.shapes)
        magnitude = np.exp(_LOG_MAGNITUDE_SD * chance.standard_normal(num) - _LOG_MAGNITUDE_SD**2)
        density = chance.uniform(_LEAST_DENSITY, 1.0, num)
        values = chance.standard_normal(self.num_values, np.float32)
        values *= chance.random(self.num_values, np.float32) < np.repeat(density, self.sizes)
        return values * np.repeat(magnitude / np.sqrt(density), self.sizes).astype(np.float32)


def lora_layout(blocks: tuple[str, ...], rank: int, narrowing: int) -> Layout:
    """The matrices of some blocks, in the order of `models.lora_shapes`; widths divided by `narrowing`."""
    shapes = {
        name: (rank, shape[1] // narrowing) if is_down(name) else (shape[0] // narrowing, rank)
        for name, shape in factor_shapes(rank).items()
        if name.startswith(tuple(f"{block}." for block in blocks))
    }
    return Layout(shapes=shapes)


def is_down(name: str) -> bool:
    """Whether a matrix is a `down`, which reads; else it is an `up`."""
    return name.endswith(".lora.down.weight")


def chance_of(seed: int, stream: int, number: int) -> np.random.Generator:
    """Philox of a seed and a number: nobody else's numbers, in whatever order they are asked for."""
    key = np.array([seed, number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], np.uint64)))
