"""What the figures of feature quality show, in words: a caption for everybody, and the picture's content."""

from __future__ import annotations

from fovcache.probes.quality.result import Quality

from .layer_similarity import compared_layers
from .names import shown
from .numbers import ABSENT, count, digits
from .rank_bars import shown_layers

_MAX_SPOKEN = 40


def ranks_caption(quality: Quality) -> str:
    """How to read the bars."""
    text = (
        "Ranks by layer, from the input down. Variance rank: in how many directions the variance lies, and that as a "
        "share of what as many vectors without a preferred direction have. RankMe: of the singular values of vectors "
        "as they are, not centred. Hollow: the same encoder with random weights. "
    )
    hidden = len(quality.layers) - len(shown_layers(quality))
    return text + (f"{count(hidden)} more layers are in the table alone." if hidden > 0 else "")


def ranks_alt(quality: Quality) -> str:
    """The bars' content."""
    parts = [
        f"{shown(each.layer, 40)} {digits(each.numbers.variance_rank)}"
        + (f" (twin {digits(each.twin.variance_rank)})" if each.twin else "")
        for each in shown_layers(quality)[:_MAX_SPOKEN]
    ]
    more = len(shown_layers(quality)) - len(parts)
    return f"Variance rank by layer: {'; '.join(parts)}{f'; and {count(more)} more' if more > 0 else ''}."


def similarity_caption(quality: Quality) -> str:
    """How to read the square."""
    text = (
        "Debiased linear CKA of each layer with each: 0 for unrelated layers, 1 for equal ones but for rotation, size "
        f"and offset; {ABSENT} where a layer does not vary. Right: each layer with its twin of random weights, where "
        "there is one. "
    )
    hidden = len(quality.layers) - len(compared_layers(quality))
    return text + (f"{count(hidden)} more layers are in the result's file alone." if hidden > 0 else "")


def similarity_alt(quality: Quality) -> str:
    """The square's content: neighbours, and the ends."""
    names = [shown(each.layer, 40) for each in quality.layers]
    values = [(place, quality.cka[place][place + 1]) for place in range(len(names) - 1)]
    parts = [
        f"{names[place]} and {names[place + 1]} {ABSENT if value is None else digits(value)}"
        for place, value in values[-_MAX_SPOKEN:]
    ]
    ends = ABSENT if quality.cka[0][-1] is None else digits(quality.cka[0][-1])
    return f"CKA of neighbouring layers: {'; '.join(parts)}. First and last: {ends}."
