"""Which cells an ablation has: layers by glob and alias, random layers, controls."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from fovcache.errors import LayerError, SelectionError, UsageError
from fovcache.keys.recipe import Feature
from fovcache.probes.config import AblationConfig, ControlChoice, EncoderChoice, RepresentationChoice
from fovcache.probes.controls import random_layers
from fovcache.probes.grid import grid
from fovcache.probes.layer_sets import CachedLayer, LayerSets, choose_layers
from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS

VIT = ("blocks.0", "blocks.1", "blocks.2", "blocks.10", "embed", "norm")


def cached(layers: Sequence[str] = VIT, recipe: str = "vit", **fields: str) -> list[CachedLayer]:
    document = {"extractor": {"name": recipe.rstrip("0123456789"), "weights": recipe}}
    return [
        CachedLayer(feature=Feature(recipe=recipe, layer=layer, **{"pool": "tokens", **fields}), recipe=document)
        for layer in layers
    ]


def config(experiments: dict[str, tuple[str, ...]], *aliases: str, **options: Any) -> AblationConfig:
    encoders = {alias: EncoderChoice() for alias in aliases}
    some = (RepresentationChoice(name="stats"),)
    return AblationConfig(
        name="c", cache="c", experiments=experiments, encoders=encoders, **{"representations": some, **options}
    )


def test_without_experiments_all_layers_are_one_and_each_is_a_row_in_the_encoders_order() -> None:
    sets = choose_layers(config({}), {"": cached()})
    assert sets.experiments == {"all": tuple(sorted(VIT))}
    assert sets.single == ("embed", "blocks.0", "blocks.1", "blocks.2", "blocks.10", "norm")


def test_globs_take_layers_and_what_none_takes_is_not_in_play() -> None:
    sets = choose_layers(config({"low": ("blocks.[01]", "blocks.?"), "ends": ("embed", "norm")}), {"": cached()})
    assert sets.experiments == {"low": ("blocks.0", "blocks.1", "blocks.2"), "ends": ("embed", "norm")}
    assert sets.left_out == ("blocks.10",)
    assert "blocks.10" not in sets.layers


def test_with_several_encoders_layers_are_named_by_alias() -> None:
    candidates = {"old": cached(recipe="vit0"), "new": cached(recipe="vit1")}
    sets = choose_layers(config({"both": ("old:norm", "new:norm"), "one": ("new:blocks.*",)}, "old", "new"), candidates)
    assert sets.experiments["both"] == ("new:norm", "old:norm")
    assert sets.single[:2] == ("old:norm", "new:blocks.0")
    assert sets.layers["old:norm"].feature.recipe == "vit0"
    assert sets.aliases["old:norm"] == "old"
    default = choose_layers(config({}, "old", "new"), candidates)
    assert list(default.experiments) == ["old", "new"]


@pytest.mark.parametrize(
    ("experiments", "aliases", "candidates", "kind", "said"),
    [
        ({"e": ("blocks.7",)}, (), {"": cached()}, LayerError, "[experiments] e: no layer matches 'blocks.7'; nearest"),
        ({"e": ("block[",)}, (), {"": cached()}, LayerError, "no layer matches 'block['"),
        ({"e": ("[z-a]",)}, (), {"": cached()}, LayerError, "layer glob '[z-a]' is not one"),
        ({"e": ("vit:norm",)}, (), {"": cached()}, UsageError, "'vit:norm' is of no encoder in [encoders]"),
        ({"e": ("c:norm",)}, ("a", "b"), {"a": cached(), "b": cached()}, UsageError, "'c:norm' is of no encoder"),
        ({"e": ("norm",)}, ("a", "b"), {"a": cached(), "b": cached()}, UsageError, "write a:norm, with one of a, b"),
        ({"e": ("a:norm",)}, ("a", "b"), {"a": cached(), "b": cached()}, UsageError, "[encoders.b]: no experiment"),
        ({"norm": ("*",)}, (), {"": cached()}, UsageError, "[experiments] norm: that is a layer's name"),
        (
            {"e": ("norm",)},
            (),
            {"": cached(recipe="vit0") + cached(recipe="vit1")},
            SelectionError,
            "its layers are of features of different recipes mixed (vit vit0, vit vit1); the recipes differ in "
            "extractor.weights. Name encoder, weights or recipe in [encoders.ALIAS]",
        ),
        (
            {"e": ("norm", "cls")},
            (),
            {"": cached() + cached(("cls",), recipe="other")},
            SelectionError,
            "different recipes mixed",
        ),
        (
            {"e": ("a:norm",)},
            ("a",),
            {"a": cached() + cached(pool="cls")},
            SelectionError,
            "[experiments] e: encoder 'a' has features of several poolings (cls, tokens); name pool in [encoders.a]",
        ),
        (
            {"e": ("norm",)},
            (),
            {"": cached() + cached(dtype="fp32")},
            SelectionError,
            "several storage dtypes (bf16, fp32); name store_dtype in [encoders.ALIAS]",
        ),
    ],
)
def test_what_names_no_layers_or_too_many_kinds_is_refused(
    experiments: Any, aliases: Any, candidates: Any, kind: type[UsageError], said: str
) -> None:
    with pytest.raises(kind) as error:
        choose_layers(config(experiments, *aliases), candidates)
    assert said in str(error.value)


def test_experiments_of_different_recipes_are_fine_as_long_as_none_mixes_them() -> None:
    candidates = {"": cached() + cached(("pixels",), recipe="pixels")}
    sets = choose_layers(config({"net": ("blocks.*",), "pixels": ("pixels",)}), candidates)
    assert sets.layers["pixels"].feature.recipe == "pixels"


def test_random_layers_are_subsets_of_that_size_each_as_likely_as_any() -> None:
    names = list("dacbe")
    drawn = [random_layers(names, 2, seed) for seed in range(10)]
    assert sorted(drawn) == list(itertools.combinations("abcde", 2))  # few subsets: each once before any again
    assert [random_layers(sorted(names), 2, seed) for seed in range(10)] == drawn
    assert drawn != sorted(drawn)
    many = Counter(layer for seed in range(300) for layer in random_layers([f"b{n}" for n in range(40)], 10, seed))
    assert len({random_layers([f"b{n}" for n in range(40)], 10, seed) for seed in range(300)}) == 300
    assert 40 < min(many.values()) <= max(many.values()) < 115  # 75 each, give or take four standard deviations


def sets_of(**options: Any) -> tuple[AblationConfig, LayerSets]:
    chosen = config({"all": ("**",), "low": ("blocks.?",)}, seeds=(0, 1), **options)
    return chosen, choose_layers(chosen, {"": cached()})


def test_each_experiment_and_layer_has_its_controls() -> None:
    cells = list(grid(*sets_of()))
    counts = Counter((cell.experiment, cell.control) for cell in cells)
    assert len(cells) == len(set(cells))
    assert set(counts.values()) == {2}
    assert {control for experiment, control in counts if experiment == "all"} == {NO_CONTROL, SHUFFLED_LABELS}
    assert {control for experiment, control in counts if experiment == "norm"} == {NO_CONTROL, SHUFFLED_LABELS}
    random = [cell for cell in cells if (cell.experiment, cell.control) == ("low", RANDOM_LAYERS)]
    assert [len(cell.layers) for cell in random] == [3, 3]
    assert random[0].layers != random[1].layers
    assert all(set(cell.layers) < set(VIT) for cell in random)


def test_what_is_switched_off_is_not_run() -> None:
    off = ControlChoice(shuffled_labels=False, random_layers=False)
    cells = list(grid(*sets_of(controls=off, single_layers=False)))
    assert {(cell.experiment, cell.control) for cell in cells} == {("all", NO_CONTROL), ("low", NO_CONTROL)}


def test_an_experiment_named_like_its_one_layer_is_that_row() -> None:
    chosen = config({"norm": ("norm",), "low": ("blocks.?",)}, seeds=(0,))
    cells = list(grid(chosen, choose_layers(chosen, {"": cached()})))
    assert len([cell for cell in cells if (cell.experiment, cell.control) == ("norm", NO_CONTROL)]) == 1
