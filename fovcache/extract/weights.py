"""Weights for a user's module: a safetensors file or folder, or `random:SEED`. Pickles are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import WeightsError
from .seeded_init import parse_seed as parse_seed
from .seeded_init import seeded_tensors

logger = logging.getLogger(__name__)

_UNUSED_IN_EVALUATION = "num_batches_tracked"
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}


def apply_weights(module: nn.Module, weights: str) -> None:
    """Fill `module` in place from `random:SEED`, a `.safetensors` file, or a folder of them.

    Raises WeightsError naming every tensor that is missing, of another shape, or unexpected in a part that
    the model has; tensors of parts that the model lacks (a head, say) are passed over and logged.
    """
    seed = parse_seed(weights)
    if seed is not None:
        _apply_seed(module, seed)
    else:
        _apply_checkpoint(module, Path(weights))


def _apply_seed(module: nn.Module, seed: int) -> None:
    state = module.state_dict()
    floating = {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()}
    embeddings = frozenset(
        f"{path}.weight" if path else "weight"
        for path, submodule in module.named_modules()
        if isinstance(submodule, nn.Embedding | nn.EmbeddingBag)
    )
    for name, value in seeded_tensors(floating, seed, embeddings=embeddings).items():
        state[name].copy_(torch.from_numpy(value))


def _apply_checkpoint(module: nn.Module, path: Path) -> None:
    tensors = read_checkpoint(path)
    state = module.state_dict()
    modules = {name for name, _ in module.named_modules()}
    missing = [n for n in state if n not in tensors and not n.endswith(_UNUSED_IN_EVALUATION)]
    extra = [n for n in tensors if n not in state]
    unexpected = [n for n in extra if n.rpartition(".")[0] in modules and "." in n]
    mismatched = [
        f"{name} (checkpoint {tuple(tensors[name].shape)}, model {tuple(state[name].shape)})"
        for name in state
        if name in tensors and tensors[name].shape != state[name].shape
    ]
    problems = [("missing", missing), ("of another shape", mismatched), ("unexpected", unexpected)]
    said = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in problems if names)
    if said:
        raise WeightsError(f"weights {path} do not fit the encoder: {said}")
    if extra:
        logger.info("%s: %d tensors that the encoder has no part for were left out: %s", path, len(extra), _few(extra))
    for name, tensor in tensors.items():
        if name in state:
            state[name].copy_(tensor)


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file, or of all of them in a folder. Raises WeightsError."""
    if not path.exists():
        raise WeightsError(
            f"weights {path} do not exist; expected a .safetensors file, a folder of them, or random:SEED"
        )
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".safetensors":
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in _PICKLE_SUFFIXES) if path.is_dir() else []
        found = f" (found {_few(pickles)})" if pickles else ""
        raise WeightsError(
            f"weights {path}: expected .safetensors{found}; pickled checkpoints can run code and are refused, "
            "convert them with safetensors.torch.save_file"
        )
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            part = load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"weights {file} cannot be read: {error}") from error
        if twice := sorted(tensors.keys() & part.keys()):
            raise WeightsError(f"weights {path}: {_few(twice)} stand in more than one file")
        tensors.update(part)
    return tensors


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
