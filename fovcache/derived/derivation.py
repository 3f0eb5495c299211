"""What a derived feature is: a recipe that is fed another feature, and whose extractor is a representation.

The key holds the representation's name, version and parameters, how a row becomes a matrix, and the digest of the
feature that it is computed from, which stands for everything that decided that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import UsageError
from ..keys.digest import Document, canonical_json
from ..keys.recipe import Feature, Recipe
from .matrices import has_frames
from .representation import Representation, resolve_representation

MATRIX_RULE = 1
"""Raised when rows become other matrices."""


def input_of(recipe: Document) -> str | None:
    """The digest of the feature that a recipe's rows are derived from; None for an encoder's recipe."""
    given = recipe["input"]
    return str(given["feature"]) if given.get("kind") == "feature" else None


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A representation of one feature."""

    input: str
    """The digest of the feature that it is computed from."""
    layer: str
    """That feature's layer."""
    extractor: Document
    """The representation's name, version and parameters, and how rows become matrices."""

    @classmethod
    def of(cls, representation: Representation, feature: Feature, recipe: Document) -> Derivation:
        """A representation of a feature of a recipe, by the recipe's document.

        Raises UsageError for a feature that is derived itself, for token ids, and where rows are no known matrices.
        """
        if input_of(recipe) is not None:
            raise UsageError(
                f"layer {feature.layer!r} is already the representation {recipe['extractor']['name']!r} of a layer; "
                f"derive {representation.name!r} from the layer itself (`features` without `representation`)"
            )
        if feature.is_integer:
            raise UsageError(
                f"layer {feature.layer!r} holds token ids, whole numbers that {representation.name!r} says nothing of"
            )
        extractor = {
            "name": representation.name,
            "version": representation.version,
            "parameters": dict(representation.parameters),
            "matrix": {"rule": MATRIX_RULE, "frames": has_frames(recipe)},
        }
        return cls(input=feature.digest, layer=feature.layer, extractor=extractor)

    @cached_property
    def recipe(self) -> Recipe:
        """Its recipe."""
        return Recipe(input={"kind": "feature", "feature": self.input}, extractor=self.extractor)

    @cached_property
    def feature(self) -> Feature:
        """The derived feature itself: float32 `[n, F]`."""
        return Feature(recipe=self.recipe.digest, layer=self.layer, pool="tokens", dtype="fp32")

    @property
    def name(self) -> str:
        """The representation's name."""
        return str(self.extractor["name"])

    @property
    def has_frames(self) -> bool:
        """Whether the input's rows begin with an axis of frames."""
        return bool(self.extractor["matrix"]["frames"])

    def representation(self) -> Representation:
        """The representation as it is installed. Raises UsageError unless it is the very one of the key."""
        found = resolve_representation(self.name, self.extractor["parameters"])
        if self.extractor["matrix"]["rule"] != MATRIX_RULE:
            raise UsageError(f"rows become other matrices than when {self.name!r} was computed of them")
        now = {"version": found.version, "parameters": dict(found.parameters)}
        for field, value in now.items():
            if canonical_json(self.extractor[field]) != canonical_json(value):
                raise UsageError(
                    f"representation {self.name!r} has {field} {value} now, and {self.extractor[field]} when its rows "
                    "were computed"
                )
        return found

    def document(self) -> Document:
        """How to ask for the same again, as manifests record it."""
        return {"input": self.input, "layer": self.layer, "extractor": self.extractor}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Derivation | None:
        """The inverse of `document`; None for what an encoder was asked for, or is damaged."""
        extractor = document.get("extractor")
        if not isinstance(extractor, dict) or not {"name", "version", "parameters", "matrix"} <= extractor.keys():
            return None
        return cls(input=str(document.get("input")), layer=str(document.get("layer")), extractor=extractor)
