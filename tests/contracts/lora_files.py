"""LoRAs for tests, written in every style that people's files have."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from fovcache.models.lora_shapes import MODULES

Lora = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By module in dots: up [outputs, rank] and down [rank, inputs]."""
SMALL: Mapping[str, tuple[int, ...]] = {
    "blocks.0.attn.to_q": (12, 8),
    "blocks.0.proj_in": (6, 4, 3, 3),
    "text_encoder.text_model.encoder.layers.1.self_attn.q_proj": (5, 5),
}
"""Weights' shapes of a model of nobody's: a linear one, a convolution, one of a text encoder."""
CLASSES = ("bird", "cat")


def made_lora(rank: int = 1, seed: int = 0, modules: Mapping[str, tuple[int, ...]] = MODULES, shift: float = 0) -> Lora:
    """Of noise; `shift` is added to every number of attn1."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for module, (outputs, *inputs) in modules.items():
        ones = [1] * len(inputs[1:])
        up = torch.randn(outputs, rank, *ones, generator=generator) / 50 + shift * ("attn1" in module)
        lora[module] = up, torch.randn(rank, *inputs, generator=generator) / rank
    return lora


def _dotted(module: str, prefix: str, down: str, up: str) -> tuple[str, str, str]:
    own = module if module.startswith("text_encoder") else f"{prefix}{module}"
    return f"{own}.{down}", f"{own}.{up}", f"{own}.alpha"


def _old(module: str, prefix: str) -> tuple[str, str, str]:
    parent, _, last = module.rpartition(".")
    last = {"q_proj": "to_q", "out_proj": "to_out"}.get(last, last)
    return _dotted(f"{parent}.processor.{last}_lora", prefix, "down.weight", "up.weight")


def _kohya(module: str) -> tuple[str, str, str]:
    is_text = module.startswith("text_encoder.")
    flat = module.removeprefix("text_encoder.").replace(".", "_")
    name = f"lora_te_{flat}" if is_text else f"lora_unet_{flat}"
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


STYLES: Mapping[str, Callable[[str], tuple[str, str, str]]] = {
    "diffusers": lambda module: _dotted(module, "", "lora.down.weight", "lora.up.weight"),
    "diffusers with unet": lambda module: _dotted(module, "unet.", "lora.down.weight", "lora.up.weight"),
    "diffusers of linear layers": lambda module: _dotted(
        module, "unet.", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"
    ),
    "diffusers with PEFT": lambda module: _dotted(module, "unet.", "lora_A.weight", "lora_B.weight"),
    "diffusers old": lambda module: _old(module, ""),
    "diffusers old with unet": lambda module: _old(module, "unet."),
    "PEFT": lambda module: _dotted(module, "base_model.model.", "lora_A.weight", "lora_B.weight"),
    "PEFT with the adapter": lambda module: _dotted(
        module, "base_model.model.", "lora_A.default.weight", "lora_B.default.weight"
    ),
    "kohya": _kohya,
}
"""The names of down, up and alpha of a module."""


def tensors_of(lora: Lora, style: str = "diffusers", alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A file's tensors by name."""
    tensors = {}
    for module, (up, down) in lora.items():
        for name, tensor in zip(STYLES[style](module), (down, up, alpha), strict=True):
            if tensor is not None:
                tensors[name] = torch.as_tensor(tensor).contiguous()
    return tensors


def lora_bytes(lora: Lora, style: str = "diffusers", alpha: float | None = None) -> bytes:
    """A file of a LoRA."""
    return save(tensors_of(lora, style, alpha))


def with_metadata(lora: Lora, said: Mapping[str, object]) -> bytes:
    """A file as diffusers writes it, with the adapter's configuration in the header."""
    return save(tensors_of(lora, "diffusers with PEFT"), {"format": "pt", "lora_adapter_metadata": json.dumps(said)})


def write_classes(folder: Path, num: int, rank: int = 1, shift: float = 0.05, prefix: str = "") -> Path:
    """`num` files of the whole table in folders of two classes, which differ in attn1; the folder."""
    for number in range(num):
        name = CLASSES[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        lora = made_lora(rank, 1000 * rank + number, shift=shift * (number % 2))
        (folder / name / f"{prefix}{number:03d}.safetensors").write_bytes(lora_bytes(lora))
    return folder
