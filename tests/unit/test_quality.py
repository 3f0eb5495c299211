"""`fovbench quality` on caches that the tests make: numbers, twins, verdicts, what is refused, and what is written."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fovcache
from fovcache.bench.cli import app
from fovcache.cli import app as cache_app
from fovcache.console import run_command
from fovcache.errors import LayerError, SelectionError, UsageError
from fovcache.probes.quality.cka import cka
from fovcache.probes.quality.measure import measure
from fovcache.probes.quality.page import page, write_quality
from fovcache.probes.quality.request import MAX_SAMPLES, QualityRequest
from fovcache.probes.quality.result import (
    COLLAPSED,
    CONSTANT,
    LOW_RANK,
    NOT_SEEN,
    UNDECIDED,
    Numbers,
    Quality,
    read_quality,
)
from fovcache.probes.quality.run import run_quality
from fovcache.probes.quality.vectors import vectors
from fovcache.probes.quality.verdict import verdict

NUM = 60
ENCODER = """
import torch
from torch import nn

class Net(nn.Module):
    image_size = 16

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 4, 4)
        self.deep = nn.Conv2d(8, 5, 2, 2)
        self.still = nn.Identity()
        self.many = nn.Linear(20, 90)

    def forward(self, x):
        y = self.deep(torch.relu(self.wide(x)))
        self.still(torch.ones(len(x), 7))
        return self.many(nn.functional.adaptive_avg_pool2d(y, 2).flatten(1))

def make():
    torch.manual_seed(1)
    return Net()
"""
LAYERS = ("wide", "deep", "many", "still")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """A folder with a cache: `trained` of 60 images in two splits, its own weights and random ones, means and maps."""
    folder = tmp_path_factory.mktemp("quality")
    make_images(folder / "images", NUM)
    (folder / "enc.py").write_text(ENCODER)
    with (folder / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "split"])
        rows.writerows([f"images/{number:04d}.png", "train" if number < 40 else "test"] for number in range(NUM))
    for weights in (None, "random:0", "random:1"):
        build(folder, weights=weights)
    return folder


def build(folder: Path, source: str = "images.csv", dataset: str = "trained", **options: Any) -> None:
    asked = {"layers": LAYERS, "pool": "mean", "store_dtype": "fp32", "device": "cpu", **options}
    report = fovcache.open(folder / "cache").build(
        str(folder / source), encoder=f"{folder / 'enc.py'}:make", dataset=dataset, **asked
    )
    assert report.failed == 0


def look(folder: Path, **fields: Any) -> Quality:
    return run_quality(
        folder / "cache", QualityRequest(**{"dataset": "trained", "pool": "mean", "device": "cpu", **fields})
    )


@pytest.fixture(scope="module")
def whole(made: Path) -> Quality:
    return look(made)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`command(program, *arguments)` runs it; `(status, standard output, standard error)`."""

    def run(program: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_command(cache_app if program == "fovcache" else app)
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return run


def rows_of(folder: Path, layer: str, **asked: Any) -> torch.Tensor:
    asked = {"dataset": "trained", "pool": "mean", "store_dtype": "fp32", **asked}
    return fovcache.open(folder / "cache").features(layer=layer, **asked).tensors()[0]


def test_the_numbers_are_those_of_the_cached_rows_and_the_twin_stands_beside(made: Path, whole: Quality) -> None:
    assert [each.layer for each in whole.layers] == sorted(LAYERS)
    assert whole.twin_weights is not None
    assert whole.twin_weights.startswith("random:0 ")  # of two the first
    assert not whole.twin_advice
    for each in whole.layers:
        own, twin = (
            vectors(rows_of(made, each.layer, recipe=digest), "x") for digest in (whole.recipe, whole.twin_recipe)
        )
        assert each.numbers == measure(own, 2.0**-24)
        assert each.twin == measure(twin, 2.0**-24)
        assert each.numbers.num_vectors == NUM
        assert each.num_averaged == 1
        if each.layer != "still":
            assert each.cka_with_twin == pytest.approx(cka([own, twin], [(0, 1)])[0, 1])
    assert whole.num_samples == whole.num_available == whole.num_distinct == NUM
    assert whole.vectors == "one a sample: its row as it is"


def test_cka_is_between_all_layers(made: Path, whole: Quality) -> None:
    names = [each.layer for each in whole.layers]
    sets = [vectors(rows_of(made, name, recipe=whole.recipe), name) for name in names]
    for one, name in enumerate(names):
        for other, another in enumerate(names):
            value = whole.cka[one][other]
            if "still" in (name, another):
                assert value is None
            else:
                assert value == pytest.approx(cka(sets, [(one, other)])[min(one, other), max(one, other)])
        assert name == "still" or whole.cka[one][one] == 1


def test_verdicts_tell_of_n(whole: Quality) -> None:
    found = {each.layer: each for each in whole.layers}
    assert found["still"].verdict == CONSTANT
    assert found["wide"].verdict == NOT_SEEN
    assert found["many"].verdict == UNDECIDED  # 90 dimensions of 20 numbers
    assert "60 vectors bound every rank at 59, below the 90 dimensions" in found["many"].reason
    assert whole.verdicts == "1 constant; 1 undecided; 2 no collapse seen"
    assert [layers for layers, _, _ in whole.findings] == [("many",), ("still",)]


def numbers(rank: float, num: int = 1000, width: int = 100, **fields: Any) -> Numbers:
    chance = np.random.default_rng(0).standard_normal((num, 3))
    made = measure(vectors(torch.from_numpy(chance), "x"))
    fields = {"num_dimensions": width, "variance_rank": rank, "gaussian_variance_rank": 95.0, **fields}
    return replace(made, num_vectors=num, **fields)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (numbers(50), NOT_SEEN),
        (numbers(9), LOW_RANK),
        (numbers(1.4), COLLAPSED),
        (numbers(4, gaussian_variance_rank=950.0), COLLAPSED),
        (numbers(50, num_constant=99), NOT_SEEN),
        (numbers(50, num_constant=100), CONSTANT),
        (numbers(0), CONSTANT),
        (numbers(50, num=100), UNDECIDED),
        (numbers(9, num=100), LOW_RANK),
        (numbers(1.4, num=100), COLLAPSED),
        (numbers(1.4, num=19), UNDECIDED),
        (numbers(0, num=5), CONSTANT),
    ],
)
def test_the_verdicts_rule(made: Numbers, kind: str) -> None:
    found, reason = verdict(made)
    assert found == kind
    assert f"{made.num_vectors:,} vectors" in reason


def test_tokens_are_averaged_or_each_a_vector(made: Path, whole: Quality, tmp_path: Path) -> None:
    build(made, pool="tokens", layers=("wide", "deep"))
    maps = look(made, pool="tokens", encoder="enc.py:make")
    assert [(each.layer, each.num_averaged, each.row_shape) for each in maps.layers] == [
        ("deep", 4, (5, 2, 2)), ("wide", 16, (8, 4, 4)),
    ]  # fmt: skip
    assert "mean of its row's tokens" in maps.vectors
    means = {each.layer: each.numbers for each in whole.layers}
    for each in maps.layers:
        for name in ("rankme", "variance_rank", "mean_variance", "uniformity"):
            assert getattr(each.numbers, name) == pytest.approx(getattr(means[each.layer], name), rel=1e-4), name
    (deep,) = look(made, pool="tokens", each_token=True, layers=("deep",)).layers
    rows = rows_of(made, "deep", pool="tokens", recipe=maps.recipe)
    assert deep.numbers == measure(vectors(rows.flatten(2).mT.reshape(NUM * 4, 5), "x"), 2.0**-24)
    assert deep.num_averaged == 1
    assert look(made, pool="tokens", each_token=True, layers=("deep",), max_samples=40).num_samples == 10
    with pytest.raises(UsageError, match=r"other numbers of them a sample \(deep 4, wide 16\)"):
        look(made, pool="tokens", each_token=True)
    assert maps.twin_weights is None  # of maps there is none
    assert "--pool tokens" in maps.twin_advice


def test_samples_are_drawn_by_content_and_seed(made: Path, make_images: Callable[..., Path]) -> None:
    one, again, other = (look(made, max_samples=25, layers=("wide",), seed=seed) for seed in (0, 0, 1))
    assert one.layers == again.layers
    assert one.layers != other.layers
    assert (one.num_samples, one.num_available) == (25, NUM)
    assert "25 samples, drawn by content from 60 (seed 0" in page(one)
    # In another order, the same are drawn: what is measured is the same but for the order of sums.
    with (made / "images.csv").open() as file:
        head, *rows = file.readlines()
    (made / "turned.csv").write_text("".join([head, *reversed(rows)]))
    build(made, "turned.csv", "turned", weights=None)
    turned = look(made, dataset="turned", max_samples=25, layers=("wide",))
    assert turned.layers[0].numbers.rankme == pytest.approx(one.layers[0].numbers.rankme, rel=1e-9)


def test_a_split_is_looked_at_alone_and_copies_are_counted(made: Path) -> None:
    assert look(made, split="train", layers=("wide",)).num_samples == 40
    with (made / "images.csv").open() as file:
        head, *rows = file.readlines()
    (made / "twice.csv").write_text("".join([head, *rows, *rows[:7]]))
    build(made, "twice.csv", "twice", weights=None)
    twice = look(made, dataset="twice", layers=("wide",))
    assert (twice.num_samples, twice.num_distinct) == (67, 60)
    assert "7 of 67 samples are copies of others, which lowers every rank" in twice.warnings


def test_samples_without_a_layer_and_without_a_twin_are_told(made: Path, make_images: Callable[..., Path]) -> None:
    make_images(made / "more", 30, seed=5)
    (made / "half").mkdir()
    for path in sorted((made / "more").iterdir())[:10]:
        (made / "half" / path.name).write_bytes(path.read_bytes())
    build(made, "half", "half", weights="random:0")
    build(made, "half", "half", weights=None, layers=("wide",))
    build(made, "more", "few", weights=None, layers=("deep",))
    few = look(made, dataset="few")
    assert [each.layer for each in few.layers] == ["deep", "wide"]
    assert (few.num_samples, few.num_missing) == (10, 20)
    assert few.warnings == ("20 of 30 samples lack a layer and are left out everywhere",)
    assert few.twin_weights is not None  # the ten that have every layer have it
    alone = look(made, dataset="few", layers=("deep",))
    assert (alone.num_samples, alone.twin_weights) == (30, None)
    assert alone.warnings == ("the twin lacks some of these samples for 1 of 1 layers (deep), and is left out there",)
    assert alone.twin_advice.startswith("a twin with random weights would show")


def test_the_advice_builds_the_twin(
    made: Path, tmp_path: Path, command: Callable[..., Any], make_images: Callable[..., Path]
) -> None:
    make_images(tmp_path / "images", 24)
    (tmp_path / "enc.py").write_text(ENCODER)
    build(tmp_path, "images", "trained", weights=None, size=32, layers=("deep", "wide"))
    before = look(tmp_path)
    assert before.twin_weights is None
    assert all(each.twin is None for each in before.layers)
    program, *arguments = shlex.split(before.twin_advice.partition(": ")[2])
    status, _, said = command(program, *arguments, "--device", "cpu")
    assert status == 0, said
    after = look(tmp_path)
    assert after.twin_weights is not None
    assert all(each.twin is not None for each in after.layers)
    assert [each.numbers for each in after.layers] == [each.numbers for each in before.layers]


def test_random_weights_asked_for_are_looked_at_themselves(made: Path, whole: Quality) -> None:
    for weights in ("random:0", "random:1"):
        random = look(made, weights=weights)
        assert random.weights.startswith(weights)
        assert random.twin_weights is None
        assert not random.twin_advice
    assert [each.numbers for each in look(made, weights="random:0").layers] == [each.twin for each in whole.layers]


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"layers": ("wid",)}, LayerError, "no layer matches 'wid'; nearest: wide"),
        (
            {"encoder": "vit-tiny"},
            SelectionError,
            "no feature of dataset 'trained' has encoder 'vit-tiny', pool 'mean'; there are:",
        ),
        ({"dataset": "trainde"}, SelectionError, "no dataset 'trainde'; nearest: trained"),
        ({"split": "tst"}, SelectionError, "has no split 'tst'; nearest: test"),
        ({"max_samples": 2}, UsageError, "--max-samples 2 is too few, expected at least 3"),
        ({"seed": -1}, UsageError, "--seed -1, expected a whole number"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is unknown"),
    ],
)
def test_what_cannot_be_done_is_said(made: Path, fields: Any, kind: type[UsageError], said: str) -> None:
    with pytest.raises(kind) as error:
        look(made, **fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_features_of_two_kinds_are_not_mixed(made: Path, tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", 5)
    (tmp_path / "enc.py").write_text(ENCODER)
    build(tmp_path, "images", layers=("wide",))
    build(tmp_path, "images", layers=("wide",), size=32)
    build(tmp_path, "images", layers=("wide",), store_dtype="bf16")
    with pytest.raises(SelectionError) as error:
        look(tmp_path)
    assert "features of 3 kinds of dataset 'trained' would be mixed" in str(error.value)
    assert "They differ in input.clip.size" in str(error.value)
    assert "dtype: name --encoder, --weights, --pool, --store-dtype or --recipe" in str(error.value)
    assert look(tmp_path, store_dtype="bf16").num_samples == 5


def test_two_samples_say_nothing(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "images", 2)
    (tmp_path / "enc.py").write_text(ENCODER)
    build(tmp_path, "images", layers=("wide",))
    with pytest.raises(UsageError, match="layer wide: 2 vectors say nothing of how features are spread"):
        look(tmp_path)


def test_layers_that_do_not_fit_into_memory_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fovcache.probes.quality.run._SHARE", 1e-6)
    with pytest.raises(UsageError, match=r"take fewer samples \(--max-samples\) or layers \(--layers\)"):
        look(made)


def test_what_is_written_is_what_is_returned(whole: Quality, tmp_path: Path) -> None:
    write_quality(whole, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["quality.json", "quality.md"]
    assert read_quality(tmp_path / "out" / "quality.json") == whole
    text = (tmp_path / "out" / "quality.md").read_text()
    for each in whole.layers:
        assert f"| {each.layer} | {each.verdict} | {NUM} | {each.numbers.num_dimensions} |" in text
        assert f"| twin of {each.layer} |" in text
    for name, definition in whole.definitions.items():
        assert f"- {name}: {definition[:20]}" in text


@pytest.mark.parametrize(
    "change",
    [{"format": "fovbench quality 0"}, {"cka": [[1.0]]}, {"layers": 3}, {"num_samples": "60"}, {"unknown": 1}],
)
def test_what_is_no_result_is_not_read(whole: Quality, tmp_path: Path, change: Any) -> None:
    (tmp_path / "quality.json").write_text(json.dumps({**whole.document(), **change}))
    with pytest.raises(UsageError, match="is not what `fovbench quality` writes"):
        read_quality(tmp_path / "quality.json")


def test_the_command_prints_writes_and_refuses(made: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    arguments = (made / "cache", "--dataset", "trained", "--pool", "mean", "--device", "cpu")
    status, printed, _ = command("fovbench", "quality", *arguments, "--layers", "wide,deep", "--out", tmp_path / "out")
    assert status == 0
    lines = [line.split() for line in printed.splitlines()]
    assert ["wide", "no", "collapse", "seen", "60", "8"] in [line[:6] for line in lines]
    assert ["twin", "of", "wide", "60", "8"] in [line[:5] for line in lines]
    assert "Debiased CKA between layers" in printed
    written = read_quality(tmp_path / "out" / "quality.json")
    assert [each.layer for each in written.layers] == ["deep", "wide"]
    status, printed, _ = command("fovbench", "quality", *arguments, "--json", "-")
    document = json.loads(printed)
    assert (status, document["format"], len(document["layers"])) == (0, "fovbench quality 1", 4)
    status, printed, said = command("fovbench", "quality", *arguments, "--layers", "none*")
    assert (status, printed) == (2, "")
    assert said == "error: no layer matches 'none*'; there are: deep, many, still, wide\n"
    (tmp_path / "file").write_text("")
    status, _, said = command("fovbench", "quality", *arguments, "--out", tmp_path / "file")
    assert status == 2
    assert "is a file, expected a folder" in said
    _, printed, _ = command("fovbench", "quality", "--help")
    assert f"[default: {MAX_SAMPLES}]" in printed
