"""What a cache holds: recipes, features, datasets, and how many samples of each have which."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..derived.derivation import input_of
from ..errors import DamageError
from ..keys.recipe import Feature
from ..store.dataset import SampleTable, read_table
from ..store.documents import read_keyed
from ..store.index import RecipeIndex, open_index
from ..store.layout import FEATURES, RECIPES, stem
from ..store.refs import DatasetRef, read_refs
from ..store.storage import Storage

logger = logging.getLogger(__name__)


def read_recipes(storage: Storage) -> dict[str, dict[str, Any]]:
    """Every readable recipe document, by digest."""
    return dict(_documents(storage, RECIPES))


def read_features(storage: Storage) -> list[Feature]:
    """Every readable feature."""
    return [Feature.from_document(document) for _, document in _documents(storage, FEATURES)]


def _documents(storage: Storage, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in storage.list(folder):
        try:
            yield stem(name), read_keyed(storage, name, stem(name))
        except (DamageError, FileNotFoundError) as error:
            logger.warning("%s is left out: %s", name, error)


@dataclass(frozen=True, kw_only=True)
class FeatureListing:
    """One feature and how much of a dataset has it."""

    feature: Feature
    """The feature."""
    recipe: dict[str, Any]
    """Its recipe's document."""
    num_rows: int
    """Samples of the dataset that have it."""
    row_shape: tuple[int, ...] | None
    """Of its rows; None when they differ."""
    root: Feature | None
    """The encoder's feature that a derived one is computed from; itself for a plain one; None when that is gone."""
    encoder: str
    """The encoder's name, also of a derived feature; empty when it is not known any more."""
    representation: str | None
    """A derived feature's representation; None for a plain one."""


@dataclass(frozen=True, kw_only=True)
class DatasetListing:
    """One named dataset and its features."""

    ref: DatasetRef
    """Its name and where it came from."""
    table: SampleTable
    """Its samples."""
    features: tuple[FeatureListing, ...]
    """Features with at least one row in it, by encoder and layer."""


class Catalog:
    """Reads a cache's indexes once and answers what it holds."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.recipes = read_recipes(storage)
        self.features = [feature for feature in read_features(storage) if feature.recipe in self.recipes]
        self._features = {feature.digest: feature for feature in self.features}
        self._indexes: dict[str, RecipeIndex] = {}

    def index(self, recipe: str) -> RecipeIndex:
        """The index of a recipe."""
        if recipe not in self._indexes:
            self._indexes[recipe] = open_index(self.storage, recipe)
        return self._indexes[recipe]

    def representation(self, feature: Feature) -> str | None:
        """What a derived feature is of its input; None for a plain feature."""
        recipe = self.recipes[feature.recipe]
        return None if input_of(recipe) is None else str(recipe["extractor"].get("name"))

    def root(self, feature: Feature) -> Feature | None:
        """The encoder's feature that a derived one is computed from, None when it is gone; a plain feature itself."""
        digest = input_of(self.recipes[feature.recipe])
        return feature if digest is None else self._features.get(digest)

    def encoder(self, feature: Feature) -> str:
        """The name of the encoder at the root of a feature; empty when it is not known any more."""
        root = self.root(feature)
        return "" if root is None else str(self.recipes[root.recipe]["extractor"].get("name", ""))

    def weights(self, feature: Feature) -> tuple[str, ...]:
        """The weights that builds named for the encoder at the root of a feature, sorted; none where they named none.

        Those of equal content have one recipe, whatever they were called.
        """
        root = self.root(feature)
        manifests = self.index(root.recipe).manifests if root else ()
        requests = (manifest.provenance.get("request", {}) for manifest in manifests)
        return tuple(sorted({str(request["weights"]) for request in requests if request.get("weights") is not None}))

    def has(self, feature: Feature, table: SampleTable) -> np.ndarray:
        """Which samples of a dataset have a row of a feature, bool [samples]."""
        keys = table.row_keys(self.recipes[feature.recipe])
        found: np.ndarray = self.index(feature.recipe).lookup(feature.digest, keys)[0] >= 0
        return found

    def listing(self, ref: DatasetRef) -> DatasetListing:
        """A dataset and the features that it has. Raises DamageError, FileNotFoundError."""
        table = read_table(self.storage, ref.dataset)
        listings = []
        for feature in self.features:
            num_rows = int(self.has(feature, table).sum())
            if num_rows:
                listings.append(
                    FeatureListing(
                        feature=feature,
                        recipe=self.recipes[feature.recipe],
                        num_rows=num_rows,
                        row_shape=self.index(feature.recipe).row_shape(self.storage, feature.digest),
                        root=self.root(feature),
                        encoder=self.encoder(feature),
                        representation=self.representation(feature),
                    )
                )
        listings.sort(key=_order)
        return DatasetListing(ref=ref, table=table, features=tuple(listings))

    def newest_refs(self) -> list[DatasetRef]:
        """The newest ref of each name, by name."""
        newest = {ref.name: ref for ref in read_refs(self.storage)}
        return [newest[name] for name in sorted(newest)]


def _order(item: FeatureListing) -> tuple[str, ...]:
    """By encoder and layer, a derived feature after its input."""
    root = item.root or item.feature
    return item.encoder, root.recipe, root.layer, root.digest, item.representation or "", item.feature.digest
