"""Random layers: as many as an experiment takes, drawn from all that are in play."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from fovcache.keys.digest import document_digest

_MAX_LISTED = 10_000
"""Subsets that are listed, so that no two seeds of so many in a row draw the same one."""


def random_layers(layers: Sequence[str], num_layers: int, seed: int) -> tuple[str, ...]:
    """`num_layers` different ones of `layers`, sorted; every subset is as likely; their order decides nothing.

    A seed always draws the same, and where there are few subsets, consecutive seeds draw each once before any again.
    """
    names = sorted(layers)
    num_subsets = math.comb(len(names), num_layers)
    if num_subsets <= _MAX_LISTED:
        subsets = list(itertools.combinations(names, num_layers))
        place = int(_generator(names, num_layers).permutation(num_subsets)[seed % num_subsets])
        return subsets[place]
    drawn = _generator(names, num_layers, seed).choice(len(names), num_layers, replace=False)
    return tuple(names[place] for place in sorted(drawn.tolist()))


def _generator(names: Sequence[str], *parts: int) -> np.random.Generator:
    digest = document_digest({"kind": "random layers", "layers": list(names), "parts": list(parts)})
    return np.random.default_rng(int(digest, 16))
