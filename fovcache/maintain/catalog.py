"""What a cache holds: recipes, features, datasets, and how many samples of each have which."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return str(self.recipe["extractor"].get("name", ""))


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
        self._indexes: dict[str, RecipeIndex] = {}

    def index(self, recipe: str) -> RecipeIndex:
        """The index of a recipe."""
        if recipe not in self._indexes:
            self._indexes[recipe] = open_index(self.storage, recipe)
        return self._indexes[recipe]

    def listing(self, ref: DatasetRef) -> DatasetListing:
        """A dataset and the features that it has. Raises DamageError, FileNotFoundError."""
        table = read_table(self.storage, ref.dataset)
        listings = []
        for feature in self.features:
            index = self.index(feature.recipe)
            num_rows = int((index.lookup(feature.digest, table.keys)[0] >= 0).sum())
            if num_rows:
                listings.append(
                    FeatureListing(
                        feature=feature,
                        recipe=self.recipes[feature.recipe],
                        num_rows=num_rows,
                        row_shape=index.row_shape(self.storage, feature.digest),
                    )
                )
        listings.sort(key=lambda item: (item.encoder, item.feature.recipe, item.feature.layer, item.feature.digest))
        return DatasetListing(ref=ref, table=table, features=tuple(listings))

    def newest_refs(self) -> list[DatasetRef]:
        """The newest ref of each name, by name."""
        newest = {ref.name: ref for ref in read_refs(self.storage)}
        return [newest[name] for name in sorted(newest)]
