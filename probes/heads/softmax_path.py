"""Softmax regression with squared weights penalised, along a path of strengths: convex, and solved to a certified gap.

The objective is Σ −log p(y) + strength / 2 · Σ weights², intercepts free. Newton's method, its steps found by conjugate
gradients. What makes it fast: each strength begins where a polynomial through the last solutions says it should end;
rows are seen from their principal axes, where the Hessian is nearly diagonal; and products with it are of float32
factors, since steps need not be exact. What a step is judged by (objective and gradient) is float64.

Axes: N rows; R principal axes, and in W = R + 1 also a column of ones, whose weights are the intercepts; C classes that
occur.
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
class Solution:
    """What the path came to at one strength."""

    weights_CR: torch.Tensor
    """float64; over classes they sum to zero."""
    intercepts_C: torch.Tensor
    """float64; they sum to zero."""
    gap: float
    """By which share of itself the objective can at most be too large."""
    num_products: int
    """Products with the Hessian that it took."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """The objective and its slope somewhere, without the penalty."""

    weights_CW: torch.Tensor
    loss: float
    probabilities_CN: torch.Tensor
    slope_CW: torch.Tensor

    def objective(self, strength: float) -> float:
        return self.loss + strength / 2 * float(self.weights_CW[:, :-1].square().sum())

    def slope(self, strength: float) -> torch.Tensor:
        slope_CW = self.slope_CW.clone()
        slope_CW[:, :-1].add_(self.weights_CW[:, :-1], alpha=strength)
        return slope_CW


class SoftmaxPath:
    """One data set's objective."""

    def __init__(self, rows_NR: torch.Tensor, values_R: torch.Tensor, y_N: torch.Tensor) -> None:
        """Rows float64 along their principal axes, and these' eigenvalues; labels int64 below C, all of which occur."""
        self.rows_NW = torch.cat([rows_NR, torch.ones_like(rows_NR[:, :1])], 1)
        self.values_W = torch.cat([values_R, values_R.new_tensor([len(rows_NR)])])
        self.factor_NW = self.rows_NW.float()
        self.factor_WN = self.factor_NW.T.contiguous()  # twice, since products are fastest of rows that lie together
        self._targets_CN = torch.nn.functional.one_hot(y_N).T.to(rows_NR.dtype).contiguous()

    def solve(self, strengths: Sequence[float], tolerance: float, max_products: int) -> Iterator[Solution]:
        """One solution a strength, which should fall; `gap` is above the tolerance where it has not converged."""
        state = self._state(self._null())
        past: list[tuple[float, _State]] = []
        for strength in strengths:
            begin = self._extrapolated(past, strength) if len(past) > 1 else state
            state, gap, num_products = self._descend(begin, strength, tolerance, max_products)
            past = [*past, (strength, state)][-_NUM_POINTS:]
            weights_CW = state.weights_CW
            yield Solution(
                weights_CR=weights_CW[:, :-1], intercepts_C=weights_CW[:, -1], gap=gap, num_products=num_products
            )

    def _null(self) -> torch.Tensor:
        """[C, W]: no weights, and the intercepts that are best then."""
        weights_CW = self.rows_NW.new_zeros((len(self._targets_CN), len(self.values_W)))
        logs_C = self._targets_CN.mean(1).log()
        weights_CW[:, -1] = logs_C - logs_C.mean()
        return weights_CW

    def _extrapolated(self, past: Sequence[tuple[float, _State]], strength: float) -> _State:
        """In the strength's logarithm; the last solution if that is no better."""
        places = [math.log(each) for each, _ in past]
        shares = [
            math.prod((math.log(strength) - other) / (own - other) for other in places if other != own)
            for own in places
        ]
        weights_CW = torch.zeros_like(past[-1][1].weights_CW)
        for share, (_, state) in zip(shares, past, strict=True):
            weights_CW.add_(state.weights_CW, alpha=share)
        found, last = self._state(weights_CW), past[-1][1]
        return found if found.objective(strength) < last.objective(strength) else last

    def _state(self, weights_CW: torch.Tensor) -> _State:
        logs_CN = torch.log_softmax(weights_CW @ self.rows_NW.T, 0)
        probabilities_CN = logs_CN.exp()
        return _State(
            weights_CW=weights_CW,
            loss=-float((logs_CN * self._targets_CN).sum()),
            probabilities_CN=probabilities_CN,
            slope_CW=(probabilities_CN - self._targets_CN) @ self.rows_NW,
        )

    def _descend(
        self, state: _State, strength: float, tolerance: float, max_products: int
    ) -> tuple[_State, float, int]:
        """To a point whose gap is below the tolerance, or that cannot be improved; with its gap and the products."""
        num_products = 0
        while True:
            model = _Model(self, state, strength)
            target = tolerance * state.objective(strength)
            gap = model.gap()
            if gap <= target or num_products >= max_products:
                break
            step_CW, num = model.newton_step(target, max_products - num_products)
            num_products += num
            following = self._search(state, model.slope_CW, step_CW, strength)
            if following is None:
                break
            state = following
        return state, gap / max(state.objective(strength), torch.finfo(torch.float64).tiny), num_products

    def _search(self, state: _State, slope_CW: torch.Tensor, step_CW: torch.Tensor, strength: float) -> _State | None:
        """The state after the step, or after a part of it if the whole goes too far; None if no part is any good."""
        before, fall = state.objective(strength), _inner(slope_CW, step_CW)
        share = 1.0
        for _ in range(_MOST_HALVINGS):
            following = self._state(state.weights_CW.add(step_CW, alpha=share))
            after, rise = following.objective(strength), _inner(following.slope(strength), step_CW)
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
        self.slope_CW = state.slope(strength)
        # If each row weighed the same, the Hessian would be the product of two matrices, one of classes, one of
        # columns, and the penalty. So it is inverted along the eigenvectors of both.
        mixed_CC = torch.diag(state.probabilities_CN.sum(1)) - state.probabilities_CN @ state.probabilities_CN.T
        values_C, self._mixtures_CC = torch.linalg.eigh(mixed_CC)
        curvature_CW = values_C[:, None].clamp_min(0.0) / len(path.rows_NW) * path.values_W
        curvature_CW[:, :-1] += strength
        curvature_CW[values_C <= values_C[-1] * 1e-14, -1] = math.inf  # intercepts that change nothing, together
        curvature_CW[0, -1] = math.inf
        self._inverse_CW = 1 / curvature_CW

    def gap(self) -> float:
        """By how much the objective can lie above its minimum: for weights a bound, by the penalty's curvature alone;
        for intercepts, which have no penalty, what their own curvature says."""
        intercepts_C = self._mixtures_CC.T @ self.slope_CW[:, -1]
        return _bound(self.slope_CW, self._strength) + float(intercepts_C.square() @ self._inverse_CW[:, -1]) / 2

    def newton_step(self, target: float, max_products: int) -> tuple[torch.Tensor, int]:
        """[C, W] by preconditioned conjugate gradients, and the products that it took."""
        left_CW = -self.slope_CW
        direction_CW = self._preconditioned(left_CW)
        size = first = _inner(left_CW, direction_CW)
        step_CW = torch.zeros_like(left_CW)
        for number in range(1, max_products + 1):
            bent_CW = self._product(direction_CW)
            curvature = _inner(direction_CW, bent_CW)
            if curvature <= 0:  # by rounding: what there is of the step is as good as it gets
                return (step_CW if number > 1 else direction_CW), number
            step_CW.add_(direction_CW, alpha=size / curvature)
            left_CW.sub_(bent_CW, alpha=size / curvature)
            preconditioned_CW = self._preconditioned(left_CW)
            size, last = _inner(left_CW, preconditioned_CW), size
            if size <= _FORCING**2 * first or _bound(left_CW, self._strength) <= 0.1 * target:
                break
            direction_CW = preconditioned_CW.add_(direction_CW, alpha=size / last)
        return step_CW, number

    def _preconditioned(self, slope_CW: torch.Tensor) -> torch.Tensor:
        mixed_CW = (self._mixtures_CC.T @ slope_CW).mul_(self._inverse_CW)
        found: torch.Tensor = self._mixtures_CC @ mixed_CW
        return found

    def _product(self, weights_CW: torch.Tensor) -> torch.Tensor:
        """With the Hessian. Only factors are rounded to float32: near 0 and 1 what probabilities weigh cancels."""
        change_CN = product(weights_CW, self._path.factor_WN, torch.float32).double()
        change_CN -= (self._probabilities_CN * change_CN).sum(0)
        change_CN *= self._probabilities_CN
        bent_CW = product(change_CN, self._path.factor_NW, torch.float32).double()
        bent_CW[:, :-1].add_(weights_CW[:, :-1], alpha=self._strength)
        return bent_CW


def _inner(one_CW: torch.Tensor, other_CW: torch.Tensor) -> float:
    return float(torch.dot(one_CW.flatten(), other_CW.flatten()))


def _bound(slope_CW: torch.Tensor, strength: float) -> float:
    """By how much a function can lie above its minimum that curves at least so strongly: of weights alone."""
    return float(slope_CW[:, :-1].square().sum()) / strength / 2
