"""How the foveated model begins: seeds, scales, and the mistakes of initialisation that made it blind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fovcache.errors import UsageError, WeightsError
from fovcache.models.foveated.attention import ShallowAttention
from fovcache.models.foveated.language_model import build_language_model
from fovcache.models.foveated.model import make
from fovcache.models.foveated.module import FoveatedModel
from fovcache.models.foveated.sizes import SIZES
from fovcache.trainable import InputInfo

TINY: dict[str, Any] = {"size": "tiny", "heads": ["caption", "reconstruction"]}
TOKENS, WIDTH = 257, 64
INFOS = {
    "frames": InputInfo(row_shape=(4, TOKENS, WIDTH), dtype="fp32"),
    "latents": InputInfo(row_shape=(4, 4, 6, 6), dtype="fp32"),
    "captions": InputInfo(row_shape=(7,), dtype="int64", recipe={"extractor": {"vocabulary": 257, "end": 256}}),
}


def built(seed: int = 0, **settings: Any) -> FoveatedModel:
    return make({**TINY, **settings}).build(INFOS, seed)


def tokens(num_samples: int = 2) -> list[torch.Tensor]:
    return [torch.randn(num_samples, 4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))]


def test_every_parameter_is_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = built().state_dict()
    assert torch.equal(torch.get_rng_state(), before), "build draws from no generator of torch's"
    torch.manual_seed(2)
    again, other = built().state_dict(), built(seed=1).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    constant = {name for name, value in one.items() if value.unique().numel() == 1}
    assert constant == {name for name in one if name.endswith((".bias", "norm.weight"))}
    assert not [name for name in one.keys() - constant if torch.isclose(one[name], other[name]).float().mean() > 0.01]


def test_models_that_differ_in_one_part_begin_equal_in_the_others() -> None:
    one, other = built().state_dict(), built(heads=["caption"], mode="coarse", queries="predicted").state_dict()
    assert other.keys() < one.keys()
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_queries_begin_with_deviation_one_and_look_somewhere() -> None:
    module = built()
    for query in (module.q_static, module.q_init):
        assert query.std().item() == pytest.approx(1, abs=0.25)
    queries = module.q_static.expand(2, 4, -1)
    sharp = module.attention(tokens(), queries).entropy_BT
    blind = module.attention(tokens(), 0.02 * queries).entropy_BT
    assert sharp.max() < 0.97
    assert blind.min() > 0.9999


def test_a_bias_would_swamp_the_query() -> None:
    """The projection has none; with one, queries with a small deviation all look to the same place."""
    attention = built().attention
    assert isinstance(attention, ShallowAttention)
    assert attention.query.bias is None
    one, other = (torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))

    def distance(deviation: float) -> float:
        """How far two queries' attention is apart, against how far it is from uniform; mean total variation."""
        looks = [attention(tokens(), deviation * queries).weights_BTN for queries in (one, other)]
        apart = (looks[0] - looks[1]).abs().sum(dim=-1).mean()
        return float(apart / (looks[0] - 1 / TOKENS).abs().sum(dim=-1).mean())

    assert distance(1.0) > 0.5
    assert distance(0.02) > 0.5
    attention.query.bias = torch.nn.Parameter(torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)))
    assert distance(0.02) < 0.05


@pytest.mark.parametrize(("scale", "expected"), [(None, 0.02), (0.14, 0.14)])
@pytest.mark.parametrize("encoder_scale", [0.1, 10.0])
def test_visual_tokens_begin_at_the_embeddings_scale(
    scale: float | None, expected: float, encoder_scale: float
) -> None:
    module = built(visual_scale=scale)
    frames = [encoder_scale * tokens(16)[0]]
    visual = module.visual_tokens(module.attention(frames, module.q_static.expand(16, 4, -1)))
    assert visual.std().item() == pytest.approx(expected, rel=0.15)
    if scale is None:
        assert visual.std().item() == pytest.approx(module.language_model.table.std().item(), rel=0.15)
    for token in (module.coarse_token, module.fine_token):
        assert token.std().item() == pytest.approx(expected, rel=0.35)


def test_queries_that_are_predicted_have_the_static_ones_scale() -> None:
    module = built()
    frames = tokens(8)
    around = module._inputs({"frames": frames[0], "captions": torch.full((8, 7), 256)})[1]
    predicted = module.to_query(module.coarse_look(frames, around).states_BTW)
    assert predicted.std().item() == pytest.approx(1, abs=0.25)


def test_the_language_model_is_the_seeds_or_the_folders(tmp_path: Path) -> None:
    size = SIZES["tiny"].language
    seeded = build_language_model("tiny", size, None, 5)
    named = build_language_model("tiny", size, "random:5", 0)
    assert all(torch.equal(value, named.state_dict()[name]) for name, value in seeded.state_dict().items())
    assert seeded.end_token is None
    seeded.model.save_pretrained(tmp_path)
    loaded = build_language_model("tiny", size, str(tmp_path), 0)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in seeded.state_dict().items())
    x = torch.randn(2, 6, size.width)
    assert torch.equal(loaded(x), seeded(x))
    assert loaded.end_token == 2, "transformers' own for a Llama"
    with pytest.raises(UsageError, match="texts end with token 256, the model's with 2"):
        built(language_weights=str(tmp_path))
    with pytest.raises(WeightsError, match=r"hidden_size 64 \(not 32\)"):
        built(language_weights=str(tmp_path), width=32)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing: model\.norm\.weight"):
        built(language_weights=str(tmp_path))


def test_smollm2_is_of_its_published_size() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from fovcache.models.foveated.language_model import _PUBLISHED, _shapes

    size = SIZES["smollm2-135m"].language
    config = LlamaConfig(
        **{key: value for key, value in {**_PUBLISHED, **size.config()}.items() if key != "model_type"}
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert _shapes(size) == expected
    assert sum(value.numel() for value in model.parameters()) == 134_515_008


def test_rotary_positions_turn_as_published() -> None:
    """transformers moved the setting between versions, and ignores names that it does not know."""
    rotary: Any = build_language_model("tiny", SIZES["tiny"].language, None, 0).model.rotary_emb
    expected = 100000.0 ** (-torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(rotary.inv_freq, expected)
