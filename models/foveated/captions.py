"""The head `caption`: the language model goes on after the frames with the caption.

Axes: B samples, T frames, L tokens of the longest caption with its end token, W the language model's width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from fovcache.errors import UsageError
from fovcache.trainable import InputInfo

from .language_model import LanguageModel
from .look import Look
from .names import CAPTIONS
from .settings import CAPTION

_DISAGREES = "a tokenizer that disagrees with the language model"
_MEND = "build the texts with the model's own tokenizer"


def caption_values(
    look: Look, batch: Mapping[str, torch.Tensor], language_model: LanguageModel
) -> dict[str, torch.Tensor]:
    """`caption` [B]: cross-entropy of the caption's tokens, the end token too, mean over them; padding is left out.

    The state after the last frame predicts the first token. The head has no parameters of its own.
    """
    ids_BL = batch[CAPTIONS]
    states = torch.cat([look.states_BTW[:, -1:], look.tail_BLW], dim=1)
    logits = language_model.logits(states).float()
    each = functional.cross_entropy(logits.transpose(1, 2), ids_BL, ignore_index=-1, reduction="none")
    return {CAPTION: each.sum(dim=1) / (ids_BL != -1).sum(dim=1)}


def check_tokenizer(name: str, info: InputInfo, language_model: LanguageModel) -> None:
    """Refuse token ids that mean something else to the language model. Raises UsageError."""
    extractor = info.recipe.get("extractor", {})
    vocabulary, end = extractor.get("vocabulary"), extractor.get("end")
    own = len(language_model.table)
    if isinstance(vocabulary, int) and vocabulary > own:
        raise UsageError(
            f"{name}: {_DISAGREES}: it has {vocabulary} tokens and the model {own}; {_MEND}, or set vocabulary"
        )
    if isinstance(end, int) and language_model.end_token not in (None, end):
        raise UsageError(
            f"{name}: {_DISAGREES}: texts end with token {end}, the model's with {language_model.end_token}; {_MEND}"
        )


def check_ids(name: str, ids_BL: torch.Tensor, language_model: LanguageModel) -> None:
    """Refuse ids that the language model has no embedding for, and texts without any. Raises UsageError."""
    vocabulary = len(language_model.table)
    largest = ids_BL.amax(dim=1)
    least, most = torch.stack([largest.min(), largest.max()]).tolist()
    if most >= vocabulary:
        raise UsageError(
            f"{name}: {_DISAGREES}: token {most}, and the model has {vocabulary}; {_MEND}, or set vocabulary"
        )
    if least < 0:
        raise UsageError(f"{name}: a text has no token, expected at least the one that ends it")
