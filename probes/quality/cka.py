"""How alike two sets of vectors of the same samples are: CKA with a linear kernel, debiased.

Kornblith et al. (2019), with the unbiased HSIC of Song et al. (2012) as in Nguyen et al. (2021). Axes: N vectors of
each set, B of them in a block, D dimensions of a set, S sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch

from .vectors import Vectors

MIN_VECTORS = 4
"""The unbiased estimate divides by N - 3."""
_BLOCK_ROWS = 512
_BLOCK_NUMBERS = 1 << 24
"""Of all sets together, 128 MiB."""
_NOTHING = 1e-12


def cka(
    sets: Sequence[Vectors],
    pairs: Iterable[tuple[int, int]],
    *,
    debiased: bool = True,
    on_pair: Callable[[], None] = lambda: None,
) -> dict[tuple[int, int], float | None]:
    """CKA of pairs of `sets`, by their places; None where a set does not vary, or debiased of fewer than 4 vectors.

    All sets have as many vectors, of the same samples in the same order. With D dimensions or N × N products in
    float64, whichever multiplies less; neither holds more numbers than D × D of two sets, or blocks of all sets.
    Debiased values of unrelated sets are 0 on average, and can lie a little below; the plain ones are far above it
    where N is not much larger than D. `on_pair` is called for each pair that is done.
    """
    wanted = list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))
    norms_SN = [torch.cat([block_BD.square().sum(1) for block_BD in each.blocks()]) for each in sets]
    needed = dict.fromkeys([*wanted, *((place, place) for pair in wanted for place in pair)])
    products = _products(sets, list(needed), on_pair)
    num = len(sets[0])
    if debiased:
        products = {pair: _debiased(found, *(norms_SN[place] for place in pair)) for pair, found in products.items()}
    sizes = [float(norm_N.sum()) ** 2 for norm_N in norms_SN]
    too_few = debiased and num < MIN_VECTORS

    def of(one: int, other: int) -> float | None:
        if too_few or any(products[each, each] <= _NOTHING * sizes[each] for each in (one, other)):
            return None
        return 1.0 if one == other else products[one, other] / math.sqrt(products[one, one] * products[other, other])

    return {(one, other): of(one, other) for one, other in wanted}


def _debiased(product: float, one_N: torch.Tensor, other_N: torch.Tensor) -> float:
    """N·(N - 3) times the unbiased HSIC, of centred vectors: from their product and squared lengths."""
    num = len(one_N)
    if num < MIN_VECTORS:
        return 0.0
    own = float(one_N @ other_N)
    return product - num / (num - 2) * own + float(one_N.sum()) * float(other_N.sum()) / ((num - 1) * (num - 2))


def _products(
    sets: Sequence[Vectors], pairs: Sequence[tuple[int, int]], on_pair: Callable[[], None]
) -> dict[tuple[int, int], float]:
    """‖XᵀY‖² of the centred sets, which is also the sum of XXᵀ ∘ YYᵀ."""
    num = len(sets[0])
    widths = [each.num_dimensions for each in sets]
    by_dimensions = sum(num * widths[one] * widths[other] for one, other in pairs)
    by_vectors = num**2 // 2 * (sum(widths) + len(sets) ** 2)
    if by_dimensions > by_vectors:
        return _products_by_vectors(sets, pairs, on_pair)
    found = {}
    for one, other in pairs:
        found[one, other] = _product(sets[one], sets[other])
        on_pair()
    return found


def _product(one: Vectors, other: Vectors) -> float:
    size = (one.num_dimensions, other.num_dimensions)
    cross_DD = torch.zeros(size, dtype=torch.float64, device=one.device)
    for begin in range(0, len(one), _BLOCK_ROWS):
        cross_DD.addmm_(one.rows(begin, begin + _BLOCK_ROWS).T, other.rows(begin, begin + _BLOCK_ROWS))
    return float(cross_DD.square_().sum())


def _products_by_vectors(
    sets: Sequence[Vectors], pairs: Sequence[tuple[int, int]], on_pair: Callable[[], None]
) -> dict[tuple[int, int], float]:
    num, device = len(sets[0]), sets[0].device
    sums_SS = torch.zeros((len(sets), len(sets)), dtype=torch.float64, device=device)
    step = max(1, min(_BLOCK_ROWS, math.isqrt(_BLOCK_NUMBERS // len(sets))))
    for begin in range(0, num, step):
        for other in range(begin, num, step):
            blocks = [(each.rows(begin, begin + step) @ each.rows(other, other + step).T).flatten() for each in sets]
            stacked = torch.stack(blocks)
            sums_SS += (1 if other == begin else 2) * (stacked @ stacked.T)
    for _ in pairs:
        on_pair()
    return {(one, other): float(sums_SS[one, other]) for one, other in pairs}
