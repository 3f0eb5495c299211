"""Reading LoRA files: every style gives the same rows, and what does not fit is refused by name."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lora_files import SMALL, STYLES, lora_bytes, made_lora, tensors_of, with_metadata
from safetensors.torch import save

from fovcache.errors import SampleError, WeightsError
from fovcache.extract.extractor import Extractor, resolve_extractor
from fovcache.extract.lora_keys import lora_key
from fovcache.models.lora_shapes import MODULES

FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def sd15() -> Extractor:
    return resolve_extractor("lora-sd15")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    path = tmp_path_factory.mktemp("template") / "template.safetensors"
    path.write_bytes(lora_bytes(made_lora(1, 0, SMALL)))
    return resolve_extractor("lora", str(path))


def refused(extractor: Extractor, data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        extractor.input.read(data, "it")
    assert caught.value.stage == "decode"
    assert caught.value.permanent
    assert "\n" not in caught.value.reason
    return caught.value.reason


def alphas(extractor: Extractor, data: bytes, num: int) -> list[float]:
    return list(extractor.input.read(data, "it")[-num:].tolist())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("rank", [1, 3])
def test_every_style_is_read_as_the_same(sd15: Extractor, small: Extractor, style: str, rank: int) -> None:
    whole = made_lora(rank)
    assert np.array_equal(sd15.input.read(lora_bytes(whole, style), "a"), sd15.input.read(lora_bytes(whole), "b"))
    few = made_lora(rank, 1, SMALL)
    with_alpha = [small.input.read(lora_bytes(few, each, alpha=2.5), "it") for each in (style, "diffusers")]
    assert np.array_equal(*with_alpha)
    assert not np.array_equal(with_alpha[0], small.input.read(lora_bytes(few), "it"))


@pytest.mark.parametrize("style", STYLES)
def test_a_template_of_any_style_names_the_same_modules(tmp_path: Path, style: str) -> None:
    path = tmp_path / "template.safetensors"
    path.write_bytes(lora_bytes(made_lora(2, 0, MODULES), style, alpha=1.0))
    assert set(resolve_extractor("lora", str(path)).layers()) == set(resolve_extractor("lora-sd15").layers())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("unet.down_blocks.0.a.attn1.processor.to_out_lora.up.weight", "down_blocks.0.a.attn1.to_out.0"),
        ("lora_unet_up_blocks_1_resnets_0_time_emb_proj.alpha", "up_blocks.1.resnets.0.time_emb_proj"),
        ("lora_te2_text_model_layers_3_mlp_fc1.lora_up.weight", "text_encoder_2.text_model.layers.3.mlp.fc1"),
        ("text_encoder.text_model.a.self_attn.to_out_lora.down.weight", "text_encoder.text_model.a.self_attn.out_proj"),
        ("text_encoder.a.mlp.fc1.lora_linear_layer.down.weight.alpha", "text_encoder.a.mlp.fc1"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", "model.layers.0.self_attn.q_proj"),
        ("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight", "single_transformer_blocks.0.attn.to_k"),
    ],
)  # fmt: skip
def test_names_as_trainers_and_converters_write_them(name: str, module: str) -> None:
    key = lora_key(name)
    assert key is not None
    assert key.module == module


@pytest.mark.parametrize(
    "name", ["unet.conv_in.weight", "a.lora_A.bias", "a.dora_scale", "a.hada_w1_a", "a.lora_magnitude_vector", "", "."]
)
def test_other_names_are_none_of_a_lora(name: str) -> None:
    assert lora_key(name) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_are_kept_exactly_and_doubles_rounded(small: Extractor, dtype: torch.dtype) -> None:
    lora = made_lora(2, 3, SMALL)
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(lora).items()}
    expected = save({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    assert np.array_equal(small.input.read(save(tensors), "it"), small.input.read(expected, "it"))


def test_alpha_is_its_tensors_else_the_metadatas_else_the_rank(small: Extractor) -> None:
    lora = made_lora(4, 0, SMALL)
    assert alphas(small, lora_bytes(lora), 3) == [4, 4, 4]
    assert alphas(small, lora_bytes(lora, "kohya", alpha=2.5), 3) == [2.5] * 3
    assert alphas(small, save(tensors_of(lora) | {"blocks.0.attn.to_q.alpha": torch.tensor([7])}), 3) == [7, 4, 4]
    said = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"proj_in": 2}, "text_encoder.lora_alpha": 1}
    assert alphas(small, with_metadata(lora, said), 3) == [8, 2, 1]
    said = {"unet.lora_alpha": 8, "unet.use_rslora": True}
    assert alphas(small, with_metadata(lora, said), 3) == [16, 16, 4]  # alpha / √rank
    for odd in ([1], {"unet.lora_alpha": "much"}, {"unet.lora_alpha": 1, "unet.alpha_pattern": {"proj_in": [2]}}):
        assert "lora_adapter_metadata cannot be read" in refused(small, with_metadata(lora, odd))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        (torch.ones(2), "an alpha is one number"),
        (torch.tensor(True), "an alpha is one number"),
        (torch.tensor(math.nan), "blocks.0.attn.to_q's alpha"),
    ],
)
def test_an_alpha_that_is_none_is_refused(small: Extractor, alpha: torch.Tensor, said: str) -> None:
    tensors = tensors_of(made_lora(1, 0, SMALL)) | {"blocks.0.attn.to_q.alpha": alpha}
    assert said in refused(small, save(tensors))


def _without(names: int) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: [tensors.pop(name) for name in list(tensors)[:names]] and None


def _put(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, tensor)


DOWN = f"{FIRST}.lora.down.weight"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without(1), rf"1 matrices are missing: {FIRST} \(down\)\. 'lora-sd15' expects .* 64 modules, 128 matrices"),
        (_without(6), r"6 matrices are missing: .* and 3 more"),
        (_put("extra.lora.down.weight", torch.ones(1, 2)), "1 tensors are none of its matrices: extra.*--encoder lora"),
        (_put("unet.conv_in.weight", torch.ones(1, 2)), r"none of its matrices: unet\.conv_in\.weight"),
        (_put(f"{FIRST}.dora_scale", torch.ones(1, 2)), "none of its matrices: .*DoRA, LoHa, LoKr and the like"),
        (
            _put(TEXT, torch.ones(1, 2)),
            "1 tensors are of a text encoder, of which 'lora-sd15' has no matrix: lora_te_.*--weights",
        ),
        (_put(f"unet.{FIRST}.lora_A.weight", torch.ones(1, 320)), "1 tensors say the same matrix again"),
        (_put(DOWN, torch.ones(1, 321)), r"1 matrices are of another shape: .* \(\[1, 321\], expected \[rank, 320\]\)"),
        (_put(DOWN, torch.ones(320)), r"1 matrices are of another shape: .*\(\[320\]"),
        (_put(DOWN, torch.ones(0, 320)), r"1 matrices are of another shape: .*\(\[0, 320\]"),
        (_put(DOWN, torch.ones(4, 320)), r"of 2 ranks: 127 of rank 1 .*, 1 of rank 4 \(such as down_blocks.*one rank"),
        (_put(DOWN, torch.ones(1, 320, dtype=torch.int8)), r"1 tensors are not of float64, .*: down_blocks.* \(I8\)"),
        (_put(DOWN, torch.full((1, 320), math.nan)), r"1 matrices hold .* not finite: .* \(320 NaN\).*diverged"),
        (_put(DOWN, torch.full((1, 320), -math.inf)), r"\(320 infinite\)"),
        (_put(DOWN, torch.full((1, 320), 1e300, dtype=torch.float64)), r"\(320 too large for float32\)"),
        (_put("a\nb\x1b[0m.weight", torch.ones(1)), r"none of its matrices: 'a\\nb\\x1b\[0m\.weight'"),
    ],
)
def test_what_is_not_of_the_template_is_refused_by_name(
    sd15: Extractor, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    tensors = tensors_of(made_lora(1))
    change(tensors)
    assert re.search(said, refused(sd15, save(tensors)))


def test_a_whole_checkpoint_is_said_to_be_none(sd15: Extractor) -> None:
    assert "nothing in the file is a LoRA's factor" in refused(sd15, save({"model.weight": torch.ones(4)}))


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        (1 << 62).to_bytes(8, "little") + b"{}",
        with_header(b"[" * 100_000),
        with_header([]),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        with_header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
        with_header(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}', bytes(4)),
        with_header({"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        with_header({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, bytes(4)),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        with_header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 2**66]}}, bytes(8)),
    ],
)
def test_hostile_headers_are_refused(sd15: Extractor, data: bytes) -> None:
    assert "the file is damaged" in refused(sd15, data)


@given(at=st.integers(0, 2000), flips=st.binary(min_size=1, max_size=8), cut=st.integers(0, 200))
def test_any_damage_is_a_sample_error_or_other_numbers(small: Extractor, at: int, flips: bytes, cut: int) -> None:
    data = bytearray(lora_bytes(made_lora(1, 0, SMALL)))
    at %= len(data)
    data[at : at + len(flips)] = flips
    try:
        item = small.input.read(bytes(data[: len(data) - cut]), "it")
    except SampleError:
        return
    assert item.shape == (12 + 8 + 6 + 36 + 5 + 5 + 3,)
    assert np.isfinite(item).all()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "give --weights FILE.safetensors$"),
        ("random:0", "give --weights FILE.safetensors, not 'random:0'"),
        ("nowhere.safetensors", "do not exist"),
    ],
)
def test_a_template_is_a_file(weights: str | None, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        resolve_extractor("lora", weights)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "they hold no factor"),
        ({"a.weight": torch.ones(1)}, "1 of 1 tensors are no factors"),
        ({"a.lora_A.weight": torch.ones(1, 2)}, r"module a has down \[1, 2\] and up \[\]"),
        ({"a.lora_A.weight": torch.ones(1, 2), "a.lora_B.weight": torch.ones(2, 2)}, "expected .rank, inputs"),
        ({"a.lora_A.weight": torch.ones(0, 2), "a.lora_B.weight": torch.ones(2, 0)}, "expected .rank, inputs"),
    ],
)
def test_a_template_has_pairs_of_factors(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    path = tmp_path / "reference.safetensors"
    path.write_bytes(save(tensors))
    with pytest.raises(WeightsError, match=said):
        resolve_extractor("lora", str(path))
