"""The key of a derived feature: the representation, its version and parameters, and its input's digest; no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from fovcache.derived.derivation import Derivation, input_of
from fovcache.derived.representation import known_representations, resolve_representation
from fovcache.errors import UsageError
from fovcache.extract.clips import ClipInput
from fovcache.extract.frames import FrameInput
from fovcache.keys.recipe import Feature, Recipe

STILLS = Recipe(input=FrameInput(size=32).document(), extractor={"name": "net"})
CLIPS = Recipe(input=ClipInput(size=32).document(), extractor={"name": "net"})


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A representation, as far as keys ask."""

    name: str = "mean"
    version: int = 1
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"power": 2})

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        return 1

    def compute(self, x_BTC: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a key is known before anything is computed")


def layer(recipe: Recipe = STILLS, **changes: str) -> Feature:
    return Feature(**{"recipe": recipe.digest, "layer": "blocks.0", "pool": "tokens", **changes})


def digest(representation: Mean = Mean(), feature: Feature | None = None, recipe: Recipe = STILLS) -> str:
    return Derivation.of(representation, feature or layer(recipe), recipe.document).feature.digest


def test_each_thing_that_decides_the_numbers_changes_the_key() -> None:
    others = [
        digest(Mean(name="average")),
        digest(Mean(version=2)),
        digest(Mean(parameters={"power": 3})),
        digest(Mean(parameters={})),
        digest(feature=layer(layer="blocks.1")),
        digest(feature=layer(pool="cls")),
        digest(feature=layer(dtype="fp32")),
        digest(recipe=Recipe(input=STILLS.input, extractor={"name": "net", "state": "other weights"})),
        digest(recipe=CLIPS),
    ]
    assert len({digest(), *others}) == 1 + len(others)


def test_the_key_is_this_one() -> None:
    """A change here makes every derived feature that exists useless, so none is by accident."""
    derivation = Derivation.of(Mean(), layer(), STILLS.document)
    assert derivation.recipe.document["input"] == {"kind": "feature", "feature": layer().digest}
    assert derivation.recipe.document["extractor"] == {
        "name": "mean",
        "version": 1,
        "parameters": {"power": 2},
        "matrix": {"rule": 1, "frames": False},
    }
    assert derivation.recipe.digest == "f92f83832e7a205c6fad39cf3c7e6e16f12b138902dd8323faa9d50c676aaa3f"
    assert derivation.feature.digest == "897bd26fe86a8e2dfe524ecc1accb1d04df36c1ccad501a6859c82c736b9d474"
    feature = derivation.feature
    assert (feature.layer, feature.pool, feature.dtype) == ("blocks.0", "tokens", "fp32")


def test_a_clips_rows_become_other_matrices_than_a_stills() -> None:
    assert not Derivation.of(Mean(), layer(), STILLS.document).has_frames
    assert Derivation.of(Mean(), layer(CLIPS), CLIPS.document).has_frames


def test_what_a_manifest_records_leads_back_to_the_key() -> None:
    derivation = Derivation.of(Mean(), layer(), STILLS.document)
    assert Derivation.from_document(derivation.document()) == derivation
    assert Derivation.from_document({"encoder": "net", "weights": None, "layers": []}) is None
    assert input_of(derivation.recipe.document) == layer().digest
    assert input_of(STILLS.document) is None


@pytest.mark.parametrize("name", known_representations())
def test_every_representation_can_be_asked_for_again_by_its_key(name: str) -> None:
    derivation = Derivation.of(resolve_representation(name), layer(), STILLS.document)
    assert Derivation.of(derivation.representation(), layer(), STILLS.document) == derivation


def test_the_parameters_of_a_key_are_those_that_are_asked_for_again() -> None:
    derivation = Derivation.of(resolve_representation("spectral", {"method": "exact"}), layer(), STILLS.document)
    assert derivation.representation().parameters == {"method": "exact"}
    assert derivation != Derivation.of(resolve_representation("spectral"), layer(), STILLS.document)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 0}, "has version 1 now, and 0 when its rows were computed"),
        ({"parameters": {"method": "best"}}, "method 'best' is not one of"),
        ({"matrix": {"rule": 0, "frames": False}}, "rows become other matrices than when 'spectral' was computed"),
        ({"name": "spectrum"}, "no representation named 'spectrum'; nearest: spectral"),
    ],
)
def test_a_representation_that_is_not_what_it_was_is_refused(changed: dict[str, object], said: str) -> None:
    derivation = Derivation.of(resolve_representation("spectral"), layer(), STILLS.document)
    extractor = {**derivation.extractor, **changed}
    with pytest.raises(UsageError, match=said):
        Derivation(input=derivation.input, layer=derivation.layer, extractor=extractor).representation()


def test_a_derived_feature_is_not_derived_from() -> None:
    first = Derivation.of(Mean(), layer(), STILLS.document)
    with pytest.raises(
        UsageError, match=r"already the representation 'mean' of a layer; derive 'stats' from the layer"
    ):
        Derivation.of(Mean(name="stats"), first.feature, first.recipe.document)


def test_rows_that_are_no_known_matrices_are_refused() -> None:
    text = Recipe(input={"kind": "text"}, extractor={"name": "net"})
    with pytest.raises(UsageError, match="'text' have no known axes"):
        digest(recipe=text)
