"""The foveated model itself: a look at every frame with one static query, then finer looks with predicted queries.

Axes: B samples, T frames, N tokens of a frame, D the encoder's width, W the language model's width, L tokens of a
caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from fovcache.trainable import Batch, Values

from .attention import Glimpse, ShallowAttention
from .captions import caption_values, check_ids
from .deep_attention import DeepAttention
from .language_model import LanguageModel, new_cache
from .look import Look
from .names import CAPTIONS, TEXT
from .queries import chosen, diversity, shifted
from .settings import AUTOREGRESSIVE, CAPTION, COARSE, FINE, FoveatedSettings


class Patches(NamedTuple):
    """Where a frame's patches are among its tokens."""

    num_prefix: int
    """Class and register tokens before them."""
    rows: int
    """Of the grid."""
    columns: int
    """Of the grid."""


class _Around(NamedTuple):
    """Embeddings of what stands before and after the frames in a sequence."""

    text_BPW: torch.Tensor
    is_text: torch.Tensor | None
    tail_BLW: torch.Tensor


class FoveatedModel(nn.Module):
    """`module(batch) -> Values`; `fovcache.models.foveated.model` makes it.

    Values: `loss`; of the fine (or autoregressive) pass `fine`, of the coarse pass `coarse`, each the weighted sum of
    the heads' losses; each head's own of the pass that is trained, and what it says besides (`accuracy`);
    `entropy_static` and `entropy_dynamic`, attention's entropy divided by ln N with the static query and with predicted
    ones; `query_diversity`, the mean cosine distance between two of a sample's predicted queries. In training only what
    the loss needs is computed; in evaluation both passes are, and the one that was not trained says nothing about what
    it could have learned: as a comparison their ratio is biased.
    """

    def __init__(
        self,
        settings: FoveatedSettings,
        *,
        width: int,
        num_frames: int,
        patches: Patches,
        attention: ShallowAttention | DeepAttention,
        language_model: LanguageModel,
        heads: Mapping[str, nn.Module],
        visual_scale: float,
    ) -> None:
        """`width` is the encoder's; `heads` are those that have parameters."""
        super().__init__()
        language_width = language_model.table.shape[1]
        self.settings = settings
        self.num_frames = num_frames
        self.patches = patches
        self.visual_scale = visual_scale
        self.q_static = nn.Parameter(torch.empty(width))
        self.q_init = nn.Parameter(torch.empty(width))
        self.coarse_token = nn.Parameter(torch.empty(language_width))
        self.fine_token = nn.Parameter(torch.empty(language_width))
        self.attention = attention
        self.to_visual = nn.Linear(width, language_width)
        self.to_query = nn.Linear(language_width, width)
        self.language_model = language_model
        self.heads = nn.ModuleDict(heads)

    @property
    def parts(self) -> dict[str, Sequence[str]]:
        """Prefixes of the parameters' names, by part."""
        return {
            "queries": ["q_static", "q_init", "to_query."],
            "attention": ["attention."],
            "projections": ["to_visual.", "coarse_token", "fine_token"],
            "language_model": ["language_model."],
            **{name: [f"heads.{name}."] for name in self.heads},
        }

    @property
    def deviations(self) -> dict[str, float]:
        """What parameters that are no matrices begin with: N(0, deviation²)."""
        modes = {"coarse_token": self.visual_scale, "fine_token": self.visual_scale}
        return {"q_static": 1.0, "q_init": 1.0, **modes}

    def forward(self, batch: Batch) -> Values:
        """float32 [B] each. Raises UsageError for token ids or labels that do not fit."""
        mode, weight = self.settings.mode, self.settings.coarse_weight
        counts_coarse = mode == COARSE or weight > 0 or not self.training
        counts_fine = mode != COARSE or not self.training
        frames, around = self._inputs(batch)
        coarse = fine = None
        found: Values = {}
        if counts_coarse or mode != AUTOREGRESSIVE:
            look = self.coarse_look(frames, around if counts_coarse else _without_tail(around))
            found["entropy_static"] = look.entropy_BT.mean(dim=1)
            coarse = self._losses(look, batch) if counts_coarse else None
        if counts_fine:
            if mode == AUTOREGRESSIVE:
                look, predicted = self.autoregressive_look(frames, around)
            else:
                look, predicted = self.fine_look(frames, around, look)
            if self.num_frames > 1:
                found["entropy_dynamic"] = look.entropy_BT[:, 1:].mean(dim=1)
            if self.num_frames > 2:
                found["query_diversity"] = diversity(predicted[:, :-1])
            fine = self._losses(look, batch)
        return self._values(coarse, fine) | found

    def coarse_look(self, frames: list[torch.Tensor], around: _Around) -> Look:
        """Every frame with the static query, then the language model with the coarse-mode token."""
        queries = self.q_static.expand(len(around.tail_BLW), self.num_frames, -1)
        return self._look(frames, queries, self.coarse_token, around)

    def fine_look(self, frames: list[torch.Tensor], around: _Around, coarse: Look) -> tuple[Look, torch.Tensor]:
        """Every frame with the query that the frames before it led to, `fine_passes` times; and the queries [B, T, D]
        that were predicted for it, the last of which no frame is looked at with."""
        look, predicted = coarse, self.q_init
        for number in range(self.settings.fine_passes):
            is_last = number + 1 == self.settings.fine_passes
            predicted = self.to_query(look.states_BTW)
            queries = shifted(self.q_init, chosen(predicted, self.settings.queries))
            look = self._look(frames, queries, self.fine_token, around if is_last else _without_tail(around))
        return look, predicted

    def autoregressive_look(self, frames: list[torch.Tensor], around: _Around) -> tuple[Look, torch.Tensor]:
        """Frame by frame: each with the query that the fine sequence up to the frame before it leads to. What the
        language model has read is not read again: its keys and values are kept."""
        num_samples = len(around.tail_BLW)
        cache = new_cache()
        is_valid = around.is_text
        start = torch.cat([around.text_BPW, self.fine_token.expand(num_samples, 1, -1)], dim=1)
        self.language_model(start, is_valid=_longer(is_valid, 1), cache=cache)
        glimpses, states = [], []
        query = self.q_init.expand(num_samples, 1, -1)
        for number in range(self.num_frames):
            glimpses.append(self.attention([each[:, number : number + 1] for each in frames], query))
            embedding = self.visual_tokens(glimpses[-1])
            states.append(self.language_model(embedding, is_valid=_longer(is_valid, number + 2), cache=cache))
            query = self.to_query(states[-1])
        tail = around.tail_BLW
        if tail.shape[1]:
            num_read = 1 + self.num_frames + tail.shape[1]
            tail = self.language_model(tail, is_valid=_longer(is_valid, num_read), cache=cache)
        states_BTW = torch.cat(states, dim=1)
        entropy, weights = (torch.cat([each[field] for each in glimpses], dim=1) for field in (1, 2))
        return Look(states_BTW, tail, entropy, weights), self.to_query(states_BTW)

    def visual_tokens(self, glimpse: Glimpse) -> torch.Tensor:
        """[B, T, W], a token a frame. What was found is brought to mean 0 and variance 1 first, so that the tokens
        begin at the embeddings' scale whatever the encoder's is and however many tokens were averaged."""
        found = functional.layer_norm(glimpse.found_BTD, glimpse.found_BTD.shape[-1:])
        tokens: torch.Tensor = self.to_visual(found) * self.visual_scale
        return functional.dropout(tokens, self.settings.dropout, self.training)

    @torch.no_grad()
    def attention_maps(self, batch: Batch) -> dict[str, torch.Tensor]:
        """`coarse` and, where it is trained, `fine`: float32 [B, frames, rows, columns], attention to each patch, mean
        over heads (of the last layer, where attention is deep), other tokens left out, sum 1. In evaluation mode."""
        was_training = self.training
        self.eval()
        frames, around = self._inputs(batch)
        around = _without_tail(around)
        coarse = self.coarse_look(frames, around)
        found = {COARSE: self._map(coarse)}
        if self.settings.mode == FINE:
            found[FINE] = self._map(self.fine_look(frames, around, coarse)[0])
        elif self.settings.mode == AUTOREGRESSIVE:
            found[FINE] = self._map(self.autoregressive_look(frames, around)[0])
        self.train(was_training)
        return found

    def _map(self, look: Look) -> torch.Tensor:
        weights = look.weights_BTN[:, :, self.patches.num_prefix :].float()
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights.reshape(*weights.shape[:2], self.patches.rows, self.patches.columns)

    def _inputs(self, batch: Batch) -> tuple[list[torch.Tensor], _Around]:
        frames = self.attention.frames(batch)
        nothing = self.fine_token.new_empty(len(frames[0]), 0, len(self.fine_token))
        text, is_text, tail = nothing, None, nothing
        if self.settings.text:
            check_ids(TEXT, batch[TEXT], self.language_model)
            text, is_text = self.language_model.embed(batch[TEXT]), batch[TEXT] >= 0
        if CAPTION in self.settings.heads:
            check_ids(CAPTIONS, batch[CAPTIONS], self.language_model)
            tail = self.language_model.embed(batch[CAPTIONS][:, :-1])
        return frames, _Around(text, is_text, tail)

    def _look(self, frames: list[torch.Tensor], queries: torch.Tensor, mode: torch.Tensor, around: _Around) -> Look:
        glimpse: Glimpse = self.attention(frames, queries)
        visual = self.visual_tokens(glimpse)
        parts = [around.text_BPW, mode.expand(len(visual), 1, -1), visual, around.tail_BLW]
        sequence = torch.cat([part for part in parts if part.shape[1]], dim=1)
        num_text, num_after = around.text_BPW.shape[1], sequence.shape[1] - around.text_BPW.shape[1]
        states = self.language_model(sequence, is_valid=_longer(around.is_text, num_after))
        first = num_text + 1
        last = first + self.num_frames
        return Look(states[:, first:last], states[:, last:], glimpse.entropy_BT, glimpse.weights_BTN)

    def _losses(self, look: Look, batch: Batch) -> Values:
        """Each head's values, and their weighted sum as `sum`."""
        found: Values = {}
        for head in self.heads.values():
            found |= head(look, batch)
        if CAPTION in self.settings.heads:
            found |= caption_values(look, batch, self.language_model)
        weighted = [weight * found[name] for name, weight in self.settings.heads.items()]
        return {"sum": torch.stack(weighted).sum(dim=0), **found}

    def _values(self, coarse: Values | None, fine: Values | None) -> Values:
        main = coarse if self.settings.mode == COARSE else fine
        assert main is not None
        loss = main["sum"]
        if self.settings.mode != COARSE and coarse is not None and self.settings.coarse_weight > 0:
            loss = loss + self.settings.coarse_weight * coarse["sum"]
        found = {name: value.detach() for name, value in main.items() if name != "sum"}
        both = {name: each["sum"].detach() for name, each in ((FINE, fine), (COARSE, coarse)) if each is not None}
        return {"loss": loss, **both, **found}


def _without_tail(around: _Around) -> _Around:
    return around._replace(tail_BLW=around.tail_BLW[:, :0])


def _longer(is_text: torch.Tensor | None, num_after: int) -> torch.Tensor | None:
    """With `num_after` tokens behind the text, all of them valid."""
    return None if is_text is None else functional.pad(is_text, (0, num_after), value=True)
