"""Made LoRAs are what they say: shapes, knobs, gauges, variants, and files that tools can read."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fovcache.bench.made_loras.__main__ import main
from fovcache.bench.made_loras.files import STYLES, write_loras
from fovcache.bench.made_loras.gauge import GAUGES, INVERTIBLE, NONE, ORTHOGONAL
from fovcache.bench.made_loras.population import CLASSES, TEXT_DOWN, UP_SCALE, LoraPopulation
from fovcache.errors import UsageError
from fovcache.models.lora_shapes import factor_shapes

BLOCKS = ("mid_block.attentions.0.transformer_blocks.0", "up_blocks.3.attentions.2.transformer_blocks.0")


def small(**fields: Any) -> LoraPopulation:
    return LoraPopulation(**{"blocks": BLOCKS, "narrowing": 16, **fields})


def products(factors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    modules = [name.removesuffix(".down.weight") for name in factors if name.endswith(".down.weight")]
    return {
        module: factors[f"{module}.up.weight"].astype(np.float64) @ factors[f"{module}.down.weight"]
        for module in modules
    }


def class_means(population: LoraPopulation, num: int) -> dict[str, np.ndarray]:
    """Of each matrix, [classes, *shape]."""
    labels = population.labels(num)
    return {
        name: np.stack([factor[labels == label].mean(0) for label in range(len(population.classes))])
        for name, factor in population.draw(num).items()
    }


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_there_are_128_matrices_of_a_known_number_of_scalars(rank: int) -> None:
    factors = LoraPopulation(rank=rank).draw(1)
    assert {name: factor.shape[1:] for name, factor in factors.items()} == factor_shapes(rank)
    assert len(factors) == 128
    sizes = {name: factor.size for name, factor in factors.items()}
    assert sum(sizes.values()) == 99_648 * rank
    assert sum(size for name, size in sizes.items() if ".attn1." in name) == 49_920 * rank
    assert sum(size for name, size in sizes.items() if ".attn2." in name) == 49_728 * rank
    assert {factor.dtype for factor in factors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rank", [1, 4])
def test_down_is_as_initialised_and_up_at_the_scale_of_adam(rank: int) -> None:
    for name, factor in LoraPopulation(rank=rank, gain_sd=0.0).draw(3).items():
        deviation = float(factor.std())
        assert deviation == pytest.approx(UP_SCALE if name.endswith("up.weight") else 1 / rank, rel=0.12), name
        if name.endswith("up.weight"):
            assert np.mean(np.abs(factor) < 0.02) > 0.99


def test_a_sample_is_the_same_whoever_asks_for_it() -> None:
    for population in (
        small(gauge=INVERTIBLE, rank=3, group_size=3, group_effect=0.5),
        small(gauge=ORTHOGONAL, group_size=2, duplicated=True),
        small(constant_norm=True, shuffled_labels=True),
    ):
        whole, part = population.draw(12), population.draw(2, start=7)
        assert all((whole[name][7:9] == part[name]).all() for name in whole)
        assert (population.labels(12)[7:9] == population.labels(2, 7)).all()
        assert (population.groups(12) or [])[7:9] == (population.groups(2, 7) or [])
        other = replace(population, seed=1).draw(1)
        assert not any(np.array_equal(whole[name][:1], other[name]) for name in whole)


@pytest.mark.parametrize(
    ("knob", "told"),
    [
        ("attn1_signal", lambda name: ".attn1." in name and name.endswith("up.weight")),
        ("attn2_signal", lambda name: ".attn2." in name and name.endswith("up.weight")),
        ("text_signal", lambda name: name.endswith(TEXT_DOWN)),
    ],
)
def test_a_signal_is_in_its_matrices_and_nowhere_else(knob: str, told: Any) -> None:
    num = 600
    population = small(gain_sd=0.0, **{knob: 2.0})
    labels = population.labels(num)
    for name, factor in population.draw(num).items():
        values = factor.reshape(num, -1).astype(np.float64)
        between = np.stack([values[labels == label].mean(0) for label in range(10)]).var(0, ddof=1).mean()
        within = np.mean([values[labels == label].var(0, ddof=1).mean() for label in range(10)])
        ratio = between * (num / 10) / within  # analysis of variance: 1 where classes are alike
        assert ratio > 10 if told(name) else 0.5 < ratio < 1.6, name


def test_directions_are_of_the_population_and_grow_with_the_knob() -> None:
    ups = {
        signal: class_means(small(gain_sd=0.0, noise=0.0, attn1_signal=signal), 10)[
            f"{BLOCKS[0]}.attn1.to_q.lora.up.weight"
        ]
        for signal in (0.5, 1.0)
    }
    assert np.allclose(2 * ups[0.5], ups[1.0], rtol=1e-5)
    sizes = [np.sqrt(np.mean(np.square(of_class))) / UP_SCALE for of_class in ups[1.0]]
    assert 0.5 < np.median(sizes) < 2
    assert len(np.unique(np.round(sizes, 3))) == 10  # what a class is shows in norms too


def test_groups_share_a_direction_and_a_label() -> None:
    population = small(group_size=4, group_effect=1.0, noise=0.1, gain_sd=0.0)
    up = population.draw(40)[f"{BLOCKS[0]}.attn1.to_q.lora.up.weight"].reshape(40, -1)
    near = np.corrcoef(up)
    groups = population.groups(40)
    assert groups is not None
    is_same = np.equal.outer(np.array(groups), np.array(groups))
    assert near[is_same].min() > 0.8
    assert np.abs(near[~is_same]).max() < 0.6
    assert [
        len({label for label, each in zip(population.labels(40), groups, strict=True) if each == group})
        for group in dict.fromkeys(groups)
    ] == [1] * 10


def test_gains_multiply_what_training_moved() -> None:
    population = small(attn1_signal=0.5, gain_sd=0.4)
    plain, gained = replace(population, gain_sd=0.0).draw(200), population.draw(200)
    name = f"{BLOCKS[0]}.attn2.to_q.lora.up.weight"
    gains = gained[name] / plain[name]
    assert np.allclose(gains, gains[:, :1], rtol=1e-4)
    assert np.log(gains[:, 0, 0]).std() == pytest.approx(0.4, rel=0.2)
    other = f"{BLOCKS[1]}.attn1.to_v.lora.up.weight"
    assert np.allclose(gained[other] / plain[other], gains[:, :1], rtol=1e-3)  # one for all of a sample's matrices


@settings(max_examples=15)
@given(rank=st.integers(1, 6), gauge=st.sampled_from([ORTHOGONAL, INVERTIBLE]), seed=st.integers(0, 2**40))
def test_no_gauge_changes_delta_w(rank: int, gauge: str, seed: int) -> None:
    population = small(rank=rank, seed=seed, attn1_signal=1.0, text_signal=1.0)
    plain, turned = population.draw(3), replace(population, gauge=gauge).draw(3)
    turned_products = products(turned)
    for module, product in products(plain).items():
        assert np.abs(turned_products[module] - product).max() < 2e-5 * np.abs(product).max()
    for name, factor in plain.items():
        norms = np.linalg.norm(factor, axis=(1, 2)), np.linalg.norm(turned[name], axis=(1, 2))
        assert np.allclose(*norms, rtol=1e-5) == (gauge == ORTHOGONAL)
    if rank > 1:
        assert not np.allclose(
            np.abs(plain[f"{BLOCKS[0]}.attn1.to_q.lora.down.weight"]),
            np.abs(turned[f"{BLOCKS[0]}.attn1.to_q.lora.down.weight"]),
            rtol=1e-3,
        )


def test_signs_at_rank_1_are_joint_and_even() -> None:
    plain, turned = small().draw(100), small(gauge=ORTHOGONAL).draw(100)
    signs = {name: np.sign(turned[name] * plain[name]) for name in plain}
    flips = []
    for name, sign in signs.items():
        assert (sign == sign[:, :1, :1]).all()
        flips.append(sign[:, 0, 0])
        if name.endswith("down.weight"):
            assert (sign[:, 0, 0] == signs[name.replace(".down.", ".up.")][:, 0, 0]).all()
    assert abs(np.mean(flips)) < 0.15


def test_duplicates_are_one_lora_in_other_bytes() -> None:
    population = small(group_size=3, duplicated=True, gauge=INVERTIBLE, group_effect=0.5, attn1_signal=1.0, rank=2)
    factors = population.draw(6)
    for product in products(factors).values():
        assert np.allclose(product[0], product[1:3], rtol=1e-3, atol=1e-6)
        assert not np.allclose(product[0], product[3], rtol=0.1)
    name = next(iter(factors))
    assert len({factors[name][number].tobytes() for number in range(6)}) == 6


def test_shuffled_labels_say_nothing_and_groups_keep_one() -> None:
    population = small(shuffled_labels=True, group_size=2, attn1_signal=3.0, gain_sd=0.0)
    honest = replace(population, shuffled_labels=False)
    name = f"{BLOCKS[0]}.attn1.to_q.lora.up.weight"
    directions = replace(honest, noise=0.0).draw(20)[name].reshape(20, -1)[::2]  # one of each class
    drawn = np.argmin(
        [[np.linalg.norm(up - of) for of in directions] for up in population.draw(400)[name].reshape(400, -1)], 1
    )
    assert (drawn[::2] == drawn[1::2]).all()
    assert np.bincount(drawn[::2], minlength=10).min() > 5
    assert 0.02 < np.mean(drawn[::2] == population.labels(400)[::2]) < 0.2
    assert (population.labels(400) == honest.labels(400)).all()


def test_constant_norms_are_constant() -> None:
    for rank in (1, 4):
        population = small(
            rank=rank, constant_norm=True, attn1_signal=1.0, text_signal=1.0, gauge=ORTHOGONAL, gain_sd=0.5
        )
        for name, factor in population.draw(20).items():
            norms = np.linalg.norm(factor.astype(np.float64), axis=(1, 2))
            assert np.ptp(norms) < 1e-6 * norms[0], name
        free = replace(population, constant_norm=False).draw(20)
        assert np.ptp(np.linalg.norm(free[name], axis=(1, 2))) > 0.1 * np.linalg.norm(free[name][0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"attn1_signal": -0.1}, "attn1_signal is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"classes": ("cat",)}, "two or more names"),
        ({"gauge": "orthogonale"}, "nearest: orthogonal"),
        ({"blocks": ("mid_block",)}, "there is no block 'mid_block'"),
        ({"narrowing": 3}, "narrowing is 3, expected one of 1, 2, 4"),
        ({"group_size": 4, "duplicated": True}, "choose at least 2, and orthogonal"),
        ({"constant_norm": True, "gauge": INVERTIBLE}, "constant_norm cannot be kept"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        small(**fields)


@pytest.mark.parametrize(
    ("style", "down", "up"),
    [
        ("diffusers", "unet.{dots}.lora.down.weight", "unet.{dots}.lora.up.weight"),
        ("peft", "base_model.model.{dots}.lora_A.weight", "base_model.model.{dots}.lora_B.weight"),
        ("kohya", "lora_unet_{lines}.lora_down.weight", "lora_unet_{lines}.lora_up.weight"),
    ],
)
def test_files_hold_the_factors_under_the_names_of_a_style(tmp_path: Path, style: str, down: str, up: str) -> None:
    population = small(rank=2, group_size=2)
    manifest = write_loras(population, tmp_path / "out", 25, style=style)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [CLASSES[number // 2 % 10] for number in range(25)]
    assert [row["group"] for row in rows] == population.groups(25)
    factors = population.draw(25)
    for number in (0, 24):
        row = rows[number]
        assert row["uri"] == f"{row['label']}/{number:06d}.safetensors"
        tensors = load_file(tmp_path / "out" / row["uri"])
        for name, factor in factors.items():
            module, part = name.removesuffix(".weight").rsplit(".lora.", 1)
            key = (down if part == "down" else up).format(dots=module, lines=module.replace(".", "_"))
            assert (tensors.pop(key) == factor[number]).all()
        assert set(tensors) == (
            {f"lora_unet_{module.replace('.', '_')}.alpha" for module in modules()} if style == "kohya" else set()
        )
        assert all(alpha == 2 for alpha in tensors.values())
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == 25


def modules() -> list[str]:
    return [
        f"{block}.{attention}.{part}"
        for block in BLOCKS
        for attention in ("attn1", "attn2")
        for part in ("to_q", "to_v")
    ]


def test_a_run_that_was_stopped_goes_on_and_other_files_are_left_alone(tmp_path: Path) -> None:
    population = small()
    out = tmp_path / "out"
    write_loras(population, out, 12)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*.safetensors")}
    for number in (3, 4, 9):
        next(out.rglob(f"{number:06d}.safetensors")).unlink()
    write_loras(population, out, 12)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == {
        path: data for path, (data, _) in before.items()
    }
    assert sum(path.stat().st_mtime_ns == then for path, (_, then) in before.items()) == 9
    with pytest.raises(UsageError, match="other made LoRAs"):
        write_loras(replace(population, seed=1), out, 12)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        write_loras(population, tmp_path, 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "out"]


def test_the_command_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = "--samples 3 --rank 2 --gauge invertible --signal attn1=0.3 --signal attn2.to_v.down=0.1 --style peft"
    subprocess.run([sys.executable, "-m", "fovcache.bench.made_loras", out, *words.split()], check=True, timeout=60)
    made = json.loads((out / "made_loras.json").read_text())
    assert (made["rank"], made["attn1_signal"], made["attn2_signal"], made["text_signal"]) == (2, 0.3, 0.0, 0.1)
    assert len(load_file(out / "airplane" / "000000.safetensors")) == 128
    assert main([str(out), "--samples", "4"]) == 2
    assert "other made LoRAs" in capsys.readouterr().err
    for bad in ("attn3=1", "attn1", "attn1=x"):
        assert main([str(tmp_path / "new"), "--signal", bad]) == 2
        assert capsys.readouterr().err.startswith(f"error: --signal {bad}")
    assert not (tmp_path / "new").exists()


def test_every_gauge_and_style_has_a_name() -> None:
    assert GAUGES == (NONE, ORTHOGONAL, INVERTIBLE)
    assert tuple(STYLES) == ("diffusers", "peft", "kohya")


def test_a_cache_serves_what_was_drawn_in_every_style(tmp_path: Path) -> None:
    import torch

    import fovcache

    population = LoraPopulation(rank=2, gauge=INVERTIBLE)
    layer = f"{BLOCKS[0]}.{TEXT_DOWN}"
    cache = fovcache.open(tmp_path / "cache")
    for style in STYLES:
        manifest = write_loras(population, tmp_path / style, 3, style=style)
        cache.build(str(manifest), encoder="lora-sd15", layers=[layer], store_dtype="fp32", dataset=style)
        x, y = cache.features(dataset=style).tensors()
        assert torch.equal(x, torch.from_numpy(population.draw(3)[layer]))
        assert y.tolist() == [0, 1, 2]
