"""Softmax regression with squared weights penalised, along a path of strengths: convex, and solved to a certified gap.

The objective is Σ −log p(y) + strength / 2 · Σ weights², intercepts free. Newton's method, its steps found by conjugate
gradients. What makes it fast, in this order: each strength begins where a polynomial through the last solutions says it
should end; rows are seen from their principal axes, where one number an axis and class combination preconditions; and
products with the Hessian are of float32 factors, since steps need not be exact. What a step is judged by (objective and
gradient) is float64.

Axes: N rows, R principal axes, C classes that occur.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .products import product

_NUM_POINTS = 3
"""Solutions that the next is extrapolated from."""
_FORCING = 0.1
"""By which conjugate gradients bring down the gradient before the next Newton step: a digit at a time."""
_MOST_HALVINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """Where the path is."""

    weights_CR: torch.Tensor
    """float64; over classes they sum to zero."""
    intercepts_C: torch.Tensor
    """float64; they sum to zero."""

    def plus(self, other: Point, share: float) -> Point:
        """This and a share of another."""
        return Point(
            weights_CR=self.weights_CR + share * other.weights_CR,
            intercepts_C=self.intercepts_C + share * other.intercepts_C,
        )

    def times(self, other: Point) -> float:
        """The inner product."""
        return float((self.weights_CR * other.weights_CR).sum() + (self.intercepts_C * other.intercepts_C).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What the path came to at one strength."""

    strength: float
    """Of the penalty."""
    point: Point
    """Weights and intercepts."""
    objective: float
    """There."""
    gap: float
    """By which share of itself the objective can at most be too large."""
    num_products: int
    """Products with the Hessian that it took."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """The objective and its slope at a point."""

    point: Point
    loss: float
    """Without the penalty."""
    probabilities_CN: torch.Tensor
    slope_of_loss: Point
    """Its gradient, without the penalty's."""


class SoftmaxPath:
    """One data set's objective."""

    def __init__(self, rows_NR: torch.Tensor, values_R: torch.Tensor, y_N: torch.Tensor) -> None:
        """Rows float64 along their principal axes, and these' eigenvalues; labels int64 below C, all of which occur."""
        self._rows_NR = rows_NR
        self._values_R = values_R
        self._factor_NR = rows_NR.float()
        self._factor_RN = self._factor_NR.T.contiguous()  # twice, since products are fastest of rows that lie together
        self._targets_CN = torch.nn.functional.one_hot(y_N).T.to(rows_NR.dtype).contiguous()

    def solve(self, strengths: Sequence[float], tolerance: float, max_products: int) -> Iterator[Solution]:
        """One solution a strength, which should fall; `gap` is above the tolerance where it has not converged."""
        past: list[tuple[float, _State]] = [(math.inf, self._state(self._null()))]
        for strength in strengths:
            begin = self._begin(past, strength)
            state, gap, num_products = self._descend(begin, strength, tolerance, max_products)
            past = [*(each for each in past if math.isfinite(each[0])), (strength, state)][-_NUM_POINTS:]
            objective = _objective(state, strength)
            yield Solution(
                strength=strength, point=state.point, objective=objective, gap=gap, num_products=num_products
            )

    def _null(self) -> Point:
        """Where the path begins: no weights, and the intercepts that are best then."""
        intercepts = self._targets_CN.mean(1).log()
        return Point(
            weights_CR=self._rows_NR.new_zeros((len(intercepts), len(self._values_R))),
            intercepts_C=intercepts - intercepts.mean(),
        )

    def _begin(self, past: Sequence[tuple[float, _State]], strength: float) -> _State:
        """Extrapolated in the strength's logarithm, unless the last solution is better than that."""
        last = past[-1][1]
        if len(past) < 2:
            return last
        places = [math.log(each) for each, _ in past]
        shares = [
            math.prod((math.log(strength) - other) / (own - other) for other in places if other != own)
            for own in places
        ]
        point = last.point.plus(last.point, -1.0)
        for share, (_, state) in zip(shares, past, strict=True):
            point = point.plus(state.point, share)
        found = self._state(point)
        return found if _objective(found, strength) < _objective(last, strength) else last

    def _state(self, point: Point) -> _State:
        scores_CN = torch.addmm(point.intercepts_C[:, None], point.weights_CR, self._rows_NR.T)
        logs_CN = torch.log_softmax(scores_CN, 0)
        probabilities_CN = logs_CN.exp()
        errors_CN = probabilities_CN - self._targets_CN
        return _State(
            point=point,
            loss=-float((logs_CN * self._targets_CN).sum()),
            probabilities_CN=probabilities_CN,
            slope_of_loss=Point(weights_CR=errors_CN @ self._rows_NR, intercepts_C=errors_CN.sum(1)),
        )

    def _descend(
        self, state: _State, strength: float, tolerance: float, max_products: int
    ) -> tuple[_State, float, int]:
        """To a point whose gap is below the tolerance, or that cannot be improved; with its gap and the products."""
        num_products = 0
        while True:
            model = _Model(self, state, strength)
            target = tolerance * _objective(state, strength)
            gap = model.gap(model.slope)
            if gap <= target or num_products >= max_products:
                break
            step, num = model.newton_step(target, max_products - num_products)
            num_products += num
            following = self._search(state, model.slope, step, strength)
            if following is None:
                break
            state = following
        return state, gap / max(_objective(state, strength), torch.finfo(torch.float64).tiny), num_products

    def _search(self, state: _State, slope: Point, step: Point, strength: float) -> _State | None:
        """The state after the step, or after a part of it if the whole goes too far; None if no part is any good."""
        before, fall = _objective(state, strength), slope.times(step)
        share = 1.0
        for _ in range(_MOST_HALVINGS):
            following = self._state(state.point.plus(step, share))
            after, rise = _objective(following, strength), _slope(following, strength).times(step)
            if after <= before + 1e-4 * share * fall:
                return following
            if after <= before + 1e-10 * abs(before) and rise <= -0.5 * fall:  # what is left of the fall is rounding
                return following
            share *= min(0.5, max(0.1, fall / (fall - rise))) if rise > 0 else 0.5
        return None


class _Model:
    """The quadratic that the objective is like near a state."""

    def __init__(self, path: SoftmaxPath, state: _State, strength: float) -> None:
        self._path = path
        self._probabilities_CN = state.probabilities_CN
        self._strength = strength
        self.slope = _slope(state, strength)
        # The Hessian would be the product of these two if each row weighed the same.
        probabilities = state.probabilities_CN
        mixed_CC = torch.diag(probabilities.sum(1)) - probabilities @ probabilities.T
        weights_C, self._mixtures_CC = torch.linalg.eigh(mixed_CC)
        weights_C = weights_C.clamp_min(0.0)
        num_rows = probabilities.shape[1]
        self._curvature_CR = weights_C[:, None] / num_rows * path._values_R + strength
        is_free = weights_C > weights_C[-1] * 1e-14
        is_free[0] = False  # to add the same to all intercepts changes nothing
        self._inverse_C = torch.where(is_free, 1 / weights_C, 0.0)

    def gap(self, slope: Point) -> float:
        """By how much the objective can lie above its minimum: for weights a bound, by the penalty's curvature alone;
        for intercepts, which have no penalty, what their own curvature says."""
        mixed_C = self._mixtures_CC.T @ slope.intercepts_C
        return float(slope.weights_CR.square().sum() / self._strength + (mixed_C.square() * self._inverse_C).sum()) / 2

    def newton_step(self, target: float, max_products: int) -> tuple[Point, int]:
        """By preconditioned conjugate gradients, and the products that it took."""
        left = self.slope.plus(self.slope, -2.0)
        direction = preconditioned = self._precondition(left)
        size = first = left.times(preconditioned)
        step = self.slope.plus(self.slope, -1.0)
        for number in range(1, max_products + 1):
            bent = self._product(direction)
            curvature = direction.times(bent)
            if curvature <= 0:  # by rounding: what there is of the step is as good as it gets
                return (step if number > 1 else direction), number
            step = step.plus(direction, size / curvature)
            left = left.plus(bent, -size / curvature)
            preconditioned = self._precondition(left)
            size, last = left.times(preconditioned), size
            if size <= _FORCING**2 * first or self.gap(left) <= 0.1 * target:
                break
            direction = preconditioned.plus(direction, size / last)
        return step, number

    def _precondition(self, point: Point) -> Point:
        mixtures = self._mixtures_CC
        return Point(
            weights_CR=mixtures @ ((mixtures.T @ point.weights_CR) / self._curvature_CR),
            intercepts_C=mixtures @ ((mixtures.T @ point.intercepts_C) * self._inverse_C),
        )

    def _product(self, point: Point) -> Point:
        """With the Hessian. Only factors are rounded to float32: near 0 and 1 what probabilities weigh cancels."""
        path = self._path
        change_CN = product(point.weights_CR, path._factor_RN, torch.float32).double()
        change_CN += point.intercepts_C[:, None]
        change_CN -= (self._probabilities_CN * change_CN).sum(0)
        change_CN *= self._probabilities_CN
        bent_CR = product(change_CN, path._factor_NR, torch.float32).double()
        return Point(weights_CR=bent_CR.add_(point.weights_CR, alpha=self._strength), intercepts_C=change_CN.sum(1))


def _objective(state: _State, strength: float) -> float:
    return state.loss + strength / 2 * float(state.point.weights_CR.square().sum())


def _slope(state: _State, strength: float) -> Point:
    slope = state.slope_of_loss
    return Point(weights_CR=slope.weights_CR + strength * state.point.weights_CR, intercepts_C=slope.intercepts_C)
