"""Ablations that cannot be run as asked, or of which a part fails: what is said, and what is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from signal_cache import CLASSES, build_signal_cache, write_images

import fovcache
from fovcache.errors import SelectionError, SplitError, UsageError
from fovcache.probes.config import AblationConfig, ControlChoice, EncoderChoice, RepresentationChoice, SplitChoice
from fovcache.probes.heads.problem import Problem
from fovcache.probes.result import Ablation, read_ablation
from fovcache.probes.run import run_ablation


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`build(**columns)`: the folder of a cache of 60 samples whose manifest has these columns."""

    def build(**columns: Any) -> Path:
        folder = tmp_path_factory.mktemp("made")
        build_signal_cache(folder, write_images(folder / "images", 60, **columns))
        return folder

    return build


def few(folder: Path, out: Path, **fields: Any) -> Ablation:
    """Two trials."""
    small = {
        "experiments": {"shown": ("signal",)},
        "representations": (RepresentationChoice(name="simple_stats"),),
        "single_layers": False,
        "controls": ControlChoice(shuffled_labels=False, random_layers=False),
        "seeds": (0, 1),
    }
    return run_ablation(AblationConfig(name="made", cache="cache", folder=folder, **{**small, **fields}), out)


@pytest.mark.parametrize(
    ("columns", "fields", "kind", "said"),
    [
        ({"label": ""}, {}, UsageError, "samples of dataset 'made' have no labels"),
        ({"label": lambda n: "cat" if n else ""}, {}, SelectionError, "1 of 60 samples have no label"),
        ({"label": "cat"}, {}, SplitError, "all 60 samples are of one class, 'cat'"),
        ({"label": lambda n: f"class {n}"}, {}, SplitError, "(60 classes have too few)"),
        (
            {"label": lambda n: CLASSES[n < 20], "split": lambda n: "test" if n >= 40 else "train"},
            {},
            SplitError,
            "'dog'",
        ),
        ({}, {"dataset": "mad"}, SelectionError, "the cache has no dataset 'mad'; nearest: made"),
        ({}, {"experiments": {"e": ("sgnal",)}}, UsageError, "no layer matches 'sgnal'; nearest: signal"),
        (
            {},
            {"encoders": {"a": EncoderChoice(encoder="vit-tiny")}},
            SelectionError,
            "[encoders.a]: no feature of dataset 'made' has encoder = 'vit-tiny'; there are: enc.py:make",
        ),
        ({}, {"split": SplitChoice(group=True)}, SplitError, "none names a group"),
        ({}, {"split": SplitChoice(kind="given")}, SplitError, "test"),
        ({}, {"device": "tpu"}, UsageError, "device 'tpu' is unknown"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(
    build: Callable[..., Path], tmp_path: Path, columns: Any, fields: Any, kind: type[UsageError], said: str
) -> None:
    with pytest.raises(kind) as error:
        few(build(**columns), tmp_path / "out", **fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_layers_of_two_recipes_need_a_name_each(build: Callable[..., Path], tmp_path: Path) -> None:
    folder = build()
    build_signal_cache(folder, folder / "images.csv", size=16)
    with pytest.raises(SelectionError, match="features of different recipes mixed") as error:
        few(folder, tmp_path / "out")
    assert "input.clip.size" in str(error.value)
    small, large = (
        fovcache.open(folder / "cache").features(layer="signal", recipe=recipe)
        for recipe in sorted(re.findall(r"enc\.py:make ([0-9a-f]{8})", str(error.value)))
    )
    encoders = {
        "one": EncoderChoice(recipe=small.feature.recipe[:8]),
        "two": EncoderChoice(recipe=large.feature.recipe),
    }
    ablation = few(folder, tmp_path / "out", encoders=encoders, experiments={"e": ("one:signal", "two:signal")})
    assert {(each.encoder, each.feature) for each in ablation.features} == {
        ("one", small.feature.digest),
        ("two", large.feature.digest),
    }


def test_too_many_numbers_for_the_memory_are_refused_with_their_bytes(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    folder = build()

    class Memory:
        available = 200_000  # bytes

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(UsageError, match=r"flat_vec of shown has 768 numbers for each of 60 samples, .* MiB") as error:
        few(folder, tmp_path / "out", representations=(RepresentationChoice(name="flat_vec"),))
    assert "take fewer layers" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_cell_that_raises_is_told_and_the_others_go_on(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fovcache.probes.heads.ridge import RidgeHead

    folder = build()
    real = RidgeHead.fit

    def fit(self: RidgeHead, problems: Sequence[Problem]) -> Any:
        if problems[0].x_train_ND.shape[1] > 5:
            raise ZeroDivisionError("no\nluck")
        return real(self, problems)

    experiments = {"all": ("**",), "shown": ("signal",)}
    monkeypatch.setattr(RidgeHead, "fit", fit)
    ablation = few(folder, tmp_path / "out", experiments=experiments)
    assert [(each.experiment, each.seed, each.reason) for each in ablation.failures] == [
        ("all", 0, "ZeroDivisionError: no luck"),
        ("all", 1, "ZeroDivisionError: no luck"),
    ]
    assert ablation.exit_status == 1
    assert [trial.experiment for trial in ablation.trials] == ["shown", "shown"]
    assert read_ablation(tmp_path / "out" / "ablation.json") == ablation
    monkeypatch.setattr(RidgeHead, "fit", real)
    again = few(folder, tmp_path / "out", experiments=experiments)
    assert (again.exit_status, len(again.trials)) == (0, 4)
    assert again.trials[2:] == ablation.trials
