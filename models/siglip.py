"""The image towers of SigLIP: `siglip-base` (patch 16, 224 px) and `siglip-so400m` (patch 14, 384 px)."""

from __future__ import annotations

from typing import Any

from fovcache.extract.extractor import Extractor

from .architecture import Architecture, Config, NamedModel, with_bias
from .checkpoint import Shape
from .vision_transformer import VisionTransformer


def shapes(config: Config) -> dict[str, Shape]:
    """The canonical state dict of a SiglipVisionModel, without its prefix."""
    width, patch, inner = config["hidden_size"], config["patch_size"], config["intermediate_size"]
    num_patches = (config["image_size"] // patch) ** 2
    found: dict[str, Shape] = {
        **with_bias("embeddings.patch_embedding", width, config["num_channels"], patch, patch),
        "embeddings.position_embedding.weight": (num_patches, width),
        **with_bias("post_layernorm", width),
    }
    head: dict[str, Shape] = {
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
        **with_bias("head.attention.out_proj", width, width),
        **with_bias("head.layernorm", width),
        **with_bias("head.mlp.fc1", inner, width),
        **with_bias("head.mlp.fc2", width, inner),
    }
    if config["vision_use_head"]:
        found |= head
    for number in range(config["num_hidden_layers"]):
        block = f"encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= with_bias(f"{block}.self_attn.{name}", width, width)
        found |= with_bias(f"{block}.layer_norm1", width) | with_bias(f"{block}.layer_norm2", width)
        found |= with_bias(f"{block}.mlp.fc1", inner, width) | with_bias(f"{block}.mlp.fc2", width, inner)
    return found


SIGLIP = Architecture(
    model_type="siglip_vision_model",
    whole_type="siglip",
    model_class="SiglipVisionModel",
    model_options={},
    defaults={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "image_size": 224,
        "num_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": True,
    },
    sizes=(
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "patch_size",
        "num_channels",
    ),
    shapes=shapes,
    prefix="vision_model.",
    blocks="encoder.layers.",
    norm="post_layernorm",
    pooler="head",
    patches="embeddings.patch_embedding.weight",
    unused=("embeddings.position_ids",),
    embeddings=("head.probe",),
    has_class_token=False,
    processor=lambda config: {
        "do_resize": True,
        "size": {"height": config["image_size"], "width": config["image_size"]},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
)


def _model(name: str, hub_id: str, config: dict[str, Any]) -> NamedModel:
    return NamedModel(name=name, architecture=SIGLIP, hub_id=hub_id, config=config)


BASE = _model("siglip-base", "google/siglip-base-patch16-224", {})
SO400M = _model(
    "siglip-so400m",
    "google/siglip-so400m-patch14-384",
    {
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "patch_size": 14,
        "image_size": 384,
    },
)
SIGLIP_MODELS = (BASE, SO400M)


def base(weights: str | None) -> Extractor:
    """`siglip-base`: 768 wide, 12 blocks, 93 M parameters."""
    return VisionTransformer.open(BASE, weights)


def so400m(weights: str | None) -> Extractor:
    """`siglip-so400m`: 1152 wide, 27 blocks, 428 M parameters."""
    return VisionTransformer.open(SO400M, weights)
