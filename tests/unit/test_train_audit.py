"""The audit: which parts train, what the cache froze is refused, and the step that finds it out leaves no trace."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fovcache.errors import UsageError
from fovcache.probes.toml_table import parse_toml
from fovcache.probes.train.recipe import read_settings
from fovcache.probes.train.result import ParameterGroup
from fovcache.probes.train.saving.random_states import take_random
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stepping.audit import audit, choose_parts, gradient_names, parts_of, unused_names
from fovcache.trainable import FEATURES, InputInfo, Need


class Model(nn.Module):
    """Reads frames; `spare` is built and not used, `lookup` is frozen by the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(3))
        self.key = nn.Linear(3, 3, bias=False)
        self.norm = nn.BatchNorm1d(3, momentum=None)
        self.dropout = nn.Dropout(0.5)
        self.spare = nn.Linear(3, 2)
        self.lookup = nn.Embedding(4, 3).requires_grad_(False)
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.key.weight
        self.register_buffer("seen", torch.zeros(1), persistent=False)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = self.norm(self.tied(self.dropout(self.key(batch["frames"])))) * self.query
        self.seen = self.seen + len(x)
        loss = x.square().mean(1)
        loss[0] = torch.nan  # a sample that has no loss
        return {"loss": loss}


class Frames:
    """Its trainable, whose encoder the cache stands for."""

    name = "frames"

    def document(self) -> dict[str, Any]:
        return {"name": self.name}

    def needs(self) -> dict[str, Need]:
        return {"frames": Need(kind=FEATURES, what="the encoder's final tokens")}

    def frozen(self) -> dict[str, str]:
        return {"encoder": "frames"}

    def build(self, inputs: Mapping[str, InputInfo], seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Model()


@pytest.fixture
def module() -> Model:
    module = Frames().build({}, 0)
    assert isinstance(module, Model)
    return module


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return {"frames": torch.randn(6, 3, generator=torch.Generator().manual_seed(0))}


def settings(*parts: str) -> TrainSettings:
    top = parse_toml("", "train.toml", ())
    return replace(read_settings(top, None), parts=parts)


def trained(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def group(part: str, trained: int = 0, unused: int = 0, frozen: int = 0) -> ParameterGroup:
    return ParameterGroup(part=part, trained=trained, unused=unused, frozen=frozen)


def test_each_part_is_counted_by_what_becomes_of_it(
    module: Model, batch: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    choose_parts(module, Frames(), settings())
    expected = (group("query", 3), group("key", 9), group("norm", 6), group("spare", unused=8))
    assert audit(module, batch) == (*expected, group("lookup", frozen=12))
    assert "2 parameter tensors could be trained and receive no gradient" in caplog.text
    assert "spare.weight, spare.bias" in caplog.text
    assert unused_names(module, gradient_names(module, batch)) == ("spare.weight", "spare.bias")


def test_only_the_parts_that_are_named_train(module: Model, batch: dict[str, torch.Tensor]) -> None:
    choose_parts(module, Frames(), settings("norm", "query"))
    assert trained(module) == ["query", "norm.weight", "norm.bias"]
    assert audit(module, batch) == (
        group("query", 3),
        group("key", frozen=9),
        group("norm", 6),
        group("spare", frozen=8),
        group("lookup", frozen=12),
    )


def test_a_model_may_name_its_own_parts(module: Model, batch: dict[str, torch.Tensor]) -> None:
    module.parts = {"attention": ("query", "key."), "gain": ("norm.weight",), "k": ("k",)}
    assert parts_of(module) == {
        "query": "attention",
        "key.weight": "attention",
        "norm.weight": "gain",
        "norm.bias": "norm",
        "spare.weight": "spare",
        "spare.bias": "spare",
        "lookup.weight": "lookup",
    }
    choose_parts(module, Frames(), settings("attention"))
    assert audit(module, batch)[0] == group("attention", 12)


def test_the_audit_leaves_no_trace(module: Model, batch: dict[str, torch.Tensor]) -> None:
    module.eval()
    module.norm.train()
    module.query.grad = torch.full((3,), 7.0)
    seen, before = module.seen, {name: value.clone() for name, value in module.state_dict().items()}
    random = take_random()
    audit(module, batch)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.seen is seen
    assert seen.item() == 0
    assert (module.query.grad == 7).all()
    assert module.key.weight.grad is None
    assert [name for name, each in module.named_modules() if each.training] == ["norm"]
    assert take_random() == random


def test_a_pass_that_fails_leaves_no_trace_either(module: Model) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    with pytest.raises(KeyError):
        audit(module, {})
    assert not module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("keys",), r"train\.parts names 'keys', which is no part of frames; nearest: key"),
        (("key", "lookup"), r"'lookup', but frames keeps all its parameters frozen"),
        (("encoder",), r"'encoder' of frames cannot be trained: the cache froze it, and the input 'frames' \(the enc"),
    ],
)
def test_parts_that_cannot_be_trained_are_refused(module: Model, parts: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_parts(module, Frames(), settings(*parts))


def test_a_model_that_trains_what_the_cache_froze_is_refused(module: Model) -> None:
    module.encoder = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="'encoder' of frames cannot be trained: the cache froze it"):
        choose_parts(module, Frames(), settings())
    module.encoder.requires_grad_(False)
    choose_parts(module, Frames(), settings())


def test_where_nothing_receives_a_gradient_is_an_error(module: Model, batch: dict[str, torch.Tensor]) -> None:
    choose_parts(module, Frames(), settings("spare"))
    with pytest.raises(UsageError, match="receives a gradient from the loss: 2 parameter tensors could be trained"):
        audit(module, batch)
    module.requires_grad_(False)
    with pytest.raises(UsageError, match="every parameter is frozen"):
        audit(module, batch)
