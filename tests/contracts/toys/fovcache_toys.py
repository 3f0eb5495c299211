"""Two extractors as a third party would install them: one reads text, the other weight matrices."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.numpy import load

from fovcache.errors import SampleError, WeightsError
from fovcache.extract.extractor import TokenLayout
from fovcache.extract.seeded_init import seeded_tensors


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """UTF-8 text as its bytes, at most `most` of them, after a class token."""

    most: int = 16
    kind: str = "text"
    typical_rows: int = 1

    def rows_of(self, item: Any) -> int | None:
        return None

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokens": "utf-8 bytes", "most": self.most}

    def software(self) -> dict[str, Any]:
        return {"name": "utf-8", "version": "1"}

    def suffixes(self) -> frozenset[str]:
        return frozenset({".txt"})

    def read(self, data: bytes, name: str) -> np.ndarray:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise SampleError("decode", f"not UTF-8: {error.reason}", permanent=True) from error
        return np.frombuffer(b"\x00" + text.encode()[: self.most], np.uint8)

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        return item.shape

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.uint8)

    def collate(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(items))

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.long()


@dataclass(frozen=True, kw_only=True)
class MatrixInput:
    """The two factors of a low-rank update, a safetensors file with A [rank, n] and B [rank, n]: two rows a sample."""

    kind: str = "matrices"
    typical_rows: int = 2

    def rows_of(self, item: Any) -> int | None:
        return 2

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "factors": ["A", "B"]}

    def software(self) -> dict[str, Any]:
        return {"name": "safetensors", "version": safetensors.__version__}

    def suffixes(self) -> frozenset[str]:
        return frozenset({".safetensors"})

    def read(self, data: bytes, name: str) -> np.ndarray:
        try:
            tensors = load(data)
            return np.stack([tensors["A"], tensors["B"]])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise SampleError("decode", f"no factors A and B: {error}", permanent=True) from error

    def shape(self, item: np.ndarray) -> tuple[int, ...]:
        return item.shape

    def placeholder(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def collate(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(items))

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Layers that are each a function of the one before; the session stops at the deepest asked for."""

    name: str
    input: Any
    tokens: TokenLayout
    functions: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": 1}

    def layers(self) -> tuple[str, ...]:
        return tuple(self.functions)

    def default_layers(self) -> tuple[str, ...]:
        return self.layers()[-1:]

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> ToySession:
        return ToySession(self.functions, layers)


class ToySession:
    def __init__(self, functions: Mapping[str, Any], layers: Sequence[str]) -> None:
        depth = max(list(functions).index(layer) for layer in layers)
        self._functions = dict(list(functions.items())[: depth + 1])
        self._layers = tuple(layers)

    def encode(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = {}
        for layer, function in self._functions.items():
            outputs[layer] = batch = function(batch)
        return {layer: outputs[layer] for layer in self._layers}


def make_text(weights: str | None) -> Toy:
    if weights is not None:
        raise WeightsError("toy-text has no weights of its own")
    tensors = {
        name: torch.from_numpy(value) for name, value in seeded_tensors({"table": (256, 8), "mix": (8, 8)}, 0).items()
    }

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        return tensors["table"].to(tokens.device)[tokens]

    def mix(x_BTC: torch.Tensor) -> torch.Tensor:
        return torch.tanh((x_BTC + x_BTC.mean(1, keepdim=True)) @ tensors["mix"].to(x_BTC.device))

    def last(x_BTC: torch.Tensor) -> torch.Tensor:
        count_last_layer()
        return x_BTC / math.sqrt(x_BTC.shape[2])

    layout = TokenLayout(has_class_token=True, num_prefix_tokens=1)
    functions = {"embed": embed, "blocks.0": mix, "norm": last}
    return Toy(name="toy-text", input=TextInput(), tokens=layout, functions=functions)


def make_matrices(weights: str | None) -> Toy:
    if weights is not None:
        raise WeightsError("toy-matrices has no weights of its own")

    def gram(x_BRN: torch.Tensor) -> torch.Tensor:
        return x_BRN @ x_BRN.mT

    def spectrum(x_BRR: torch.Tensor) -> torch.Tensor:
        count_last_layer()
        return torch.linalg.svdvals(x_BRR)

    functions = {"gram": gram, "spectrum": spectrum}
    return Toy(name="toy-matrices", input=MatrixInput(), tokens=TokenLayout(), functions=functions)


def count_last_layer() -> None:
    """Says to the tests, in whatever process, that a last layer has run."""
    os.environ["LAST_LAYER_RUNS"] = str(int(os.environ.get("LAST_LAYER_RUNS", "0")) + 1)
