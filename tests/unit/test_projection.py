"""Simple heads on cached features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from fovcache.errors import UsageError
from fovcache.models.projection import make
from fovcache.trainable import InputInfo, resolve_trainable

INFOS = {
    "features": InputInfo(row_shape=(2, 5, 8), dtype="bf16"),
    "y": InputInfo(row_shape=(), dtype="int64", num_classes=3),
    "target": InputInfo(row_shape=(4, 3), dtype="fp32"),
}
DRAWN = torch.Generator().manual_seed(0)
BATCH = {
    "features": torch.randn(64, 2, 5, 8, generator=DRAWN).bfloat16(),
    "y": torch.randint(0, 3, (64,), generator=DRAWN),
    "target": torch.randn(64, 4, 3, generator=DRAWN),
}


def test_it_reads_labels_or_features() -> None:
    labels, features = resolve_trainable("projection", {}), make({"target": "features"})
    assert list(labels.needs()) == ["features", "y"]
    assert labels.frozen() == {"encoder": "features"}
    assert list(features.needs()) == ["features", "target"]
    assert features.frozen() == {"encoder": "features", "target_encoder": "target"}
    assert dict(labels.document()) == {
        "name": "projection",
        "target": "labels",
        "layers": 1,
        "hidden": None,
        "tokens": "mean",
        "loss": None,
    }


def test_a_linear_head_is_a_linear_layer_over_the_mean_of_tokens() -> None:
    module: Any = make({}).build(INFOS, 0)
    values = module(BATCH)
    logits = BATCH["features"].float().mean(dim=(1, 2)) @ module.layers[0].weight.T
    torch.testing.assert_close(values["loss"], functional.cross_entropy(logits, BATCH["y"], reduction="none"))
    assert torch.equal(values["accuracy"], (logits.argmax(dim=1) == BATCH["y"]).float())


@pytest.mark.parametrize(
    ("settings", "num_parameters"),
    [
        ({"tokens": "flatten"}, 80 * 3 + 3),
        ({"layers": 3, "hidden": 16}, 8 * 16 + 16 + 16 * 16 + 16 + 16 * 3 + 3),
        ({"layers": 2}, 8 * 8 + 8 + 8 * 3 + 3),
        ({"target": "features"}, 8 * 12 + 12),
        ({"target": "features", "loss": "cosine", "layers": 2, "hidden": 4}, 8 * 4 + 4 + 4 * 12 + 12),
    ],
)
def test_each_head_has_its_size_and_learns(settings: dict[str, Any], num_parameters: int) -> None:
    module = make(settings).build(INFOS, 0)
    assert sum(parameter.numel() for parameter in module.parameters()) == num_parameters
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = module(BATCH)["loss"]
        assert loss.shape == (64,)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert losses[-1] < losses[0] - 0.01


def test_the_losses_to_features_are_what_they_are_called() -> None:
    squared: Any = make({"target": "features"}).build(INFOS, 0)
    angular: Any = make({"target": "features", "loss": "cosine"}).build(INFOS, 0)
    output = squared.layers(BATCH["features"].float().mean(dim=(1, 2)))
    target = BATCH["target"].flatten(1)
    torch.testing.assert_close(squared(BATCH)["loss"], (output - target).square().mean(dim=1))
    cosine = (output * target).sum(dim=1) / output.norm(dim=1) / target.norm(dim=1)
    torch.testing.assert_close(angular(BATCH)["loss"], 1 - cosine)


def test_parameters_are_a_function_of_the_seed() -> None:
    before = torch.get_rng_state()
    one, same, other = (make({"layers": 2}).build(INFOS, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert [name for name in one if not torch.equal(one[name], other[name])] == ["layers.0.weight", "layers.2.weight"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hiden": 3}, "no setting 'hiden'; nearest: hidden"),
        ({"target": "label"}, "target = 'label'; nearest: labels"),
        ({"layers": 0}, "layers = 0, expected a whole number"),
        ({"hidden": 3}, "hidden = 3 is for layers = 2 or more"),
        ({"loss": "mse"}, 'is for target = "features"'),
        ({"target": "features", "loss": "cos"}, "nearest: cosine"),
    ],
)
def test_settings_that_are_unknown_unread_or_wrong_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(settings)


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(UsageError, match="of 1 class, expected at least two"):
        make({}).build({**INFOS, "y": InputInfo(row_shape=(), dtype="int64", num_classes=1)}, 0)
