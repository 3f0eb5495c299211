"""The language model: transformers' Llama, in SmolLM2's published configuration or a tiny one.

Axes: B samples, S tokens of a sequence, W the language model's width, V its vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fovcache.errors import WeightsError

from ..checkpoint import Checkpoint, Shape, open_checkpoint
from ..quiet import quiet
from .sizes import SIZES, LanguageSize

_PUBLISHED = {
    "rope_theta": 100000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
"""What config.json says of SmolLM2 besides its size, and may leave out where it is the same."""
_MOST_POSITIONS = 8192


class LanguageModel(nn.Module):
    """Embeddings in, states out; logits by the embeddings themselves."""

    def __init__(self, model: nn.Module, *, end_token: int | None) -> None:
        super().__init__()
        self.model = model
        self.end_token = end_token
        """Of the tokenizer that it was trained with; None where nothing was."""

    @property
    def table(self) -> torch.Tensor:
        """The embeddings [V, W]."""
        table: torch.Tensor = self.model.embed_tokens.weight  # type: ignore[union-attr, assignment]
        return table

    def embed(self, ids_BS: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, S, W] of token ids; padding, which is negative, as token 0."""
        return functional.embedding(ids_BS.clamp(min=0), self.table)

    def forward(
        self, embeddings_BSW: torch.Tensor, *, is_valid: torch.Tensor | None = None, cache: Any = None
    ) -> torch.Tensor:
        """States [B, S, W], after the last norm, of a sequence or of what follows the ones that `cache` has seen.

        `is_valid`, bool [B, all tokens so far], leaves tokens out of attention and of the count of positions.
        """
        options: dict[str, Any] = {}
        if is_valid is not None:
            positions = (is_valid.cumsum(dim=1) - 1).clamp(min=0)
            options = {
                "attention_mask": is_valid.long(),
                "position_ids": positions[:, -embeddings_BSW.shape[1] :],
            }
        output = self.model(inputs_embeds=embeddings_BSW, past_key_values=cache, use_cache=cache is not None, **options)
        states: torch.Tensor = output.last_hidden_state
        return states

    def logits(self, states_BSW: torch.Tensor) -> torch.Tensor:
        """[B, S, V]."""
        return functional.linear(states_BSW, self.table)


def new_cache() -> Any:
    """An empty cache of keys and values."""
    from transformers import DynamicCache

    return DynamicCache()


def build_language_model(name: str, size: LanguageSize, weights: str | None, seed: int) -> LanguageModel:
    """The model of SIZES `name` with the numbers of `size`, float32 on the CPU; without weights `random:seed`.

    Raises WeightsError for weights of another size or with other tensors, EnvironmentFailure for the hub.
    """
    config = {**_PUBLISHED, **size.config()}
    checkpoint = open_checkpoint(
        f"random:{seed}" if weights is None else weights, name=name, hub_id=SIZES[name].hub_id, config=config
    )
    if checkpoint.seed is None:
        _check_config(checkpoint, config)
    shapes = _shapes(size)
    tensors = checkpoint.load(shapes, unused=["lm_head.weight"], rename=_canonical)
    model = _model(config, {key.removeprefix("model."): value for key, value in tensors.items()}, checkpoint.label)
    end_token = checkpoint.config.get("eos_token_id") if checkpoint.seed is None else None
    return LanguageModel(model, end_token=end_token if isinstance(end_token, int) else None)


def _shapes(size: LanguageSize) -> dict[str, Shape]:
    """The canonical state dict: LlamaForCausalLM's, whose output is tied."""
    width, inner = size.width, size.inner_width
    narrow = width // size.language_heads * size.key_value_heads
    found: dict[str, Shape] = {"model.embed_tokens.weight": (size.vocabulary, width), "model.norm.weight": (width,)}
    for number in range(size.layers):
        block = f"model.layers.{number}"
        for part, shape in (("q", (width, width)), ("k", (narrow, width)), ("v", (narrow, width)), ("o", (width,) * 2)):
            found[f"{block}.self_attn.{part}_proj.weight"] = shape
        found |= {f"{block}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        found[f"{block}.mlp.down_proj.weight"] = (width, inner)
        found |= {f"{block}.{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return found


def _canonical(name: str) -> str:
    """A LlamaModel that was saved by itself has no `model.` before its names."""
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def _check_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """What decides the model must be as it is here, in config.json too."""
    theirs = {**_PUBLISHED, **checkpoint.config}
    rope = theirs.get("rope_parameters")
    if isinstance(rope, Mapping):  # as transformers 5 writes it
        theirs["rope_theta"] = rope.get("rope_theta")
        theirs["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else dict(rope)
    unlike = [f"{key} {theirs.get(key)!r} (not {value!r})" for key, value in config.items() if theirs.get(key) != value]
    if unlike:
        raise WeightsError(
            f"{checkpoint.label} are of another language model than {checkpoint.name!r}: {', '.join(unlike)}"
        )


def _model(config: Mapping[str, Any], tensors: dict[str, torch.Tensor], label: str) -> nn.Module:
    import transformers

    kind: Any = transformers.LlamaModel
    options = {key: value for key, value in config.items() if key not in ("model_type", "rope_scaling")}
    with quiet("transformers"), torch.random.fork_rng(devices=[]):  # some versions draw numbers, and drop them
        model, info = kind.from_pretrained(
            None,
            config=transformers.LlamaConfig(**options, max_position_embeddings=_MOST_POSITIONS),
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    if strange := [f"{what} {sorted(map(str, names))[0]}" for what, names in info.items() if names]:
        raise WeightsError(
            f"{label}: transformers {transformers.__version__} loads a Llama otherwise than expected "
            f"({', '.join(strange)}); another version of it may help"
        )
    built: nn.Module = model.train()
    return built
