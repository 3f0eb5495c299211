"""Settings of the foveated model, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fovcache.errors import UsageError, nearest

from .sizes import SIZES, LanguageSize

SHALLOW, DEEP = "shallow", "deep"
ATTENTIONS = (SHALLOW, DEEP)
FINE, COARSE, AUTOREGRESSIVE = "fine", "coarse", "autoregressive"
MODES = (FINE, COARSE, AUTOREGRESSIVE)
PREDICTED, RANDOM, SHUFFLED = "predicted", "random", "shuffled"
QUERIES = (PREDICTED, RANDOM, SHUFFLED)
RECONSTRUCTION, CAPTION, LABELS = "reconstruction", "caption", "labels"
HEADS = (RECONSTRUCTION, CAPTION, LABELS)
NO_LABEL = "."
"""Stands for a frame without a label."""
_SIZE_KEYS = tuple(each.name for each in fields(LanguageSize))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoveatedSettings:
    """All settings, checked. Raises UsageError naming the setting."""

    heads: Mapping[str, float] = field(hash=False)
    """What is predicted, of HEADS, with its weight in the loss. A list of names stands for weights of 1."""
    size: str = "smollm2-135m"
    """The language model, of SIZES."""
    width: int | None = None
    """Instead of the size's, as the five after it: numbers of a token."""
    layers: int | None = None
    """Blocks."""
    language_heads: int | None = None
    """Heads of its attention."""
    key_value_heads: int | None = None
    """Heads of its keys and values; divides `language_heads`."""
    inner_width: int | None = None
    """Of its MLPs."""
    vocabulary: int | None = None
    """Tokens."""
    language_weights: str | None = None
    """A folder, a hub id or `random:SEED`; None for random ones by the run's seed."""
    attention: str = SHALLOW
    """Of ATTENTIONS. `shallow`: over the encoder's final tokens, with keys and values that are trained. `deep`: the
    query goes through every frozen layer of the encoder."""
    attention_heads: int | None = None
    """Of shallow attention; None for the size's."""
    encoder: str | None = None
    """Of deep attention: the encoder's name; None for `dinov2-small`."""
    mode: str = FINE
    """Of MODES: which pass is trained. `fine` looks once with the static query, predicts a query for each frame from
    what came before it, and looks again. `coarse` is the first look alone. `autoregressive` takes the query of a
    frame from the fine sequence itself, frame by frame."""
    fine_passes: int = 1
    """Of `fine`: how often it looks again, each time with queries from the last pass."""
    queries: str = PREDICTED
    """Of QUERIES: what the fine pass looks with. `random` and `shuffled` (another frame's, of any sample of the batch)
    are controls."""
    coarse_weight: float = 1.0
    """Of the coarse pass's loss in `loss`; not used where `mode` is `coarse`."""
    text: bool = False
    """Whether a text comes before the frames: the need `text`."""
    alphabet: str | None = None
    """Of the head `labels`: the characters that are its classes, in order. `.` stands for a frame without a label."""
    reconstruction_channels: int | None = None
    """Of the head `reconstruction`: channels between its convolutions; None for the size's."""
    visual_scale: float | None = None
    """Standard deviation of visual tokens when training begins; None for that of the language model's embeddings."""
    dropout: float = 0.0
    """Share of each visual token's numbers that are dropped while training."""

    def __post_init__(self) -> None:
        _check_one_of("size", self.size, SIZES)
        _check_one_of("attention", self.attention, ATTENTIONS)
        _check_one_of("mode", self.mode, MODES)
        _check_one_of("queries", self.queries, QUERIES)
        for key in ("fine_passes", "attention_heads", "reconstruction_channels", *_SIZE_KEYS):
            value = getattr(self, key)
            _check(value is None or (_is_whole(value) and value >= 1), key, value, "a whole number, at least 1")
        for key in ("language_weights", "encoder", "alphabet"):
            value = getattr(self, key)
            _check(value is None or (isinstance(value, str) and value != ""), key, value, "a text")
        _check(isinstance(self.text, bool), "text", self.text, "true or false")
        _check(_is_number(self.coarse_weight) and self.coarse_weight >= 0, "coarse_weight", self.coarse_weight, "≥ 0")
        _check(_is_number(self.dropout) and 0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        scale = self.visual_scale
        _check(scale is None or (_is_number(scale) and scale > 0), "visual_scale", scale, "more than 0")
        self._check_heads()
        self._check_together()
        _ = self.language_size

    @property
    def language_size(self) -> LanguageSize:
        """The size with what is set instead. Raises UsageError where the numbers do not fit together."""
        given = {key: getattr(self, key) for key in _SIZE_KEYS if getattr(self, key) is not None}
        return replace(SIZES[self.size].language, **given)

    def document(self) -> dict[str, Any]:
        """Every setting. What is set to what the size has anyway counts as not set."""
        found = {**asdict(self), "heads": dict(self.heads)}
        size = SIZES[self.size].language
        return found | {key: None for key in _SIZE_KEYS if found[key] == getattr(size, key)}

    def _check_heads(self) -> None:
        _check(len(self.heads) > 0, "heads", list(self.heads), f"at least one of {', '.join(HEADS)}")
        for head, weight in self.heads.items():
            _check_one_of("heads", head, HEADS)
            _check(_is_number(weight) and weight > 0, f"heads.{head}", weight, "a weight of more than 0")
        if LABELS in self.heads:
            letters = self.alphabet or ""
            fits = len(letters) >= 2 and letters.isascii() and len(set(letters)) == len(letters)
            expected = f"at least two ASCII characters, each once and not {NO_LABEL!r}: the classes of `labels`"
            _check(fits and NO_LABEL not in letters, "alphabet", self.alphabet, expected)

    def _check_together(self) -> None:
        """A setting that nothing would read is refused, but for what a coarse arm has from its base."""
        is_predicted = self.queries == PREDICTED
        for key, is_read, where in (
            ("alphabet", LABELS in self.heads, "the head `labels`"),
            ("reconstruction_channels", RECONSTRUCTION in self.heads, "the head `reconstruction`"),
            ("attention_heads", self.attention == SHALLOW, 'attention = "shallow"'),
            ("encoder", self.attention == DEEP, 'attention = "deep"'),
        ):
            if getattr(self, key) is not None and not is_read:
                raise UsageError(f"{key} = {getattr(self, key)!r} is read by {where} alone; leave it out")
        if self.mode != FINE and not is_predicted:
            raise UsageError(f'queries = {self.queries!r} is for mode = "fine"; with mode = {self.mode!r} leave it out')
        if self.mode == AUTOREGRESSIVE and self.fine_passes != 1:
            raise UsageError(f'fine_passes = {self.fine_passes} is for mode = "fine"; leave it out')


def read_settings(given: Mapping[str, Any]) -> FoveatedSettings:
    """The settings of a configuration's `[model]`. Raises UsageError, also for one that is not known."""
    known = [each.name for each in fields(FoveatedSettings)]
    for key in given:
        if key not in known:
            raise UsageError(f"the foveated model has no setting {key!r}{nearest(key, known)}")
    if "heads" not in given:
        raise UsageError(f"the foveated model needs `heads`, a list of what it predicts: {', '.join(HEADS)}")
    heads = given["heads"]
    if isinstance(heads, Sequence) and not isinstance(heads, str):
        heads = {head: 1.0 for head in heads if isinstance(head, str)} if all(map(_is_text, heads)) else None
    _check(isinstance(heads, Mapping), "heads", given["heads"], "a list of names, or a table of names and weights")
    return FoveatedSettings(**{**given, "heads": heads})


def _check_one_of(key: str, value: object, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(f"{key} = {value!r}{nearest(str(value), allowed)}")


def _check(fits: bool, key: str, value: object, expected: str) -> None:
    if not fits:
        raise UsageError(f"{key} = {value!r}, expected {expected}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
