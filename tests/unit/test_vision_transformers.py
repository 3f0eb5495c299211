"""The named vision transformers: what they are, what they load, and that their layers are transformers' own."""

from __future__ import annotations

import gc
import itertools
import json
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fovcache.errors import WeightsError
from fovcache.extract.extractor import resolve_extractor
from fovcache.extract.pooling import pool
from fovcache.extract.taps import is_out_of_memory
from fovcache.keys.digest import bytes_digest
from fovcache.models.architecture import NamedModel
from fovcache.models.checkpoint import open_checkpoint
from fovcache.models.dinov2 import DINOV2, DINOV2_MODELS, DINOV2_WITH_REGISTERS
from fovcache.models.quiet import quiet
from fovcache.models.siglip import SIGLIP, SIGLIP_MODELS
from fovcache.models.vision_transformer import VisionTransformer
from fovcache.models.vit import VIT, VIT_MODELS

CPU = torch.device("cpu")
MODELS = [*DINOV2_MODELS, *SIGLIP_MODELS, *VIT_MODELS]
NUM_PARAMETERS = {
    "dinov2-small": 22_056_576,
    "dinov2-base": 86_580_480,
    "dinov2-large": 304_368_640,
    "dinov2-with-registers-small": 22_058_112,
    "dinov2-with-registers-base": 86_583_552,
    "dinov2-with-registers-large": 304_372_736,
    "siglip-base": 92_884_224,
    "siglip-so400m": 428_225_600,
    "vit-tiny": 5_524_416,
}
LITTLE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
LITTLE_MODELS = {
    "dinov2": NamedModel(name="little", architecture=DINOV2, hub_id=None, config={**LITTLE, "image_size": 70}),
    "dinov2-with-registers": NamedModel(
        name="little", architecture=DINOV2_WITH_REGISTERS, hub_id=None, config={**LITTLE, "image_size": 70}
    ),
    "siglip": NamedModel(
        name="little",
        architecture=SIGLIP,
        hub_id=None,
        config={**LITTLE, "intermediate_size": 48, "image_size": 64},
    ),
    "vit": NamedModel(
        name="little", architecture=VIT, hub_id=None, config={**LITTLE, "intermediate_size": 48, "image_size": 64}
    ),
}
GOLDEN = {
    "dinov2": "3831d45ec1fc9bf6f53da7d585009e9b76f885e90b27334889b20649e45eadaf",
    "dinov2-with-registers": "9424e741888ee08909ba857d061d14558eaae77ade7c89128334e1bed5e0dae7",
    "siglip": "fa39d7d66301ada80b9105c63792a54e4cb50ee0203bbaf54f60ab77dd93fbb9",
    "vit": "aa43c1657af6c66f261038fbc3377ad0111a9f48db014f5922b77e5c115cb160",
}
"""Of the little models' seed 0: it means the same under every version of every library."""


def made(model: NamedModel) -> nn.Module:
    """transformers' model as it initialises it."""
    import transformers

    kind = getattr(transformers, model.architecture.model_class)
    config = {key: value for key, value in model.full_config().items() if key != "model_type"}
    with quiet("transformers"):
        return kind(kind.config_class(**config), **model.architecture.model_options).eval()


def theirs(model: NamedModel) -> nn.Module:
    """The same with larger weights, so that differences show; equal at every call."""
    torch.manual_seed(0)
    module = made(model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def saved(model: nn.Module, folder: Path) -> Path:
    with quiet("transformers"):
        model.save_pretrained(folder)
    return folder


@pytest.fixture(params=LITTLE_MODELS)
def little(request: pytest.FixtureRequest) -> NamedModel:
    return LITTLE_MODELS[request.param]


@pytest.fixture
def folder(little: NamedModel, tmp_path: Path) -> Path:
    return saved(theirs(little), tmp_path / "model")


def encode(extractor: VisionTransformer, batch: torch.Tensor, *layers: str) -> dict[str, torch.Tensor]:
    session = extractor.session(layers or ["**"], CPU, "float32")
    outputs = dict(session.encode(batch))
    session.close()
    return outputs


def frames(side: int, num: int = 2) -> torch.Tensor:
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_shapes_are_those_of_transformers_model_at_its_true_size(model: NamedModel) -> None:
    with torch.device("meta"):
        expected = made(model).state_dict()
    shapes = model.architecture.state(model.full_config())
    assert Counter(shapes.values()) == Counter(tuple(tensor.shape) for tensor in expected.values())
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == NUM_PARAMETERS[model.name]


def test_canonical_names_and_shapes_are_those_that_a_saved_model_has(little: NamedModel, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    prefix = little.architecture.prefix  # which transformers 5 leaves out of an image tower saved alone
    expected = {prefix + name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in tensors.items()}
    assert little.architecture.state(little.full_config()) == expected


@pytest.mark.parametrize("name", LITTLE_MODELS)
def test_seeded_weights_are_the_same_everywhere(name: str) -> None:
    model = LITTLE_MODELS[name]
    config = model.full_config()
    checkpoint = open_checkpoint("random:0", name="little", hub_id=None, config=config)
    tensors = model.architecture.load(checkpoint, config, model.architecture.layers(config))
    names = sorted(tensors)
    assert bytes_digest(b"".join(name.encode() + tensors[name].numpy().tobytes() for name in names)) == GOLDEN[name]


def test_seeded_weights_do_not_depend_on_the_layers_and_leave_torchs_generator_alone() -> None:
    extractor = VisionTransformer.open(LITTLE_MODELS["siglip"], "random:7")
    state = torch.get_rng_state()
    whole, part = encode(extractor, frames(64)), encode(extractor, frames(64), "blocks.1")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(whole["blocks.1"], part["blocks.1"])
    assert encode(extractor, frames(64), "pooler")["pooler"].std() > 0.01


@pytest.mark.parametrize("sides_in_patches", [3, 4, 5, 7])
def test_every_layer_is_transformers_own(little: NamedModel, folder: Path, sides_in_patches: int) -> None:
    config = little.full_config()
    side = sides_in_patches * config["patch_size"]
    model = theirs(little)
    options = {} if little.architecture in (DINOV2, DINOV2_WITH_REGISTERS) else {"interpolate_pos_encoding": True}
    batch = frames(side)
    with torch.inference_mode():
        expected = model(batch, output_hidden_states=True, **options)
    ours = encode(VisionTransformer.open(little, str(folder)), batch)
    for layer, hidden in zip(["embed", "blocks.0", "blocks.1"], expected.hidden_states, strict=False):
        torch.testing.assert_close(ours[layer], hidden, rtol=1e-5, atol=1e-5)
    norm = model.get_submodule(f"{'vision_model.' if hasattr(model, 'vision_model') else ''}{little.architecture.norm}")
    with torch.inference_mode():  # of the last block: some versions list the norm's output in its place
        torch.testing.assert_close(norm(ours["blocks.2"]), expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["norm"], expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    if "pooler" in ours:
        torch.testing.assert_close(ours["pooler"], expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_the_mean_is_over_patches_alone(little: NamedModel) -> None:
    extractor = VisionTransformer.open(little, "random:0")
    side = little.config["image_size"]
    tokens = encode(extractor, frames(side), "norm")["norm"]
    num_patches = (side // extractor.config["patch_size"]) ** 2
    assert tokens.shape[1] == extractor.tokens.num_prefix_tokens + num_patches
    torch.testing.assert_close(pool(tokens, "mean", extractor.tokens, "norm"), tokens[:, -num_patches:].mean(1))


def test_a_larger_model_holds_it_under_a_prefix(tmp_path: Path) -> None:
    import transformers

    little = LITTLE_MODELS["dinov2"]
    inner = theirs(little)
    with quiet("transformers"):
        outer = transformers.Dinov2ForImageClassification(inner.config)
    outer.dinov2.load_state_dict(inner.state_dict())
    folder = saved(outer, tmp_path / "classifier")
    assert any(name.startswith("dinov2.") for name in load_file(folder / "model.safetensors"))
    alone = saved(inner, tmp_path / "alone")
    a, b = (encode(VisionTransformer.open(little, str(path)), frames(70), "norm") for path in (folder, alone))
    assert torch.equal(a["norm"], b["norm"])


def test_siglip_is_taken_from_a_folder_that_holds_the_text_tower_too(tmp_path: Path) -> None:
    import transformers

    little = LITTLE_MODELS["siglip"]
    text = {**LITTLE, "intermediate_size": 48, "vocab_size": 50, "max_position_embeddings": 8}
    vision = {key: value for key, value in little.full_config().items() if key != "model_type"}
    with quiet("transformers"):
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model = transformers.SiglipModel(config).eval()
    folder = saved(model, tmp_path / "siglip")
    assert any(name.startswith("text_model.") for name in load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        expected = model.vision_model(frames(64)).pooler_output
    ours = encode(VisionTransformer.open(little, str(folder)), frames(64), "pooler")["pooler"]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def change(little: NamedModel, folder: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], Any]], VisionTransformer]:
    """`change(edit)`: the little model with the tensors of its folder edited."""

    def changed(edit: Callable[[dict[str, torch.Tensor]], Any]) -> VisionTransformer:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return VisionTransformer.open(little, str(folder))

    return changed


def test_blocks_after_the_deepest_layer_are_not_loaded(change: Callable[..., VisionTransformer]) -> None:
    def drop_the_last_block(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".2." in name or "layernorm." in name.replace("head.layernorm", "")]:
            del tensors[name]

    extractor = change(drop_the_last_block)
    side = extractor.config["image_size"]
    assert set(encode(extractor, frames(side), "embed", "blocks.1")) == {"embed", "blocks.1"}
    for layer in ("blocks.2", "norm"):
        with pytest.raises(WeightsError, match=r"do not fit the encoder 'little': \d+ missing: .*\.2\."):
            extractor.session([layer], CPU, "float32")


def test_blocks_after_the_deepest_layer_are_not_made(little: NamedModel) -> None:
    extractor = VisionTransformer.open(little, "random:0")

    def num_parameters(*layers: str) -> int:
        session = extractor.session(layers, CPU, "float32")
        return sum(parameter.numel() for parameter in session._model.parameters())

    sizes = [num_parameters(layer) for layer in ("embed", "blocks.0", "blocks.1", "blocks.2")]
    steps = [after - before for before, after in itertools.pairwise(sizes)]
    assert steps[0] == steps[1] == steps[2] > 0


def test_tensors_that_are_missing_of_another_shape_or_unexpected_are_named(
    little: NamedModel, change: Callable[..., VisionTransformer]
) -> None:
    names: dict[str, str] = {}

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        blocks = sorted(name for name in tensors if ".1." in name)
        names.update(missing=blocks[0], other=blocks[1], extra=blocks[2] + "_scale")
        del tensors[names["missing"]]
        tensors[names["other"]] = torch.zeros(5)
        tensors[names["extra"]] = torch.zeros(1)

    extractor = change(edit)
    prefix = "" if names["missing"].startswith(little.architecture.prefix) else little.architecture.prefix
    with pytest.raises(WeightsError) as caught:
        extractor.session(["norm"], CPU, "float32")
    said = str(caught.value)
    assert f"1 missing: {prefix}{names['missing']};" in said
    assert f"1 of another shape: {prefix}{names['other']} (checkpoint (5,), model (32" in said
    assert f"1 unexpected: {prefix}{names['extra']}" in said
    extractor.session(["blocks.0"], CPU, "float32").close()


def test_tensors_of_parts_that_are_not_needed_are_passed_over(change: Callable[..., VisionTransformer]) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["classifier.weight"] = torch.zeros(2, 2)
        tensors["pooler.dense.weight"] = torch.zeros(2, 2)
        tensors.pop("embeddings.mask_token", None)

    extractor = change(edit)
    assert encode(extractor, frames(extractor.config["image_size"]), "norm")["norm"].isfinite().all()


def test_quantised_tensors_are_refused(change: Callable[..., VisionTransformer]) -> None:
    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if ".0." in name)
        tensors[name] = tensors[name].to(torch.int8)

    with pytest.raises(WeightsError, match=r"1 not of floating point: \S+ \(I8\)"):
        change(quantise).session(["norm"], CPU, "float32")


def test_half_precision_weights_are_computed_with_in_float32(change: Callable[..., VisionTransformer]) -> None:
    extractor = change(lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    assert encode(extractor, frames(extractor.config["image_size"]), "norm")["norm"].dtype == torch.float32


def write_config(folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_type": "dinov2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
            r"another size of dinov2 than the encoder 'dinov2-small': hidden_size 768 \(not 384\), num_attention_heads "
            r"12 \(not 6\); they fit dinov2-base$",
        ),
        (
            {
                "model_type": "dinov2_with_registers",
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
            },
            r"hold a dinov2_with_registers, and the encoder 'dinov2-small' is a dinov2; they fit "
            r"dinov2-with-registers-large$",
        ),
        ({"model_type": "siglip", "vision_config": {}}, r"hold a siglip, .* they fit siglip-base$"),
        ({"model_type": "siglip_vision_model"}, r"hold a siglip_vision_model, .* they fit siglip-base$"),
        ({"model_type": "resnet"}, r"hold a resnet, .*; no encoder here is like them: .* PATH\.py:FACTORY"),
        ({}, r"hold a model without a model_type, "),
        ({"model_type": "dinov2", "hidden_size": "wide"}, r"config.json has hidden_size 'wide', expected one like 768"),
        ({"model_type": "dinov2", "image_size": [518, 336]}, r"config.json has image_size \[518, 336\], expected"),
        ({"model_type": "dinov2", "patch_size": 0}, r"patch_size 0 and image_size 224, expected an image of at least"),
    ],
)
def test_a_folder_of_another_model_says_what_it_is_and_which_name_fits(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=said):
        resolve_extractor("dinov2-small", write_config(tmp_path / "model", config))


def test_a_folder_that_transformers_cannot_build_is_a_weights_error(folder: Path, little: NamedModel) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "no_such_function"}))
    with pytest.raises(WeightsError, match=r"transformers cannot build the model: .*no_such_function"):
        VisionTransformer.open(little, str(folder)).session(["norm"], CPU, "float32")


def test_what_a_model_is_needs_no_tensor(tmp_path: Path) -> None:
    little = LITTLE_MODELS["dinov2"]
    seeded = VisionTransformer.open(little, "random:3")
    assert seeded.identity() == {
        "name": "little",
        "version": 1,
        "weights": {"config": little.full_config(), "seed": 3, "init": 1},
        "tokens": {"class": True, "prefix": 1},
    }
    folder = write_config(tmp_path / "model", little.full_config())
    described = VisionTransformer.open(little, folder)
    assert described.layers() == ("embed", "blocks.0", "blocks.1", "blocks.2", "norm")
    assert described.identity()["weights"].keys() == {"digest"}
    with pytest.raises(WeightsError, match="missing"):
        described.session(["embed"], CPU, "float32")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_name_describes_itself_from_a_seed(model: NamedModel) -> None:
    extractor = resolve_extractor(model.name, "random:0")
    assert extractor.name == extractor.identity()["name"] == model.name
    assert extractor.default_layers() == (f"blocks.{model.full_config()['num_hidden_layers'] - 1}",)
    assert extractor.tokens.num_prefix_tokens == {"siglip": 0, "vit": 1}.get(
        model.name.partition("-")[0], 5 if "registers" in model.name else 1
    )
    assert model.hub_id or model.name == "vit-tiny"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_to_float32(dtype: str) -> None:
    extractor = resolve_extractor("vit-tiny", "random:0")
    batch = frames(224)
    half = extractor.session(["norm"], CPU, dtype).encode(batch)["norm"]
    full = extractor.session(["norm"], CPU, "float32").encode(batch)["norm"]
    assert not torch.equal(half.float(), full)
    assert torch.nn.functional.cosine_similarity(half.float(), full, dim=-1).min() > 0.999


def test_a_closed_session_lets_its_model_go() -> None:
    session = VisionTransformer.open(LITTLE_MODELS["vit"], "random:0").session(["norm"], CPU, "float32")
    model = weakref.ref(session._model)
    session.encode(frames(64))
    session.close()
    gc.collect()
    assert model() is None


def test_out_of_memory_comes_through_as_torch_says_it() -> None:
    session = VisionTransformer.open(LITTLE_MODELS["vit"], "random:0").session(["norm"], CPU, "float32")
    with pytest.raises(RuntimeError) as caught:
        session.encode(torch.zeros(1, 1, 1, 1).expand(1 << 33, 3, 64, 64))
    assert is_out_of_memory(caught.value)
