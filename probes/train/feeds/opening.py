"""Opening what a model reads of a cache: one feature for each layer that it needs, rows of every sample, labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fovcache.cache import open_cache
from fovcache.errors import SelectionError, UsageError
from fovcache.keys.recipe import Feature
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.select import explain, fitting_features, rows_of
from fovcache.maintain.catalog import Catalog
from fovcache.store.dataset import SampleTable, read_table
from fovcache.store.refs import DatasetRef, find_ref
from fovcache.store.shard import keys_hex
from fovcache.trainable import LABELS, TEXT, InputInfo, Need

from ..config import InputChoice, TrainConfig
from .build_commands import command_again, command_anew
from .sets import TrainSets, divide, named

if TYPE_CHECKING:
    from fovcache.store.storage import LocalStorage

logger = logging.getLogger(__name__)

LABELS_NAME = "y"
"""What labels are called in a batch, whatever the model calls them."""
_CHOSEN = ("encoder", "pool", "weights", "store_dtype", "recipe")
_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedInputs:
    """The inputs of n samples: first those to train on, then those to validate with."""

    storage: LocalStorage
    """The cache."""
    ref: DatasetRef
    """The dataset."""
    catalog: Catalog
    """What the cache holds."""
    table: SampleTable
    """All of the dataset's samples."""
    sets: TrainSets
    """Which of them are used, and for what."""
    features: Mapping[str, FeatureSet]
    """Floating rows by their name in a batch, [n, …]."""
    tables: Mapping[str, torch.Tensor]
    """Text and labels by their name in a batch, int64 [n, …], on the CPU."""
    all_features: Mapping[str, Feature]
    """The feature behind each name, text too."""
    infos: Mapping[str, InputInfo]
    """By the model's names, and by those in a batch where one need is several layers."""

    @property
    def digests(self) -> dict[str, str]:
        """Of the feature behind each name, text too."""
        return {name: feature.digest for name, feature in self.all_features.items()}

    @property
    def keys(self) -> np.ndarray:
        """uint8 [n, 32]."""
        found: np.ndarray = self.table.keys[self.sets.used]
        return found


def open_inputs(
    config: TrainConfig, needs: Mapping[str, Need], *, sets: TrainSets | None = None, only_validation: bool = False
) -> OpenedInputs:
    """Find and open what a model needs under a configuration.

    `sets` says which samples of the dataset are used, instead of the configuration; with `only_validation` there is
    nothing to train on in it, and all of it may be the validation set.

    Raises SelectionError where several features fit, and says in what they differ; UsageError where none does or
    samples lack one, and says what builds it, and for captions or labels that are missing; SplitError; DamageError.
    """
    storage = open_cache(config.cache_path, create=False).storage
    ref = find_ref(storage, config.dataset)
    return _Opening(config, needs, storage, ref, sets, only_validation=only_validation).open()


class _Opening:
    def __init__(
        self,
        config: TrainConfig,
        needs: Mapping[str, Need],
        storage: LocalStorage,
        ref: DatasetRef,
        sets: TrainSets | None,
        *,
        only_validation: bool,
    ) -> None:
        self.config, self.needs, self.storage, self.ref = config, needs, storage, ref
        self.catalog = Catalog(storage)
        self.table = table = read_table(storage, ref.dataset)
        self.sets = sets or divide(
            table.keys,
            table.texts("split"),
            config.split,
            config.train.validation_samples,
            uris=table.texts("uri"),
            groups=table.texts("group"),
            only_validation=only_validation,
        )
        self.used = self.sets.used
        self.choices = {name: self._choice(name, need) for name, need in needs.items() if need.kind != LABELS}

    def _choice(self, name: str, need: Need) -> InputChoice:
        """What the configuration says, and else what the model does."""
        choice = self.config.inputs.get(name, InputChoice())
        return replace(choice, encoder=choice.encoder or need.encoder, pool=choice.pool or need.pool)

    def open(self) -> OpenedInputs:
        for name in self.choices:
            if self.needs[name].kind == TEXT:
                self._check_captions(name)
        found = {name: self._find(name) for name in self.choices}
        self._refuse_missing([name for name, own in found.items() if not own])
        opened = {name: self._rows(own) for name, own in found.items()}
        self._refuse_incomplete(opened)
        features: dict[str, FeatureSet] = {}
        tables: dict[str, torch.Tensor] = {}
        infos: dict[str, InputInfo] = {}
        for name, need in self.needs.items():
            if need.kind == LABELS:
                tables[LABELS_NAME], infos[name] = self._labels(name)
            elif need.kind == TEXT:
                tables[name] = self._text(name, opened[name][name])
                infos[name] = self._info(name, opened[name][name].feature, tuple(tables[name].shape[1:]), "int64")
            else:
                features |= opened[name]
                own = {
                    entry: self._info(name, each.feature, each.row_shape, each.feature.dtype)
                    for entry, each in opened[name].items()
                }
                infos |= {name: next(iter(own.values())), **own}
        return OpenedInputs(
            storage=self.storage,
            ref=self.ref,
            catalog=self.catalog,
            table=self.table,
            sets=self.sets,
            features=features,
            tables=tables,
            all_features={entry: each.feature for own in opened.values() for entry, each in own.items()},
            infos=infos,
        )

    def _find(self, name: str) -> dict[str, Feature]:
        """The one feature for each entry of a batch, all of one recipe, pooling and dtype; empty where none fits."""
        need, choice = self.needs[name], self.choices[name]
        layers = need.layers or (choice.layer,)
        alike: dict[tuple[str, ...], dict[str, Feature]] = {}
        for layer in layers:
            wanted = {"layer": layer, **{field: getattr(choice, field) for field in _CHOSEN}}
            for feature in fitting_features(self.catalog, self.table, self.used, **wanted):
                if (need.kind == TEXT) == feature.is_integer:
                    common = (feature.recipe, feature.pool, feature.dtype, "" if layer else feature.layer)
                    alike.setdefault(common, {})[f"{name}/{layer}" if need.layers else name] = feature
        whole = [own for own in alike.values() if len(own) == len(layers)]
        if len(whole) > 1:
            fitting = [next(iter(own.values())) for own in whole]
            said = explain(self.ref.name, self.catalog, fitting, fitting)
            raise SelectionError(f"{need.what}: {said} in [inputs.{name}]")
        return whole[0] if whole else {}

    def _refuse_missing(self, missing: list[str]) -> None:
        if not missing:
            return
        lacking, commands = [], []
        for name in missing:
            need, choice = self.needs[name], self.choices[name]
            layers = need.layers or tuple(filter(None, [choice.layer]))
            asked = {key: value for key, value in asdict(choice).items() if key in _CHOSEN and value is not None}
            shown = [f"{key} {value}" for key, value in {**asked, "layer": ", ".join(layers)}.items() if value]
            lacking.append(f"{need.what} ({'; '.join(shown) or f'any {need.kind}'})")
            asked.pop("recipe", None)
            commands.append(command_anew(self.catalog, self.ref, self.config.cache_path, asked, layers))
        there = explain(self.ref.name, self.catalog, fitting_features(self.catalog, self.table, self.used), [])
        raise UsageError(f"the model needs {' and '.join(lacking)}: {there}. Build it with: {' && '.join(commands)}")

    def _rows(self, features: Mapping[str, Feature]) -> dict[str, FeatureSet]:
        """The rows of those samples that have some."""
        opened = {}
        for entry, feature in features.items():
            keys = self.table.row_keys(self.catalog.recipes[feature.recipe])[self.used]
            rows, found = rows_of(self.storage, self.catalog.index(feature.recipe), feature, keys, strict=False)
            opened[entry] = FeatureSet(
                feature=feature,
                rows=rows,
                table=self.table,
                positions=self.used[found],
                num_failed=len(self.used) - len(found),
            )
        return opened

    def _refuse_incomplete(self, opened: Mapping[str, Mapping[str, FeatureSet]]) -> None:
        said, commands = [], []
        for name, own in opened.items():
            features = [each.feature for each in own.values()]
            lacking = next((self._lacking(each) for each in features if len(self._lacking(each))), None)
            if lacking is not None:
                said.append(f"{len(lacking)} lack {self.needs[name].what} ({self._why(features[0], lacking)})")
                commands.append(command_again(self.catalog, self.ref, self.config.cache_path, features))
        if said:
            raise UsageError(
                f"of the {len(self.used)} samples to be used of dataset {self.ref.name!r} {' and '.join(said)}. Build "
                f"them with: {' && '.join(commands)}; or take what cannot be built out of the sources"
            )

    def _lacking(self, feature: Feature) -> np.ndarray:
        """Positions in the dataset, rising, of used samples without a row."""
        return np.sort(self.used[~self.catalog.has(feature, self.table)[self.used]])

    def _why(self, feature: Feature, lacking: np.ndarray) -> str:
        """Some of the samples that have no row, with what the build said of them."""
        manifests = self.catalog.index(feature.recipe).manifests
        reasons = {failure.key: failure.reason for manifest in manifests for failure in manifest.failures}
        some = lacking[:_MAX_SHOWN]
        keys = keys_hex(self.table.row_keys(self.catalog.recipes[feature.recipe])[some])
        uris = self.table.texts("uri", some)
        shown = [f"{uri}: {reasons[key]}" if key in reasons else str(uri) for uri, key in zip(uris, keys, strict=True)]
        return "; ".join([*shown, *(["…"] if len(lacking) > len(shown) else [])])

    def _check_captions(self, name: str) -> None:
        captions = self.table.texts("caption", self.used)
        missing = self.used[[at for at, caption in enumerate(captions) if caption is None]]
        if len(missing):
            raise UsageError(
                f"{self.needs[name].what}: {len(missing)} of {len(self.used)} samples of dataset {self.ref.name!r} "
                f"have no caption ({named(missing, self.table.texts('uri'))}); give the sources captions, such as a "
                "manifest's column `caption`, and build again"
            )

    def _text(self, name: str, features: FeatureSet) -> torch.Tensor:
        """Token ids int64 [n, longest], −1 beyond each one's end."""
        ids = features.padded().to(torch.int64)
        most = self.choices[name].max_tokens
        if most is not None and ids.shape[1] > most:
            num_cut = int((ids[:, most] >= 0).sum())
            logger.warning("%s: %d of %d texts are longer than %d tokens and cut", name, num_cut, len(ids), most)
            ids = ids[:, :most].contiguous()
        return ids

    def _labels(self, name: str) -> tuple[torch.Tensor, InputInfo]:
        try:
            labels = self.table.labels(self.used)
        except SelectionError as error:
            raise SelectionError(f"{self.needs[name].what}: dataset {self.ref.name!r}: {error}") from None
        if labels is None:
            raise UsageError(
                f"{self.needs[name].what}: the samples of dataset {self.ref.name!r} have no labels; put them in a "
                "folder for each class, or give a manifest with a column `label`, and build again"
            )
        if labels.min() < 0:
            raise UsageError(
                f"{self.needs[name].what}: dataset {self.ref.name!r} has the label {labels.min()}, expected 0 or more"
            )
        info = InputInfo(row_shape=(), dtype="int64", num_classes=int(labels.max()) + 1)
        return torch.from_numpy(labels), info

    def _info(self, name: str, feature: Feature, row_shape: tuple[int, ...], dtype: str) -> InputInfo:
        recipe = self.catalog.recipes[feature.recipe]
        return InputInfo(row_shape=row_shape, dtype=dtype, recipe=recipe, weights=self._weights(name, feature))

    def _weights(self, name: str, feature: Feature) -> str | None:
        """As configured, a path from where the configuration stands; else as the build was given them."""
        weights = self.choices[name].weights
        if weights is None:
            return next(iter(self.catalog.weights(feature)), None)
        path = self.config.folder / weights
        return str(path) if path.exists() else weights
