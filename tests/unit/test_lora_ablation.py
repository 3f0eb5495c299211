"""From LoRA files to an ablation: ranks, layers by glob, representations, and numbers of ΔW."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_files import lora_bytes, made_lora, write_classes

import fovcache
from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.errors import SelectionError
from fovcache.extract.extractor import resolve_extractor
from fovcache.extract.layers import select_layers
from fovcache.maintain.estimate import estimate
from fovcache.probes.config import read_config
from fovcache.probes.result import NO_CONTROL
from fovcache.probes.run import run_ablation

CONFIG = """
cache = "cache"
seeds = 2
single_layers = false
representations = [{representations}]
[experiments]
{experiments}
[split]
kind = "resplit"
test = 0.3
validation = 0.2
[controls]
random_layers = false
"""


@pytest.fixture(scope="module")
def documented(root: Path) -> str:
    """The experiments of docs/loras.md."""
    (example,) = re.findall(r"```toml\n(.*?)```", (root / "docs" / "loras.md").read_text(), re.DOTALL)
    return str(example).partition("[experiments]\n")[2]


def build(folder: Path, *layers: str) -> fovcache.Cache:
    cache = fovcache.open(folder / "cache")
    cache.build(str(folder / "loras"), encoder="lora-sd15", layers=layers, store_dtype="fp32")
    return cache


def ablate(folder: Path, experiments: str, *representations: str) -> dict[tuple[str, str], float]:
    """Mean test accuracy by representation and experiment."""
    path = folder / "config.toml"
    quoted = ", ".join(f'"{name}"' for name in representations)
    path.write_text(CONFIG.format(representations=quoted, experiments=experiments))
    ablation = run_ablation(read_config(path), folder / "out")
    assert not ablation.failures
    return {
        (each.representation, each.experiment): each.mean for each in ablation.estimates if each.control == NO_CONTROL
    }


def test_the_documented_experiments_take_all_and_what_reads_images_and_what_reads_text(documented: str) -> None:
    layers = resolve_extractor("lora-sd15").default_layers()
    taken = {name: set(select_layers(globs, layers)) for name, globs in tomllib.loads(documented).items()}
    assert {name: len(names) for name, names in taken.items()} == {"all": 128, "visual": 112, "text": 16}
    assert taken["visual"] | taken["text"] == taken["all"]


def test_classes_that_differ_in_attn1_are_told_apart_by_it(tmp_path: Path, documented: str) -> None:
    write_classes(tmp_path / "loras", 60)
    cache = build(tmp_path, "mid_block.**.weight")
    features = cache.features(layer="mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora.down.weight")
    assert features.shape == (60, 1, 768)
    assert features.classes == ("bird", "cat")
    found = ablate(tmp_path, documented, "simple_stats", "matrix_norms")
    for name in ("simple_stats", "matrix_norms"):
        assert min(found[name, "all"], found[name, "visual"]) > 0.9
        assert found[name, "text"] < 0.8


def test_files_of_several_ranks_are_refused_as_matrices_and_compared_by_their_delta(tmp_path: Path) -> None:
    for rank, num in ((1, 24), (4, 20)):
        write_classes(tmp_path / "loras", num, rank, prefix=f"r{rank}-")
    request = EncoderRequest(encoder="lora-sd15", store_dtype="fp32")
    expected = estimate([str(tmp_path / "loras")], request, BuildOptions(device="cpu", num_workers=1))
    assert expected.row_bytes == 4 * 99_648 * (24 + 20 * 4) // 44
    build(tmp_path, "mid_block.**")
    said = r"have 2 ranks: 24 of rank 1, 20 of rank 4;.* dataset of each rank, or take the layers \*\*\.delta"
    for layers in ("**.lora.down.weight", "**.lora.up.weight"):
        with pytest.raises(SelectionError, match=said):
            ablate(tmp_path, f'all = ["{layers}"]', "simple_stats")
    found = ablate(tmp_path, 'delta = ["**.delta"]', "flat_vec")
    assert list(found) == [("flat_vec", "delta")]


def test_the_same_lora_in_two_gauges_and_styles_has_the_same_delta(tmp_path: Path) -> None:
    lora = made_lora(4)
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double()
    other = {
        module: ((up.double() @ mixing).float(), torch.linalg.solve(mixing, down.double()).float())
        for module, (up, down) in lora.items()
    }
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").write_bytes(lora_bytes(lora))
    (tmp_path / "loras" / "b.safetensors").write_bytes(lora_bytes(other, "kohya", alpha=4.0))
    (tmp_path / "loras" / "c.safetensors").write_bytes(lora_bytes(lora, "PEFT"))
    cache = build(tmp_path, "mid_block.**")
    for module in ("attn1.to_q", "attn2.to_v"):
        layer = f"mid_block.attentions.0.transformer_blocks.0.{module}"
        x, _ = cache.features(layer=f"{layer}.delta").tensors()
        torch.testing.assert_close(x[0], x[1], rtol=1e-5, atol=1e-5 * float(x.abs().max()))
        assert torch.equal(x[0], x[2])
        factors, _ = cache.features(layer=f"{layer}.lora.up.weight").tensors()
        assert not torch.allclose(factors[0], factors[1], rtol=0.1)


def test_a_factor_is_tokens_by_channels_and_a_delta_one_token(tmp_path: Path) -> None:
    write_classes(tmp_path / "loras", 4, rank=3)
    cache = build(tmp_path, "mid_block.**")
    module = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    factor, delta = (cache.features(layer=f"{module}.{name}") for name in ("lora.down.weight", "delta"))
    norms, _ = cache.derive(factor, "matrix_norms").tensors()
    rows, _ = factor.tensors()
    torch.testing.assert_close(norms[:, 2], torch.linalg.svdvals(rows)[:, 0], rtol=1e-4, atol=0)
    assert cache.derive(delta, "simple_stats").row_shape == (5,)


def test_a_bad_file_is_a_failure_that_says_why_and_the_others_have_rows(tmp_path: Path) -> None:
    write_classes(tmp_path / "loras", 4)
    lora = dict(made_lora(1))
    lora.popitem()
    (tmp_path / "loras" / "cat" / "short.safetensors").write_bytes(lora_bytes(lora))
    cache = fovcache.open(tmp_path / "cache")
    options = {"encoder": "lora-sd15", "layers": ["mid_block.**"], "store_dtype": "fp32"}
    report = cache.build(str(tmp_path / "loras"), **options)
    assert (report.computed, report.failed) == (4, 1)
    assert report.failures[0].uri == "cat/short.safetensors"
    assert "2 matrices are missing" in report.failures[0].reason
    again = cache.build(str(tmp_path / "loras"), **options)
    assert (again.computed, again.reused, again.failed) == (0, 4, 1)


def test_one_pooling_for_one_encoder_holds_also_where_it_has_its_own(tmp_path: Path) -> None:
    write_classes(tmp_path / "loras", 2, rank=3)
    cache = fovcache.open(tmp_path / "cache")
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight"
    for pool in (None, "mean"):
        cache.build(str(tmp_path / "loras"), encoder="lora-sd15", layers=[layer], store_dtype="fp32", pool=pool)
    tokens, mean = (cache.features(pool=pool).tensors()[0] for pool in ("tokens", "mean"))
    np.testing.assert_allclose(mean, tokens.mean(1), rtol=1e-6)
    assert EncoderRequest(encoder="lora-sd15").resolve()[0].each[0].features[0].pool == "tokens"
