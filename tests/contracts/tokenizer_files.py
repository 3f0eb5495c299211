"""Tokenizers that tests make: byte-level pairs, learned from a few words, saved as their library saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END = "<|end|>"
WORDS = ("a red ball", "a blue cube", "two balls and a cube", "the cube rolls away", "nothing moves at all") * 3


def made_tokenizer() -> Tokenizer:
    """The same ones each time, of every UTF-8 text, with an end token and what must not act on captions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END, "<|begin|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def add_what_must_not_act(tokenizer: Tokenizer) -> None:
    """Truncation, padding and tokens around a text."""
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )


def save_tokenizer(folder: Path, tokenizer: Tokenizer | None = None, **config: Any) -> Path:
    """`tokenizer.json`, and `tokenizer_config.json` with `config`, which is the end token if nothing is said."""
    folder.mkdir(parents=True, exist_ok=True)
    (tokenizer or made_tokenizer()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {"eos_token": END}))
    return folder
