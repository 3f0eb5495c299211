"""The weight matrices of a Stable Diffusion 1.5 LoRA on `to_q` and `to_v` of every transformer block of its U-Net."""

from __future__ import annotations

from collections.abc import Mapping

TEXT_WIDTH = 768
"""Channels of the text tokens, which attn2's keys and values are made of."""
BLOCKS: Mapping[str, int] = {
    f"{stage}.transformer_blocks.0": width
    for stage, width in {
        **{f"down_blocks.0.attentions.{index}": 320 for index in range(2)},
        **{f"down_blocks.1.attentions.{index}": 640 for index in range(2)},
        **{f"down_blocks.2.attentions.{index}": 1280 for index in range(2)},
        "mid_block.attentions.0": 1280,
        **{f"up_blocks.1.attentions.{index}": 1280 for index in range(3)},
        **{f"up_blocks.2.attentions.{index}": 640 for index in range(3)},
        **{f"up_blocks.3.attentions.{index}": 320 for index in range(3)},
    }.items()
}
"""The 16 transformer blocks, each with its width."""
MODULES: Mapping[str, tuple[int, int]] = {
    f"{block}.{attention}.{projection}": (width, TEXT_WIDTH if (attention, projection) == ("attn2", "to_v") else width)
    for block, width in BLOCKS.items()
    for attention in ("attn1", "attn2")
    for projection in ("to_q", "to_v")
}
"""The 64 adapted projections: outputs and inputs of each. ΔW is `up` [outputs, rank] times `down` [rank, inputs]."""


def factor_shapes(rank: int) -> dict[str, tuple[int, int]]:
    """Of the 128 matrices `MODULE.lora.down.weight` and `MODULE.lora.up.weight` of a LoRA of one rank."""
    return {
        name: shape
        for module, (num_outputs, num_inputs) in MODULES.items()
        for name, shape in (
            (f"{module}.lora.down.weight", (rank, num_inputs)),
            (f"{module}.lora.up.weight", (num_outputs, rank)),
        )
    }
