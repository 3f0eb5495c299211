"""The frozen encoder of the made cues: a one-layer vision transformer whose weights are drawn from a seed.

A frame of 4 × 4 cells becomes 17 tokens, a class token and one of each cell. A cell's token begins as a linear function
of its pixels: its colour, and four times as strong whether it is marked. So the mark is what any look over a frame
finds first; the cells' colours are there too, and told apart only by a look at one of them.

This is a user's own encoder, `encoder.py:make`: copy it, change it. What it computes is keyed by its source.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SEED = 1234
CELL_SIDE, GRID = 8, 4
NUM_CELLS = GRID * GRID
WIDTH, NUM_HEADS = 64, 4
MARKER_SCALE = 4.0
TOKEN_SCALE = 0.5  # attention with projections that are not trained yet then begins soft: learning starts sooner


class Block(nn.Module):
    """One transformer block, norms first."""

    def __init__(self, drawn: np.random.Generator) -> None:
        super().__init__()
        self.qkv = _drawn(drawn, WIDTH, 3 * WIDTH)
        self.out = _drawn(drawn, WIDTH, WIDTH)
        self.inner = _drawn(drawn, WIDTH, 4 * WIDTH)
        self.outer = _drawn(drawn, 4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, WIDTH] → the same shape."""
        normed = functional.layer_norm(x, (WIDTH,))
        q, k, v = (normed @ self.qkv).unflatten(-1, (3, NUM_HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ self.out
        inner = functional.gelu(functional.layer_norm(x, (WIDTH,)) @ self.inner)
        return TOKEN_SCALE * (x + inner @ self.outer)


class CueEncoder(nn.Module):
    """Cells' pixels → embeddings and positions → one block."""

    image_size = CELL_SIDE * GRID  # the frames' own: nothing is scaled
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    layers = ("tokens",)
    has_class_token = True

    def __init__(self) -> None:
        super().__init__()
        drawn = np.random.Generator(np.random.Philox(SEED))
        self.colour = _drawn(drawn, 3, WIDTH)
        self.marker = _drawn(drawn, 1, WIDTH)
        self.positions = _drawn(drawn, 1 + NUM_CELLS, WIDTH, scale=1.0)
        self.tokens = Block(drawn)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [batch, 3, 32, 32] in [-1, 1] → [batch, 17, WIDTH]."""
        cells = pixels.unflatten(3, (GRID, CELL_SIDE)).unflatten(2, (GRID, CELL_SIDE))
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [batch, cells, 3, y, x]
        colour = cells[..., 0, 0]
        marked = (cells[..., CELL_SIDE // 2, CELL_SIDE // 2].mean(dim=-1, keepdim=True) + 1) / 2
        embedded = colour @ self.colour + MARKER_SCALE * marked @ self.marker
        with_class = functional.pad(embedded, (0, 0, 1, 0))  # the class token is its position alone
        tokens: torch.Tensor = self.tokens(with_class + self.positions)
        return tokens


def _drawn(drawn: np.random.Generator, rows: int, columns: int, scale: float | None = None) -> nn.Parameter:
    """[rows, columns] from N(0, 1 / rows), or N(0, scale²)."""
    values = drawn.standard_normal((rows, columns), dtype=np.float32)
    return nn.Parameter(torch.from_numpy(values * np.float32(1 / math.sqrt(rows) if scale is None else scale)))


def make() -> nn.Module:
    """The factory: it is called without arguments."""
    return CueEncoder()
