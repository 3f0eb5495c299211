"""Which cached layers an ablation is about, and which of them each experiment takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fovcache.errors import LayerError, SelectionError, UsageError, nearest
from fovcache.extract.layers import layer_order, select_layers
from fovcache.keys.recipe import Feature, differences

from .config import AblationConfig

ALL = "all"
"""The experiment that there is where the configuration names none."""
_MAX_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedLayer:
    """One feature of the dataset."""

    feature: Feature
    """Layer, pooling, dtype and recipe."""
    recipe: Mapping[str, Any]
    """The recipe's document."""

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return str(self.recipe["extractor"].get("name", ""))

    def __str__(self) -> str:
        feature = self.feature
        return f"{self.encoder} {feature.layer} ({feature.pool}, {feature.dtype}, recipe {feature.recipe[:8]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSets:
    """Layers by the names that results call them: `LAYER`, or `ALIAS:LAYER` where there are several encoders."""

    layers: Mapping[str, CachedLayer]
    """Those that some experiment takes, in the encoders' order."""
    experiments: Mapping[str, tuple[str, ...]]
    """Layers of each, sorted by name; in the configuration's order."""
    single: tuple[str, ...]
    """Layers that are also an experiment each."""
    aliases: Mapping[str, str]
    """The alias, or else the encoder's name, by layer."""
    left_out: tuple[str, ...]
    """Cached layers of these encoders that no experiment takes."""

    def layers_of(self, experiment: str) -> tuple[str, ...]:
        """Of an experiment, or of a layer that is one."""
        return self.experiments.get(experiment) or (experiment,)

    def is_proper_subset(self, experiment: str) -> bool:
        """Whether an experiment that is not one layer's row leaves layers out."""
        return len(self.experiments.get(experiment, self.layers)) < len(self.layers)


def choose_layers(config: AblationConfig, candidates: Mapping[str, Sequence[CachedLayer]]) -> LayerSets:
    """What the globs of `config` take of `candidates`: the features that each alias stands for, by alias.

    Without aliases all candidates stand under the empty one. Raises LayerError for a glob without layers,
    SelectionError where an experiment would mix recipes, poolings or dtypes of one alias, UsageError for an alias
    that is not known or not used.
    """
    found: dict[str, dict[str, CachedLayer]] = {alias: {} for alias in candidates}
    experiments = {}
    for experiment, globs in (config.experiments or _default_experiments(candidates)).items():
        names: list[str] = []
        for alias, patterns in _by_alias(experiment, globs, list(candidates)).items():
            taken = _take(experiment, alias, patterns, candidates[alias])
            found[alias] |= taken
            names += [_shown(alias, layer, candidates) for layer in taken]
        experiments[experiment] = tuple(sorted(names))
    unused = [alias for alias, taken in found.items() if not taken]
    if unused:
        raise UsageError(f"[encoders.{unused[0]}]: no experiment takes a layer of it; name one, such as {unused[0]}:**")
    layers = {
        _shown(alias, layer, candidates): (alias, taken[layer])
        for alias, taken in found.items()
        for layer in sorted(taken, key=layer_order)
    }
    _check_names(config, experiments, layers)
    return LayerSets(
        layers={name: cached for name, (_, cached) in layers.items()},
        experiments=experiments,
        single=tuple(layers) if config.single_layers else (),
        aliases={name: alias or cached.encoder for name, (alias, cached) in layers.items()},
        left_out=tuple(
            _shown(alias, layer, candidates)
            for alias, every in candidates.items()
            for layer in sorted({each.feature.layer for each in every} - found[alias].keys(), key=layer_order)
        ),
    )


def _default_experiments(candidates: Mapping[str, Sequence[CachedLayer]]) -> dict[str, tuple[str, ...]]:
    """All layers; of several encoders, those of each."""
    if len(candidates) == 1:
        return {ALL: ("**",)}
    return {alias: (f"{alias}:**",) for alias in candidates}


def _shown(alias: str, layer: str, candidates: Mapping[str, Any]) -> str:
    return f"{alias}:{layer}" if len(candidates) > 1 else layer


def _by_alias(experiment: str, globs: Sequence[str], aliases: Sequence[str]) -> dict[str, list[str]]:
    """The globs of one experiment without their aliases."""
    found: dict[str, list[str]] = {}
    for glob in globs:
        alias, colon, pattern = glob.rpartition(":")
        if colon and alias not in aliases:
            known = [each for each in aliases if each]
            raise UsageError(
                f"[experiments] {experiment}: {glob!r} is of no encoder in [encoders]{nearest(alias, known)}"
            )
        if not colon and len(aliases) > 1:
            raise UsageError(
                f"[experiments] {experiment}: {glob!r} does not say of which encoder: write {aliases[0]}:{glob}, with "
                f"one of {', '.join(aliases)}"
            )
        found.setdefault(alias if colon else aliases[0], []).append(pattern)
    return found


def _take(
    experiment: str, alias: str, patterns: Sequence[str], candidates: Sequence[CachedLayer]
) -> dict[str, CachedLayer]:
    known = sorted({each.feature.layer for each in candidates}, key=layer_order)
    try:
        layers = set(select_layers(patterns, known))
    except LayerError as error:
        raise LayerError(f"[experiments] {experiment}: {error}") from None
    taken = [each for each in candidates if each.feature.layer in layers]
    _check_one_kind(experiment, alias, taken)
    return {each.feature.layer: each for each in taken}


def _check_one_kind(experiment: str, alias: str, taken: Sequence[CachedLayer]) -> None:
    """Raise SelectionError unless layers are of one recipe, one pooling and one dtype."""
    of = f"[experiments] {experiment}: " + (f"encoder {alias!r} has " if alias else "its layers are of ")
    mend = f"[encoders.{alias}]" if alias else "[encoders.ALIAS]"
    recipes = {each.feature.recipe: each for each in taken}
    if len(recipes) > 1:
        first, *others = [each.recipe for each in recipes.values()]
        fields = dict.fromkeys(field for other in others for field, _, _ in differences(first, other))
        shown = _list([f"{each.encoder} {digest[:8]}" for digest, each in recipes.items()])
        raise SelectionError(
            f"{of}features of different recipes mixed ({shown}); the recipes differ in {_list(list(fields))}. Name "
            f"encoder, weights or recipe in {mend}, one table for each that is meant, and write ALIAS:GLOB"
        )
    for what, key, values in (
        ("poolings", "pool", {each.feature.pool for each in taken}),
        ("storage dtypes", "store_dtype", {each.feature.dtype for each in taken}),
    ):
        if len(values) > 1:
            raise SelectionError(f"{of}features of several {what} ({', '.join(sorted(values))}); name {key} in {mend}")


def _check_names(config: AblationConfig, experiments: Mapping[str, Sequence[str]], layers: Mapping[str, Any]) -> None:
    for name, taken in experiments.items():
        if config.single_layers and name in layers and tuple(taken) != (name,):
            raise UsageError(f"[experiments] {name}: that is a layer's name, which single_layers gives to its row")


def _list(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_MAX_SHOWN]) + (f" and {len(texts) - _MAX_SHOWN} more" if len(texts) > _MAX_SHOWN else "")
