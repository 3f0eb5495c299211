"""The plain vision transformer, in its tiny size: `vit-tiny`."""

from __future__ import annotations

from fovcache.extract.extractor import Extractor

from .architecture import Architecture, Config, NamedModel, with_bias
from .checkpoint import Shape
from .vision_transformer import VisionTransformer


def shapes(config: Config) -> dict[str, Shape]:
    """The canonical state dict of a ViTModel without its pooler."""
    width, patch, inner = config["hidden_size"], config["patch_size"], config["intermediate_size"]
    num_patches = (config["image_size"] // patch) ** 2
    found: dict[str, Shape] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, num_patches + 1, width),
        **with_bias("embeddings.patch_embeddings.projection", width, config["num_channels"], patch, patch),
        **with_bias("layernorm", width),
    }
    for number in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            found |= with_bias(f"{block}.attention.attention.{name}", width, width)
            if not config["qkv_bias"]:
                del found[f"{block}.attention.attention.{name}.bias"]
        found |= with_bias(f"{block}.attention.output.dense", width, width)
        found |= with_bias(f"{block}.layernorm_before", width) | with_bias(f"{block}.layernorm_after", width)
        found |= with_bias(f"{block}.intermediate.dense", inner, width)
        found |= with_bias(f"{block}.output.dense", width, inner)
    return found


VIT = Architecture(
    model_type="vit",
    model_class="ViTModel",
    model_options={"add_pooling_layer": False},
    defaults={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "image_size": 224,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
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
    blocks="encoder.layer.",
    norm="layernorm",
    patches="embeddings.patch_embeddings.projection.weight",
    unused=("embeddings.mask_token",),
    has_class_token=True,
    processor=lambda config: {
        "do_resize": True,
        "size": {"height": config["image_size"], "width": config["image_size"]},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
)
TINY = NamedModel(
    name="vit-tiny",
    architecture=VIT,
    hub_id=None,
    config={"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
)
VIT_MODELS = (TINY,)


def tiny(weights: str | None) -> Extractor:
    """`vit-tiny`, ViT-Ti/16: 192 wide, 12 blocks, 5.5 M parameters."""
    return VisionTransformer.open(TINY, weights)
