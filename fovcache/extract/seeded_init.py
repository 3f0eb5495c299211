"""`random:SEED`: weights that mean the same under every version of every library.

Tensors are filled in sorted name order from one numpy Philox stream, by their name and shape alone:

=========================================  =====================
matrices and kernels                       N(0, 1/fan_in)
embeddings, class, mask, register tokens   N(0, 0.02²)
norm and layer-scale weights               1
biases                                     0
running mean / running variance            0 / 1
=========================================  =====================
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import WeightsError

INIT_VERSION = 1
"""Part of the key of seeded weights; raised when the rule or its stream changes."""

_EMBEDDING = re.compile(
    r"(^|[._])(cls_token|class_token|mask_token|dist_token|reg_tokens?|register_tokens?|pos_embed(ding)?s?|"
    r"position_embeddings?|class_embedding|token_embeddings?|word_embeddings?|embed_tokens|embeddings?|wte|wpe)"
    r"(\.weight)?$"
)


def parse_seed(weights: str) -> int | None:
    """SEED of `random:SEED`, None for anything else. Raises WeightsError for a malformed seed."""
    if not weights.startswith("random:"):
        return None
    text = weights.removeprefix("random:")
    if not re.fullmatch(r"\d{1,15}", text):
        raise WeightsError(f"weights {weights!r}: the seed must be a whole number of at most 15 digits, as in random:0")
    return int(text)


def seeded_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int, *, embeddings: frozenset[str] = frozenset()
) -> dict[str, np.ndarray]:
    """Float32 tensors for `{name: shape}`; `embeddings` names further tensors to fill as embeddings."""
    return dict(seeded_stream(shapes, seed, embeddings=embeddings))


def seeded_stream(
    shapes: Mapping[str, tuple[int, ...]], seed: int, *, embeddings: frozenset[str] = frozenset()
) -> Iterator[tuple[str, np.ndarray]]:
    """The same one by one, for who keeps only some of them."""
    generator = np.random.Generator(np.random.Philox(seed))
    for name in sorted(shapes):
        yield name, _fill(name, shapes[name], generator, name in embeddings)


def _fill(name: str, shape: tuple[int, ...], generator: np.random.Generator, embedding: bool) -> np.ndarray:
    last = name.rpartition(".")[2]
    if last in {"running_mean", "bias"} or last.endswith("_bias"):
        return np.zeros(shape, np.float32)
    if last == "running_var":
        return np.ones(shape, np.float32)
    if embedding or _EMBEDDING.search(name):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
    if len(shape) < 2:
        return np.ones(shape, np.float32)
    fan_in = math.prod(shape[1:])
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(1 / math.sqrt(fan_in))
