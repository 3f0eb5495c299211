"""Whether a layer has collapsed, as far as so many samples can tell.

The limits are conventions, not tests of significance. A layer of natural images never has the variance rank of noise:
trained networks that we looked at have .1 to .5 of it, and untrained ones down to .03, since brightness moves all of
them one way. So .1 is called low, and collapsed is what even those were not.
"""

from __future__ import annotations

from .result import COLLAPSED, CONSTANT, LOW_RANK, NOT_SEEN, UNDECIDED, Numbers

COLLAPSED_BELOW = 1.5
"""Variance rank: nine tenths of the variance, about, lie in one direction."""
COLLAPSED_SHARE, LOW_SHARE = 0.01, 0.1
"""Variance rank as a share of a Gaussian's."""
MIN_VECTORS = 20
"""Of fewer, one odd sample can be most of the variance."""

RULE = (
    f"constant: no dimension varies beyond rounding; undecided: N below {MIN_VECTORS}; collapsed: variance rank below "
    f"{COLLAPSED_BELOW}, or below {100 * COLLAPSED_SHARE:.0f} % of a Gaussian's of the same N and D; low rank: below "
    f"{100 * LOW_SHARE:.0f} % of it; undecided: none of these, but N does not exceed D, so that N bounds the rank; "
    "else no collapse seen. Limits are conventions: compare with the twin"
)
"""How verdicts are made, in the order in which it is asked."""


def verdict(numbers: Numbers) -> tuple[str, str]:
    """One of VERDICTS, and why."""
    num, dimensions = numbers.num_vectors, numbers.num_dimensions
    of = f"of {num:,} vectors of {dimensions:,} dimensions"
    if numbers.num_constant == dimensions or numbers.variance_rank == 0:
        return CONSTANT, f"no dimension varies beyond rounding, {of}"
    if num < MIN_VECTORS:
        return UNDECIDED, f"{num} vectors are too few to tell; take {max(MIN_VECTORS, 2 * dimensions):,} or more"
    seen = (
        f"the variance rank {numbers.variance_rank:.3g} is {100 * numbers.gaussian_share:.1f} % of a Gaussian's, {of}; "
        f"{100 * numbers.largest_share:.0f} % of the variance lies in one direction"
    )
    if numbers.variance_rank < COLLAPSED_BELOW or numbers.gaussian_share < COLLAPSED_SHARE:
        return COLLAPSED, seen
    if numbers.gaussian_share < LOW_SHARE:
        return LOW_RANK, seen
    if num <= dimensions:
        return UNDECIDED, (
            f"{num:,} vectors bound every rank at {num - 1:,}, below the {dimensions:,} dimensions: more directions "
            f"than that cannot be told from none; take {2 * dimensions:,} or more. So far {seen}"
        )
    return NOT_SEEN, seen
