"""Deep attention: a query goes through the encoder's own frozen layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from fovcache.errors import UsageError
from fovcache.models.architecture import NamedModel
from fovcache.models.dinov2 import DINOV2, DINOV2_WITH_REGISTERS, SMALL
from fovcache.models.foveated.deep_attention import DeepAttention, layers_read, load_deep_attention
from fovcache.models.foveated.model import make
from fovcache.models.vision_transformer import VisionTransformer
from fovcache.trainable import InputInfo

LITTLE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 70}
MODELS = {
    "little": NamedModel(name="little", architecture=DINOV2, hub_id=None, config=LITTLE),
    "with-registers": NamedModel(
        name="with-registers",
        architecture=DINOV2_WITH_REGISTERS,
        hub_id=None,
        config={**LITTLE, "num_register_tokens": 2},
    ),
    "dinov2-small": SMALL,
}
SAMPLES, FRAMES = 2, 3


def encoded(model: NamedModel, side: int) -> dict[str, torch.Tensor]:
    """What the cache would hold of two clips: every layer's states [B, T, N, D]."""
    extractor = VisionTransformer.open(model, "random:0")
    pixels = torch.randn(SAMPLES * FRAMES, 3, side, side, generator=torch.Generator().manual_seed(0))
    session = extractor.session(extractor.layers(), torch.device("cpu"), "float32")
    outputs = session.encode(pixels)
    return {layer: rows.clone().unflatten(0, (SAMPLES, FRAMES)) for layer, rows in outputs.items()}


def info(model: NamedModel, rows: torch.Tensor, weights: str = "random:0") -> InputInfo:
    recipe = {"extractor": dict(VisionTransformer.open(model, "random:0").identity())}
    return InputInfo(row_shape=tuple(rows.shape[1:]), dtype="fp32", recipe=recipe, weights=weights)


def batch_of(model: NamedModel, layers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"frames/{layer}": layers[layer] for layer in layers_read(model)}


@pytest.mark.parametrize(("name", "side"), [("little", 70), ("with-registers", 70), ("dinov2-small", 56)])
def test_the_class_tokens_embedding_becomes_the_class_token(name: str, side: int) -> None:
    model = MODELS[name]
    layers = encoded(model, side)
    attention = load_deep_attention(model, info(model, layers["embed"]))
    with torch.no_grad():
        glimpse = attention.through(attention.frames(batch_of(model, layers)), layers["embed"][:, :, 0])
        other = attention.through(attention.frames(batch_of(model, layers)), layers["embed"][:, :, 1])
    torch.testing.assert_close(glimpse.found_BTD, layers["norm"][:, :, 0], rtol=1e-4, atol=1e-4)
    assert (other.found_BTD - layers["norm"][:, :, 0]).abs().max() > 0.01
    assert glimpse.weights_BTN.shape == layers["embed"].shape[:3]
    torch.testing.assert_close(glimpse.weights_BTN.sum(dim=-1), torch.ones(SAMPLES, FRAMES))
    assert ((glimpse.entropy_BT > 0) & (glimpse.entropy_BT <= 1 + 1e-6)).all()


def test_a_frame_is_looked_at_with_its_own_states_alone() -> None:
    model = MODELS["little"]
    layers = encoded(model, 70)
    attention = load_deep_attention(model, info(model, layers["embed"]))
    batch = batch_of(model, layers)
    queries = torch.randn(SAMPLES, FRAMES, 32, generator=torch.Generator().manual_seed(1))
    whole = attention(attention.frames(batch), queries).found_BTD
    second = {name: rows[1:, 2:] for name, rows in batch.items()}
    torch.testing.assert_close(attention(attention.frames(second), queries[1:, 2:]).found_BTD, whole[1:, 2:])


def test_frozen_layers_are_no_parameters_and_in_no_checkpoint() -> None:
    model = MODELS["little"]
    layers = encoded(model, 70)
    attention = load_deep_attention(model, info(model, layers["embed"]))
    assert [name for name, _ in attention.named_parameters()] == ["query.weight"]
    assert list(attention.state_dict()) == ["query.weight"]
    found_BTD = attention(attention.frames(batch_of(model, layers)), torch.randn(SAMPLES, FRAMES, 32)).found_BTD
    (found_BTD * torch.randn(32)).sum().backward()  # a plain sum of what a norm gives does not change with the query
    assert attention.query.weight.grad is not None
    assert bool(attention.query.weight.grad.any())


def test_other_weights_than_the_recipes_are_refused() -> None:
    rows = torch.empty(SAMPLES, FRAMES, 17, 384)
    with pytest.raises(UsageError, match=r"weights random:1 are not those .*'seed': 0.*\[inputs.frames\] weights"):
        load_deep_attention(SMALL, info(SMALL, rows, weights="random:1"))
    with pytest.raises(UsageError, match="features of 'little', and encoder = 'dinov2-small'"):
        load_deep_attention(SMALL, info(MODELS["little"], rows))


def test_a_whole_model_with_deep_attention_learns() -> None:
    layers = encoded(SMALL, 56)
    frames = info(SMALL, layers["embed"])
    settings: dict[str, Any] = {"size": "tiny", "heads": ["labels"], "alphabet": "AB", "attention": "deep"}
    trainable = make(settings)
    assert trainable.needs()["frames"].layers == layers_read(SMALL)
    labels = InputInfo(row_shape=(4,), dtype="int64")
    module = trainable.build({"frames": frames, "frame_labels": labels}, 0)
    assert isinstance(module.attention, DeepAttention)
    batch = {**batch_of(SMALL, layers), "frame_labels": torch.tensor([[65, 66, 65, 256]] * SAMPLES)}
    values = module(batch)
    values["loss"].mean().backward()
    assert not [name for name, each in module.named_parameters() if each.grad is None and "embed_tokens" not in name]
    assert module.attention_maps(batch)["fine"].shape == (SAMPLES, FRAMES, 4, 4)
