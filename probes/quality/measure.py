"""The numbers of a layer: ranks, spread and directions of its vectors.

Axes: N vectors, D dimensions.
"""

from __future__ import annotations

import numpy as np
import torch

from ..scaling import CONSTANT_OF_ITSELF, CONSTANT_OF_TYPICAL
from .directions import TEMPERATURE, directions
from .result import Numbers
from .spectrum import RANKME_EPSILON, entropy_rank, gaussian_variance_rank, participation_ratio, spectrum
from .vectors import Vectors

DEFINITIONS = {
    "RankMe": "exp(-Σ p·log p), p = σ / Σσ + 1e-7, σ the singular values of the vectors as they are, not centred "
    "(Garrido et al. 2023)",
    "effective rank": "exp(-Σ p·log p), p = σ / Σσ, σ the singular values of the centred vectors (Roy & Vetterli 2007)",
    "variance rank": "the same of the covariance's eigenvalues, p = λ / Σλ = σ² / Σσ²",
    "of Gaussian": "variance rank as a share of that of N vectors of D independent normal numbers (Marchenko & Pastur "
    "1967): 100 % has no preferred direction, whatever N",
    "participation ratio": "(Σλ)² / Σλ²",
    "largest share": "of the variance, λ₁ / Σλ",
    "variance": "of a dimension, ddof 1, mean over dimensions",
    "constant": "dimensions whose standard deviation is not above half a rounding of the stored dtype (bf16 .4 %, fp16 "
    ".05 %) of their largest magnitude, nor above 1e-6 of it",
    "mean cosine": "between different vectors as they are, not centred (Ethayarajh 2019)",
    "isotropy": "1 / (D × variance of the cosine between different vectors), centred and at unit length: 1/D on a "
    "line, about 1 where no direction is preferred; the same idea as IsoScore (Rudman et al. 2022), whatever N",
    "uniformity": "log of the mean of exp(-2·‖u - v‖²) over all pairs, centred and at unit length: 0 in one place, "
    "-4 + 8/D evenly over the sphere (Wang & Isola 2020, who do not centre)",
    "CKA": "linear, debiased: the unbiased HSIC (Song et al. 2012) in the place of the biased one (Kornblith et al. "
    "2019, Nguyen et al. 2021); 0 for unrelated layers whatever N and D, 1 for equal ones but for rotation, size and "
    "offset",
    "precision": "singular values and eigenvalues are all computed, from products in float64; no sketch",
}
"""What each number is, with its source."""
assert (TEMPERATURE, RANKME_EPSILON) == (2.0, 1e-7)


def measure(x: Vectors, rounding: float = 0.0) -> Numbers:
    """The numbers of these vectors; `rounding` is half a rounding step of what they were stored as, relative."""
    found, pointing = spectrum(x), directions(x)
    variance_D, num_constant = _variances(x, rounding)
    total = float(found.centred_K.sum())
    return Numbers(
        num_vectors=len(x),
        num_dimensions=x.num_dimensions,
        rankme=entropy_rank(np.sqrt(found.raw_K), RANKME_EPSILON),
        effective_rank=entropy_rank(np.sqrt(found.centred_K)),
        variance_rank=entropy_rank(found.centred_K),
        gaussian_variance_rank=gaussian_variance_rank(len(x), x.num_dimensions),
        participation_ratio=participation_ratio(found.centred_K),
        largest_share=float(found.centred_K[0]) / total if total > 0 else 0.0,
        mean_variance=float(variance_D.mean()),
        num_constant=num_constant,
        mean_cosine=pointing.mean_cosine,
        isotropy=pointing.isotropy,
        uniformity=pointing.uniformity,
    )


def _variances(x: Vectors, rounding: float) -> tuple[torch.Tensor, int]:
    """Of each dimension, float64 [D], and how many are no more than rounding; as `scaling` tells constant columns."""
    squares_D, largest_D = torch.zeros_like(x.mean_D), torch.zeros_like(x.mean_D)
    for block_BD in x.blocks():
        squares_D += block_BD.square().sum(0)
        largest_D = torch.maximum(largest_D, (block_BD + x.mean_D).abs().amax(0))
    variance_D = squares_D / (len(x) - 1)
    deviation_D = variance_D.sqrt()
    varies_D = (deviation_D > max(rounding, CONSTANT_OF_ITSELF) * largest_D) & (
        deviation_D > CONSTANT_OF_TYPICAL * largest_D.median()
    )
    return variance_D, int((~varies_D).sum())
