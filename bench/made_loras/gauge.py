"""The gauge of a LoRA: factors M·A and B·M⁻¹ have the product B·A whatever the invertible M.

Axes: n samples, m modules, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NONE, ORTHOGONAL, INVERTIBLE = "none", "orthogonal", "invertible"
GAUGES = (NONE, ORTHOGONAL, INVERTIBLE)
"""As drawn; turned by an orthogonal M, at rank 1 a sign; or by any M, at rank 1 a factor of either sign."""


def draw_gauge(chance: np.random.Generator, num_modules: int, rank: int, log_sd: float) -> np.ndarray:
    """float64 [m, 2, r, r]: an M for each module, and its inverse.

    M is a random rotation or reflection, times log-normal singular values, times another; only the first where
    `log_sd` is 0.
    """
    left, right = _orthogonal(chance.standard_normal((2, num_modules, rank, rank)))
    if log_sd == 0:
        return np.stack([left, np.swapaxes(left, -1, -2)], axis=1)
    scale = np.exp(log_sd * chance.standard_normal((num_modules, 1, rank)))
    return np.stack([(left * scale) @ right, np.swapaxes(right, -1, -2) @ np.swapaxes(left / scale, -1, -2)], axis=1)


def turn(factors: Mapping[str, np.ndarray], gauge_nm2rr: np.ndarray) -> None:
    """Multiply the factors [n, *shape] of each module in place; modules in the order of `factors`."""
    modules = [name.removesuffix("down.weight") for name in factors if name.endswith("down.weight")]
    for number, module in enumerate(modules):
        down, up = factors[f"{module}down.weight"], factors[f"{module}up.weight"]
        down[:] = gauge_nm2rr[:, number, 0] @ down
        up[:] = up @ gauge_nm2rr[:, number, 1]


def _orthogonal(normal: np.ndarray) -> np.ndarray:
    """Haar-distributed: the Q of a Gaussian matrix, with signs that make its R's diagonal positive."""
    q, r = np.linalg.qr(normal)
    signed: np.ndarray = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return signed
