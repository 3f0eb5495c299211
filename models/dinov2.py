"""DINOv2, with and without registers: `dinov2-small` … `dinov2-with-registers-large`."""

from __future__ import annotations

from typing import Any

from fovcache.extract.extractor import Extractor

from .architecture import Architecture, Config, NamedModel, with_bias
from .checkpoint import Shape
from .vision_transformer import VisionTransformer

_PROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": 224,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "layerscale_value": 1.0,
}
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "mlp_ratio",
    "patch_size",
    "num_channels",
    "qkv_bias",
    "use_swiglu_ffn",
)


def shapes(config: Config) -> dict[str, Shape]:
    """The canonical state dict of a Dinov2Model or Dinov2WithRegistersModel."""
    width, patch = config["hidden_size"], config["patch_size"]
    inner = width * config["mlp_ratio"]
    num_patches = (config["image_size"] // patch) ** 2
    found: dict[str, Shape] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, num_patches + 1, width),
        **with_bias("embeddings.patch_embeddings.projection", width, config["num_channels"], patch, patch),
        **with_bias("layernorm", width),
    }
    if "num_register_tokens" in config:
        found["embeddings.register_tokens"] = (1, config["num_register_tokens"], width)
    for number in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            found |= with_bias(f"{block}.attention.attention.{name}", width, width)
        found |= with_bias(f"{block}.attention.output.dense", width, width)
        found |= with_bias(f"{block}.norm1", width) | with_bias(f"{block}.norm2", width)
        found |= {f"{block}.layer_scale1.lambda1": (width,), f"{block}.layer_scale2.lambda1": (width,)}
        found |= with_bias(f"{block}.mlp.fc1", inner, width) | with_bias(f"{block}.mlp.fc2", width, inner)
    return found


def _architecture(model_type: str, model_class: str, **registers: int) -> Architecture:
    return Architecture(
        model_type=model_type,
        model_class=model_class,
        model_options={},
        defaults={**_DEFAULTS, **registers},
        sizes=(*_SIZES, *registers),
        shapes=shapes,
        blocks="encoder.layer.",
        norm="layernorm",
        patches="embeddings.patch_embeddings.projection.weight",
        unused=("embeddings.mask_token",),
        has_class_token=True,
        processor=lambda config: _PROCESSOR,
    )


DINOV2 = _architecture("dinov2", "Dinov2Model")
DINOV2_WITH_REGISTERS = _architecture("dinov2_with_registers", "Dinov2WithRegistersModel", num_register_tokens=4)


def _sizes(architecture: Architecture, prefix: str) -> tuple[NamedModel, ...]:
    sizes: dict[str, dict[str, Any]] = {
        "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
        "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    }
    return tuple(
        NamedModel(
            name=f"{prefix}-{size}",
            architecture=architecture,
            hub_id=f"facebook/{prefix}-{size}",
            config={**config, "image_size": 518},
        )
        for size, config in sizes.items()
    )


SMALL, BASE, LARGE = _sizes(DINOV2, "dinov2")
WITH_REGISTERS_SMALL, WITH_REGISTERS_BASE, WITH_REGISTERS_LARGE = _sizes(DINOV2_WITH_REGISTERS, "dinov2-with-registers")
DINOV2_MODELS = (SMALL, BASE, LARGE, WITH_REGISTERS_SMALL, WITH_REGISTERS_BASE, WITH_REGISTERS_LARGE)


def small(weights: str | None) -> Extractor:
    """`dinov2-small`: 384 wide, 12 blocks, 22 M parameters."""
    return VisionTransformer.open(SMALL, weights)


def base(weights: str | None) -> Extractor:
    """`dinov2-base`: 768 wide, 12 blocks, 87 M parameters."""
    return VisionTransformer.open(BASE, weights)


def large(weights: str | None) -> Extractor:
    """`dinov2-large`: 1024 wide, 24 blocks, 304 M parameters."""
    return VisionTransformer.open(LARGE, weights)


def with_registers_small(weights: str | None) -> Extractor:
    """`dinov2-with-registers-small`: as `dinov2-small`, with 4 register tokens."""
    return VisionTransformer.open(WITH_REGISTERS_SMALL, weights)


def with_registers_base(weights: str | None) -> Extractor:
    """`dinov2-with-registers-base`: as `dinov2-base`, with 4 register tokens."""
    return VisionTransformer.open(WITH_REGISTERS_BASE, weights)


def with_registers_large(weights: str | None) -> Extractor:
    """`dinov2-with-registers-large`: as `dinov2-large`, with 4 register tokens."""
    return VisionTransformer.open(WITH_REGISTERS_LARGE, weights)
