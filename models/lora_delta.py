"""Numbers of a LoRA's ΔW = (alpha / r) · up · down that do not change when its factors do and ΔW does not.

up · G and G⁻¹ · down give the same ΔW for every invertible G [r, r]: scales, signs, order and any mixing of the r
directions are a gauge. What is computed here is a function of ΔW alone, and of as many numbers whatever the rank:

=========================  ==========================================================================================
16 singular values         σ₁ ≥ σ₂ ≥ …, zeros after the r-th
Frobenius, nuclear norm    √Σσ², Σσ
effective rank             exp of the entropy of σ/Σσ (Roy & Vetterli, 2007); 0 of ΔW = 0
stable rank                Σσ²/σ₁²; 0 of ΔW = 0
8 × 8 sketch, row by row   Sᵀ · ΔW · T with fixed Gaussian S [outputs, 8] and T [inputs, 8] of variance 1/8
=========================  ==========================================================================================

ΔW, [outputs, inputs], is never formed. With up = Q R and downᵀ = P L its singular values are those of
(alpha/r) · R · Lᵀ, r × r, since Q and P have orthonormal columns: how tools that resize LoRAs decompose them
(resize_lora's `fast_decompose`). "Learning on LoRAs" (Putterman et al., arXiv:2410.04207) names the gauge, and takes σ
as a feature free of it. The sketch is (Sᵀ up)(down T): linear in ΔW, so that it keeps directions, which σ forgets, and
of mean square E‖sketch‖² = ‖ΔW‖².

Axes: n samples, O outputs, I inputs, r rank, p sketched directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fovcache.keys.digest import Document, bytes_digest

if TYPE_CHECKING:
    import torch

NUM_SINGULAR_VALUES = 16
SKETCH = 8
"""Directions on either side."""
NUM_NUMBERS = NUM_SINGULAR_VALUES + 4 + SKETCH**2
_RULE = 1
_SEED = 0


def delta_document() -> Document:
    """What decides the numbers, for the key."""
    return {"rule": _RULE, "singular_values": NUM_SINGULAR_VALUES, "sketch": SKETCH, "seed": _SEED}


def sketches(module: str, outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 S [O, p] and T [I, p] of a module: from its name and shape alone, so the same for every file."""
    import torch

    name = f"delta sketch {_RULE} {_SEED} {module} {outputs} {inputs}"
    generator = np.random.Generator(np.random.Philox(int(bytes_digest(name.encode())[:32], 16)))
    drawn = generator.standard_normal((outputs + inputs, SKETCH)) / np.sqrt(SKETCH)
    return torch.from_numpy(drawn[:outputs].copy()), torch.from_numpy(drawn[outputs:].copy())


def delta_numbers(
    up_nOr: torch.Tensor, down_nrI: torch.Tensor, scale_n: torch.Tensor, sketch: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """float64 [n, NUM_NUMBERS] of ΔW = scale · up · down; everything in float64."""
    import torch

    left_Op, right_Ip = sketch
    scale_n11 = scale_n[:, None, None]
    core = _triangle(up_nOr) @ _triangle(down_nrI.mT).mT * scale_n11
    values = torch.linalg.svdvals(core)
    sketched = (left_Op.mT @ up_nOr) @ (down_nrI @ right_Ip) * scale_n11
    top = torch.nn.functional.pad(values, (0, NUM_SINGULAR_VALUES))[:, :NUM_SINGULAR_VALUES]
    return torch.cat([top, _summaries(values), sketched.flatten(1)], dim=1)


def _triangle(factor: torch.Tensor) -> torch.Tensor:
    """R [n, min(d, r), r] of a QR of [n, d, r]."""
    import torch

    if factor.shape[2] == 1:
        return factor.square().sum(1, keepdim=True).sqrt()
    triangle: torch.Tensor = torch.linalg.qr(factor, mode="r").R
    return triangle


def _summaries(values: torch.Tensor) -> torch.Tensor:
    """[n, 4]: Frobenius and nuclear norm, effective and stable rank."""
    import torch

    nuclear, largest = values.sum(1), values[:, 0]
    is_zero = largest == 0
    shares = values / torch.where(is_zero, 1, nuclear)[:, None]
    effective = torch.exp(-torch.special.xlogy(shares, shares).sum(1))
    relative = values / torch.where(is_zero, 1, largest)[:, None]
    stable = relative.square().sum(1)
    ranks = torch.stack([torch.where(is_zero, 0, effective), stable], dim=1)
    return torch.cat([torch.stack([torch.linalg.vector_norm(values, dim=1), nuclear], dim=1), ranks], dim=1)
