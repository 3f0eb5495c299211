"""Ablations of a cache whose truth is known: what is decodable, what is not, and what is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signal_cache import LAYERS, build_signal_cache, write_images

import fovcache
from fovcache.errors import UsageError
from fovcache.probes.config import AblationConfig, ControlChoice, HeadChoice, RepresentationChoice, SplitChoice
from fovcache.probes.heads.ridge import RidgeHead
from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS, SHUFFLED_LABELS, Ablation, read_ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.running.result_folder import read_predictions

NO_CONTROLS = ControlChoice(shuffled_labels=False, random_layers=False)
STATS = (RepresentationChoice(name="simple_stats"),)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache of 240 samples."""
    folder = tmp_path_factory.mktemp("made")
    assert build_signal_cache(folder, write_images(folder / "images", 240)).failed == 0
    return folder


def config(folder: Path, **fields: Any) -> AblationConfig:
    return AblationConfig(name="made", cache="cache", folder=folder, **{"representations": STATS, **fields})


@pytest.fixture(scope="module")
def whole(made: Path) -> tuple[Ablation, Path]:
    """An ablation with all controls, and where it is."""
    experiments = {"all": ("**",), "shown": ("signal",), "hidden": ("noise.*",)}
    representations = (*STATS, RepresentationChoice(name="spectral"))
    chosen = config(made, experiments=experiments, representations=representations, seeds=tuple(range(6)))
    return run_ablation(chosen, made / "out"), made / "out"


def test_signal_is_decoded_noise_is_not_and_controls_are_at_chance(whole: tuple[Ablation, Path]) -> None:
    ablation, _ = whole
    for name in ("simple_stats", "spectral"):
        found = [each for each in ablation.estimates if each.representation == name]
        accuracy = {(each.experiment, each.control): each.mean for each in found}
        assert accuracy["shown", NO_CONTROL] > 0.85
        assert accuracy["all", NO_CONTROL] > 0.85
        for noise in ("hidden", *LAYERS[:3]):
            assert abs(accuracy[noise, NO_CONTROL] - 1 / 3) < 0.12
        for experiment in (*ablation.experiments, *LAYERS):
            assert abs(accuracy[experiment, SHUFFLED_LABELS] - 1 / 3) < 0.12
        # of three of the four layers, `signal` is among them in three draws of four; `hidden` never has it
        assert accuracy["hidden", RANDOM_LAYERS] > 0.6
        assert accuracy["shown", RANDOM_LAYERS] < 0.7
    assert {round(each.chance, 2) for each in ablation.estimates} == {0.33}


def test_every_cell_has_a_trial_a_line_and_its_predictions(whole: tuple[Ablation, Path]) -> None:
    ablation, out = whole
    rows = 2 * (3 + 4)  # experiments and layers, of two representations
    assert len(ablation.trials) == 6 * (2 * rows + 2 * 2)  # random layers beside `shown` and `hidden`
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == len(ablation.trials)
    assert {line["key"] for line in lines} == {trial.key for trial in ablation.trials}
    for trial in ablation.trials:
        stored = read_predictions(out, trial.key)
        assert len(set(stored["position"].tolist())) == trial.num_test
        assert (stored["label"] == stored["position"] % 3).all()
        assert (stored["prediction"] == stored["label"]).mean() == trial.test_accuracy


def test_random_layers_are_recorded_and_differ_from_seed_to_seed(whole: tuple[Ablation, Path]) -> None:
    ablation, _ = whole
    for experiment, size in (("shown", 1), ("hidden", 3)):
        random = [trial for trial in ablation.trials if trial.control == RANDOM_LAYERS]
        drawn = [trial.layers for trial in random if trial.experiment == experiment]
        assert {len(layers) for layers in drawn} == {size}
        assert len(set(drawn)) == 4  # all there are
    stats = [trial for trial in ablation.trials if trial.representation == "simple_stats"]
    assert all(trial.num_features == 5 * len(trial.layers) for trial in stats)


def test_what_is_written_is_what_is_returned(whole: tuple[Ablation, Path]) -> None:
    ablation, out = whole
    assert read_ablation(out / "ablation.json") == ablation
    page = (out / "ablation.md").read_text()
    found = ablation.estimate("spectral", "shown")
    assert found is not None
    assert found.ci95 is not None
    assert f"{found.mean:.3f} | {found.ci95[0]:.3f} to {found.ci95[1]:.3f}" in page
    for said in ("| noise.2 |", "random layers", "Nadeau", "p below 0.031"):
        assert said in page


def test_differences_are_paired_by_seed(whole: tuple[Ablation, Path]) -> None:
    ablation, _ = whole
    one = next(each for each in ablation.differences if (each.experiment, each.other) == ("hidden", "all"))
    accuracy = {
        (trial.experiment, trial.seed): trial.test_accuracy
        for trial in ablation.trials
        if (trial.representation, trial.control) == (one.representation, NO_CONTROL)
    }
    off = [accuracy["hidden", seed] - accuracy["all", seed] for seed in range(6)]
    assert one.mean == pytest.approx(np.mean(off))
    assert one.ci95 is not None
    assert one.ci95[0] < one.mean < one.ci95[1] < 0


def few(folder: Path, out: Path, **fields: Any) -> Ablation:
    small = {"experiments": {"shown": ("signal",)}, "single_layers": False, "controls": NO_CONTROLS, "seeds": (0, 1)}
    return run_ablation(config(folder, **{**small, **fields}), out)


def numbers(ablation: Ablation) -> Ablation:
    """An ablation without its times."""
    return replace(ablation, trials=tuple(replace(trial, seconds=0.0) for trial in ablation.trials))


def test_the_same_again_in_another_folder_with_another_cache_is_the_same(
    made: Path, whole: tuple[Ablation, Path], tmp_path: Path
) -> None:
    chosen = config(made, experiments={"all": ("**",), "shown": ("signal",)}, seeds=(1,))
    one = run_ablation(chosen, tmp_path / "one")
    build_signal_cache(tmp_path, write_images(tmp_path / "images", 240))
    two = run_ablation(replace(chosen, folder=tmp_path), tmp_path / "two")
    assert numbers(one) == numbers(two)
    before = {trial.key: trial.test_accuracy for trial in whole[0].trials}
    assert {trial.key: before[trial.key] for trial in one.trials if trial.control != RANDOM_LAYERS} == {
        trial.key: trial.test_accuracy for trial in one.trials if trial.control != RANDOM_LAYERS
    }


def test_a_changed_configuration_runs_only_what_is_new_and_tells_nothing_else(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    real = RidgeHead.fit
    monkeypatch.setattr(RidgeHead, "fit", lambda *given: (ran.append(1), real(*given))[1])
    out = tmp_path / "out"
    first = few(made, out, experiments={"shown": ("signal",), "old": ("noise.0",)})
    assert len(ran) == 4
    again = few(made, out, experiments={"renamed": ("signal",)}, seeds=(0, 1, 2))
    assert len(ran) == 5
    assert [trial.experiment for trial in again.trials] == ["renamed"] * 3
    assert [trial.test_accuracy for trial in again.trials[:2]] == [trial.test_accuracy for trial in first.trials[:2]]
    few(made, out, seeds=(0,), head=HeadChoice(settings={"strengths": [1.0]}))
    assert len(ran) == 6
    (out / "predictions" / f"{again.trials[0].key}.safetensors").unlink()
    few(made, out, seeds=(0,))
    assert len(ran) == 7  # figures are computed from predictions, so a trial without them is none


def test_pixels_of_digits_come_to_what_scikit_learn_says_of_them(tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    splits = np.array(["train", "train", "train", "val", "test"])[np.arange(600) % 5]
    pixels = np.round(digits.images[:600] * (255 / 16)).astype(np.uint8)
    (tmp_path / "digits").mkdir()
    rows = []
    for number, image in enumerate(pixels):
        name = f"digits/{number:03d}.png"
        Image.fromarray(np.kron(image, np.ones((4, 4), np.uint8))).save(tmp_path / name)
        rows.append((name, int(digits.target[number]), splits[number]))
    with (tmp_path / "digits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "label", "split"), *rows])
    fovcache.open(tmp_path / "cache").build(
        str(tmp_path / "digits.csv"), encoder="pixels", pool="tokens", store_dtype="fp32", dataset="digits"
    )
    flat = (RepresentationChoice(name="flat_vec"),)
    head = HeadChoice(kind="logistic", settings={"strengths": [1.0]})
    ablation = few(tmp_path, tmp_path / "out", experiments={}, representations=flat, seeds=(0,), head=head)
    x = StandardScaler().fit(flat_rgb(pixels)[splits == "train"]).transform(flat_rgb(pixels))
    y = digits.target[:600]
    model = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-8).fit(x[splits == "train"], y[splits == "train"])
    trial = ablation.trials[0]
    assert trial.validation_accuracy == pytest.approx(model.score(x[splits == "val"], y[splits == "val"]))
    assert (trial.num_train, trial.num_validation, trial.num_test) == (360, 120, 120)
    stored = read_predictions(tmp_path / "out", trial.key)
    assert (stored["position"] == np.flatnonzero(splits == "test")).all()
    assert (stored["prediction"] == model.predict(x[splits == "test"])).all()
    assert trial.num_features == 192
    assert trial.num_effective <= 64  # each of three colours says the same


def flat_rgb(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels.reshape(len(pixels), -1) / 255, 3, axis=1)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`build(**columns)`: the folder of a cache of 60 samples whose manifest has these columns."""

    def build(num: int = 60, **columns: Any) -> Path:
        folder = tmp_path_factory.mktemp("other")
        build_signal_cache(folder, write_images(folder / "images", num, **columns))
        return folder

    return build


def test_a_given_test_split_is_taken_and_its_intervals_are_of_its_items(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    folder = build(split=lambda number: "test" if number >= 42 else "train")
    ablation = few(folder, tmp_path / "out")
    assert ablation.protocol["split"]["kind"] == "given"
    assert {trial.num_test for trial in ablation.trials} == {18}
    assert "test items" in ablation.interval
    found = ablation.estimates[0]
    assert found.ci95 is not None
    assert found.ci95[0] < found.mean <= found.ci95[1]
    assert len({tuple(read_predictions(tmp_path / "out", trial.key)["position"]) for trial in ablation.trials}) == 1
    resplit = few(folder, tmp_path / "out", split=SplitChoice(kind="resplit"))
    assert resplit.protocol["split"]["kind"] == "resplit"
    with pytest.raises(UsageError, match=r"\[split\]: test = 0\.3 is not read, since the dataset has its own test"):
        few(folder, tmp_path / "out", split=SplitChoice(test=0.3))


def test_groups_stay_on_one_side_unless_told_otherwise(build: Callable[..., Path], tmp_path: Path) -> None:
    folder = build(group=lambda number: f"g{number // 6}")
    for group in (None, False):
        ablation = few(folder, tmp_path / "out", split=SplitChoice(group=group))
        assert ablation.protocol["num_groups"] == 10
        whole = [
            set(np.bincount(read_predictions(tmp_path / "out", trial.key)["position"] // 6).tolist()) <= {0, 6}
            for trial in ablation.trials
        ]
        assert all(whole) if group is None else not any(whole)


def test_samples_that_lack_a_layer_are_left_out_and_counted(tmp_path: Path) -> None:
    manifest = write_images(tmp_path / "images", 60)
    part = tmp_path / "part.csv"
    part.write_text("\n".join(manifest.read_text().splitlines()[:55]))
    build_signal_cache(tmp_path, manifest, layers=("signal",))
    build_signal_cache(tmp_path, part, layers=("noise.*",), dataset="part")
    experiments = {"all": ("**",), "shown": ("signal",)}
    ablation = few(tmp_path, tmp_path / "out", dataset="made", experiments=experiments)
    assert (ablation.num_samples, ablation.num_missing) == (54, 6)
    assert "6 of 60 samples of made lack a layer and are left out everywhere" in ablation.warnings
    assert few(tmp_path, tmp_path / "out", dataset="made").num_missing == 0
