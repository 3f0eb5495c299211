"""Sizes of the language model: SmolLM2-135M as published, and a tiny one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fovcache.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSize:
    """Numbers of a Llama model. Raises UsageError where they do not fit together."""

    width: int
    """Numbers of a token."""
    layers: int
    """Blocks."""
    language_heads: int
    """Heads of attention."""
    key_value_heads: int
    """Heads of keys and values."""
    inner_width: int
    """Of the MLPs."""
    vocabulary: int
    """Tokens."""

    def __post_init__(self) -> None:
        if self.width % (2 * self.language_heads):
            raise UsageError(f"width = {self.width}, expected a multiple of 2 · language_heads = {self.language_heads}")
        if self.language_heads % self.key_value_heads:
            expected = f"a divisor of language_heads = {self.language_heads}"
            raise UsageError(f"key_value_heads = {self.key_value_heads}, expected {expected}")

    def config(self) -> dict[str, Any]:
        """As config.json of such a model says it."""
        return {
            "model_type": "llama",
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.language_heads,
            "num_key_value_heads": self.key_value_heads,
            "intermediate_size": self.inner_width,
            "vocab_size": self.vocabulary,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a name stands for."""

    language: LanguageSize
    """The language model."""
    hub_id: str | None
    """Its weights on the hub; None where there are none."""
    attention_heads: int
    """Of shallow attention; must divide the encoder's width."""
    reconstruction_channels: int
    """Between the reconstruction head's convolutions."""


SIZES = {
    "smollm2-135m": Size(
        language=LanguageSize(
            width=576, layers=30, language_heads=9, key_value_heads=3, inner_width=1536, vocabulary=49152
        ),
        hub_id="HuggingFaceTB/SmolLM2-135M",
        attention_heads=6,
        reconstruction_channels=128,
    ),
    "tiny": Size(
        language=LanguageSize(width=64, layers=2, language_heads=4, key_value_heads=4, inner_width=256, vocabulary=512),
        hub_id=None,
        attention_heads=4,
        reconstruction_channels=16,
    ),
}
