"""The names of a LoRA's tensors, in whichever style, as one: the module that is adapted and the part of it.

=============  ==================================================================================================
PEFT           `base_model.model.MODULE.lora_A.weight`, also with the adapter's name, `lora_A.default.weight`
diffusers      `unet.MODULE.lora_A.weight`, `unet.MODULE.lora.down.weight`, `…lora_linear_layer.down.weight`
diffusers old  `[unet.]MODULE's parent.processor.to_q_lora.down.weight`
kohya          `lora_unet_MODULE.lora_down.weight`, `….alpha`, with underscores for the dots of MODULE
=============  ==================================================================================================

`lora_A` and `down` are the same factor, and so are `lora_B` and `up`. Modules of a text encoder begin with
`text_encoder.` or `text_encoder_2.`, as diffusers names them; those of the U-Net or transformer stand for themselves.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

DOWN, UP, ALPHA = "down", "up", "alpha"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

_FACTOR = re.compile(r"(.+?)[._]lora(?:_linear_layer)?[._](A|B|down|up)(?:\.[\w-]+)?\.weight")
_ALPHA = re.compile(r"(.+?)(?:[._]lora(?:_linear_layer)?(?:[._](?:A|B|down|up)(?:\.weight)?)?)?\.alpha")
_PART = {"A": DOWN, "down": DOWN, "B": UP, "up": UP}
_KOHYA = {
    "lora_unet_": "",
    "lora_transformer_": "",
    "lora_te_": "text_encoder.",
    "lora_te1_": "text_encoder.",
    "lora_te2_": "text_encoder_2.",
    "lora_te3_": "text_encoder_3.",
}
_PEFT = "base_model.model."
_DENOISERS = ("unet.", "transformer.", "diffusion_model.")
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_WORDS = (
    "single_transformer_blocks|transformer_blocks|down_blocks|mid_block|up_blocks|input_blocks|middle_block|"
    "output_blocks|double_blocks|single_blocks|add_k_proj|add_q_proj|add_v_proj|to_add_out|to_q|to_k|to_v|to_out|"
    "proj_in|proj_out|time_emb_proj|time_embedding|add_embedding|linear_1|linear_2|conv_in|conv_out|conv_shortcut|"
    "in_layers|out_layers|emb_layers|skip_connection|text_model|text_projection|self_attn|q_proj|k_proj|v_proj|"
    "out_proj|o_proj|gate_proj|up_proj|down_proj|ff_context"
)
_JOINED = re.compile(rf"(?<![^.])(?:{_WORDS.replace('_', '[.]')})(?![^.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraKey:
    """What one tensor of a LoRA is."""

    module: str
    """The adapted module in dots, as diffusers or the model's own code names it."""
    part: str
    """`down` [rank, inputs], `up` [outputs, rank] or `alpha`, a scalar."""


@functools.lru_cache(maxsize=1 << 14)
def lora_key(name: str) -> LoraKey | None:
    """What a tensor of this name is, or None where it is no part of a LoRA."""
    if match := _FACTOR.fullmatch(name):
        return LoraKey(module=_module(match[1]), part=_PART[match[2]])
    if match := _ALPHA.fullmatch(name):
        return LoraKey(module=_module(match[1]), part=ALPHA)
    return None


def flat(module: str) -> str:
    """A module's name without the difference between dots and underscores, which kohya's style loses."""
    return module.replace(".", "_")


def component(module: str) -> str | None:
    """The text encoder that a module is part of; None for one of the U-Net or transformer."""
    first = module.partition(".")[0]
    return first if first in TEXT_ENCODERS else None


def _module(name: str) -> str:
    for prefix, stands_for in _KOHYA.items():
        if name.startswith(prefix):
            dotted = name.removeprefix(prefix).replace("_", ".")
            return stands_for + _JOINED.sub(lambda word: word[0].replace(".", "_"), dotted)
    if name.startswith(_PEFT):
        name = name.removeprefix(_PEFT).removeprefix("unet.")
    else:
        name = next((name.removeprefix(prefix) for prefix in _DENOISERS if name.startswith(prefix)), name)
    return _of_old_style(name.replace(".processor.", "."))


def _of_old_style(module: str) -> str:
    """Before PEFT diffusers called the output projection `to_out`, and a text encoder's projections as a U-Net's."""
    parent, _, last = module.rpartition(".")
    if last in _OLD_TEXT and parent.rpartition(".")[2] == "self_attn":
        return f"{parent}.{_OLD_TEXT[last]}"
    return f"{module}.0" if last == "to_out" else module
