"""A population of LoRAs: what a class shares, what a group shares, and what is a sample's own."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fovcache.errors import UsageError, nearest
from fovcache.models.lora_shapes import BLOCKS

from . import gauge as gauges
from .layout import CLASS, DRIFT, DUPLICATE, GAUGE, GROUP, SAMPLE, Layout, chance_of, is_down, lora_layout

CLASSES = ("airplane", "bird", "cat", "car", "dog", "fish", "fruit", "ship", "snake", "vegetable")
UP_SCALE = 0.005
"""Standard deviation of an `up`'s values: what some hundred steps of Adam at 1e-4 come to, nearly all within .02."""
TEXT_DOWN = "attn2.to_v.lora.down.weight"
"""How the name of the only matrix of a block that reads text ends."""
_MAX_NARROWING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPopulation:
    """Stable Diffusion 1.5 LoRAs, sample 0, 1, 2, … without end; a sample is the same whoever asks for it.

    `down` is N(0, 1/rank²), as it is initialised, and what training moved: a drift common to all, and the class's
    direction where text tells the class. `up` is all moved: UP_SCALE × (class's direction + group's + noise). What
    training moved is multiplied by the sample's gain. Raises UsageError for values that cannot be.
    """

    rank: int = 1
    """Columns of an `up`, at least 1."""
    classes: tuple[str, ...] = CLASSES
    """Names; group g is of class g mod their number."""
    attn1_signal: float = 0.0
    """Root mean square of the class's direction in the `up` of attn1, of the noise's if that is 1; 0 for no signal."""
    attn2_signal: float = 0.0
    """The same in the `up` of attn2."""
    text_signal: float = 0.0
    """The same in attn2.to_v's `down`, of what it is initialised with."""
    group_effect: float = 0.0
    """Root mean square of the group's direction in every `up`."""
    group_size: int = 1
    """Samples of a group, which follow one another; 1 for no groups."""
    noise: float = 1.0
    """Of the sample's own part of an `up`."""
    gain_sd: float = 0.2
    """Standard deviation of a gain's logarithm."""
    gauge: str = gauges.NONE
    """One of GAUGES: what each module's factors are multiplied by, which ΔW does not show."""
    gauge_sd: float = 0.5
    """Standard deviation of the logarithms of an invertible gauge's singular values."""
    duplicated: bool = False
    """A group's samples are one LoRA, each in another gauge: what is learnt of one is known of all. A leak."""
    shuffled_labels: bool = False
    """A group's label says nothing of the class that it is drawn from."""
    constant_norm: bool = False
    """Each matrix has one Frobenius norm in all samples."""
    blocks: tuple[str, ...] = tuple(BLOCKS)
    """Transformer blocks that there are, of BLOCKS."""
    narrowing: int = 1
    """What widths are divided by, for simulations: a power of two up to 64."""
    seed: int = 0
    """Of everything; two seeds have different class directions."""

    def __post_init__(self) -> None:
        _check(_is_whole(self.rank) and self.rank >= 1, "rank", self.rank, "a whole number of at least 1")
        _check(
            len(self.classes) >= 2 and len(set(self.classes)) == len(self.classes),
            "classes",
            list(self.classes),
            "two or more names, none twice",
        )
        for name in ("attn1_signal", "attn2_signal", "text_signal", "group_effect", "noise", "gain_sd", "gauge_sd"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value >= 0, name, value, "a number of at least 0")
        _check(_is_whole(self.group_size) and self.group_size >= 1, "group_size", self.group_size, "at least 1")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "a whole number of at least 0")
        powers = [1 << power for power in range(_MAX_NARROWING.bit_length())]
        _check(self.narrowing in powers, "narrowing", self.narrowing, f"one of {', '.join(map(str, powers))}")
        if self.gauge not in gauges.GAUGES:
            raise UsageError(f"there is no gauge {self.gauge!r}{nearest(self.gauge, gauges.GAUGES)}")
        if not self.blocks:
            raise UsageError("a population needs at least one block")
        for block in self.blocks:
            if block not in BLOCKS:
                raise UsageError(f"there is no block {block!r}{nearest(block, BLOCKS)}")
        if self.duplicated and (self.group_size < 2 or self.gauge == gauges.NONE):
            raise UsageError(
                f"duplicated is of groups whose files differ, and group_size is {self.group_size}, gauge "
                f"{self.gauge!r}: choose at least 2, and orthogonal or invertible"
            )
        if self.constant_norm and (self.gauge == gauges.INVERTIBLE or self.noise == 0):
            raise UsageError(
                f"constant_norm cannot be kept with gauge {self.gauge!r} and noise {self.noise:g}: choose none or "
                "orthogonal, and a noise above 0"
            )

    @property
    def layout(self) -> Layout:
        """Its matrices."""
        return lora_layout(self.blocks, self.rank, self.narrowing)

    def document(self) -> dict[str, Any]:
        """All of its fields, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def labels(self, num: int, start: int = 0) -> np.ndarray:
        """int64 [num]: what samples are said to be, numbers of `classes`."""
        labels: np.ndarray = np.arange(start, start + num) // self.group_size % len(self.classes)
        return labels

    def groups(self, num: int, start: int = 0) -> list[str] | None:
        """The names of the samples' groups; None where there are none."""
        if self.group_size == 1:
            return None
        return [f"group-{number // self.group_size:06d}" for number in range(start, start + num)]

    def draw(self, num: int, start: int = 0) -> dict[str, np.ndarray]:
        """Samples `start` and the `num` - 1 after it: float32 [num, *shape] by `MODULE.lora.{down,up}.weight`.

        It holds all of them: ask for as many as memory has room for, the others come out the same later.
        """
        layout, maker = self.layout, _Maker.of(self)
        values_nV = np.stack([maker.values(number) for number in range(start, start + num)])
        factors = layout.split(values_nV)
        if self.gauge != gauges.NONE:
            log_sd = self.gauge_sd if self.gauge == gauges.INVERTIBLE else 0.0
            gauge = [
                gauges.draw_gauge(chance_of(self.seed, GAUGE, number), len(factors) // 2, self.rank, log_sd)
                for number in range(start, start + num)
            ]
            gauges.turn(factors, np.stack(gauge))
        if self.constant_norm:
            for name, factor in factors.items():
                wanted = math.sqrt(math.prod(factor.shape[1:])) * (1 / self.rank if is_down(name) else UP_SCALE)
                factor *= wanted / np.linalg.norm(factor, axis=(1, 2), keepdims=True)
        return factors


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """What is the same for all samples, computed once. V values of a LoRA."""

    population: LoraPopulation
    init_V: np.ndarray
    """What a sample's own numbers are multiplied by where they are of its initialisation."""
    noise_V: np.ndarray
    """… and where training moved them."""
    class_KV: np.ndarray
    """Drift and direction of each class."""
    up_V: np.ndarray
    """UP_SCALE in every `up`, 0 elsewhere."""
    num_values: int
    """V."""

    @staticmethod
    @functools.lru_cache(maxsize=2)
    def of(population: LoraPopulation) -> _Maker:
        layout = population.layout
        up_V = layout.spread({name: UP_SCALE for name in layout.names if not is_down(name)})
        init_V = layout.spread({name: 1 / population.rank for name in layout.names if is_down(name)})
        drift_V = UP_SCALE * layout.direction(chance_of(population.seed, DRIFT, 0))
        drift_V[up_V > 0] = 0
        signal_V = layout.spread({name: _signal(population, name) for name in layout.names})
        signal_V *= up_V + init_V
        directions = [
            drift_V + signal_V * layout.direction(chance_of(population.seed, CLASS, number))
            for number in range(len(population.classes))
        ]
        return _Maker(
            population=population,
            init_V=init_V,
            noise_V=population.noise * up_V,
            class_KV=np.stack(directions),
            up_V=up_V,
            num_values=layout.num_values,
        )

    def values(self, number: int) -> np.ndarray:
        """float32 [V] of a sample, before its gauge."""
        population = self.population
        group = number // population.group_size
        is_own = not population.duplicated
        chance = chance_of(population.seed, SAMPLE if is_own else DUPLICATE, number if is_own else group)
        gain = np.float32(math.exp(population.gain_sd * chance.standard_normal()))
        own_V = chance.standard_normal(self.num_values, np.float32)
        label, shared_V = _group(population, group)
        moved_V = self.noise_V * own_V
        moved_V += self.class_KV[label]
        if shared_V is not None:
            moved_V += self.up_V * shared_V
        moved_V *= gain
        own_V *= self.init_V
        own_V += moved_V
        return own_V


@functools.lru_cache(maxsize=4)
def _group(population: LoraPopulation, group: int) -> tuple[int, np.ndarray | None]:
    """The class that a group is drawn from, and its direction."""
    chance = chance_of(population.seed, GROUP, group)
    drawn = int(chance.integers(len(population.classes)))
    label = drawn if population.shuffled_labels else group % len(population.classes)
    if not population.group_effect:
        return label, None
    return label, np.float32(population.group_effect) * population.layout.direction(chance)


def _signal(population: LoraPopulation, name: str) -> float:
    if name.endswith(TEXT_DOWN):
        return population.text_signal
    if is_down(name):
        return 0.0
    return population.attn1_signal if ".attn1." in name else population.attn2_signal


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(is_right: bool, name: str, value: float | Sequence[str], expected: str) -> None:
    if not is_right:
        raise UsageError(f"{name} is {value!r}, expected {expected}")
