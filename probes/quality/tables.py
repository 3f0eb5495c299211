"""Feature quality as tables of texts: what the command prints and its page holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..tables.ablation_tables import TextTable
from .result import Numbers, Quality

_NONE = "–"
_MAX_COMPARED = 24


def ranks_table(quality: Quality) -> TextTable:
    """One row for each layer, and one below it for its twin."""
    columns = [">N", ">D", ">variance rank", ">of Gaussian", ">participation ratio", ">largest share",
               ">effective rank", ">RankMe"]  # fmt: skip
    rows = []
    for each in quality.layers:
        rows.append((each.layer, each.verdict, *_ranks(each.numbers)))
        if each.twin is not None:
            rows.append((f"  twin of {each.layer}", "", *_ranks(each.twin)))
    return TextTable(title="Ranks", columns=("layer", "verdict", *columns), rows=tuple(rows))


def _ranks(numbers: Numbers) -> tuple[str, ...]:
    return (
        f"{numbers.num_vectors:,}",
        f"{numbers.num_dimensions:,}",
        f"{numbers.variance_rank:.2f}",
        f"{100 * numbers.gaussian_share:.1f} %",
        f"{numbers.participation_ratio:.2f}",
        f"{100 * numbers.largest_share:.1f} %",
        f"{numbers.effective_rank:.2f}",
        f"{numbers.rankme:.2f}",
    )


def spread_table(quality: Quality) -> TextTable:
    """The same rows: how large, how even."""
    columns = (">variance", ">constant", ">mean cosine", ">isotropy", ">uniformity", ">CKA with twin")
    rows = []
    for each in quality.layers:
        rows.append((each.layer, *_spread(each.numbers), _number(each.cka_with_twin, 3)))
        if each.twin is not None:
            rows.append((f"  twin of {each.layer}", *_spread(each.twin), ""))
    return TextTable(title="Spread and direction", columns=("layer", *columns), rows=tuple(rows))


def _spread(numbers: Numbers) -> tuple[str, ...]:
    return (
        f"{numbers.mean_variance:.3g}",
        f"{numbers.num_constant:,}",
        _number(numbers.mean_cosine, 3),
        _number(numbers.isotropy, 3),
        _number(numbers.uniformity, 2),
    )


def cka_table(quality: Quality) -> TextTable:
    """Layers by layers; the last of them where there are many, which the JSON has all."""
    first = max(0, len(quality.layers) - _MAX_COMPARED)
    names = [each.layer for each in quality.layers]
    rows = ((names[place], *(_number(value, 2) for value in quality.cka[place][first:])) for place in
            range(first, len(names)))  # fmt: skip
    cut = f", of the last {_MAX_COMPARED} layers" if first else ""
    return TextTable(
        title=f"Debiased CKA between layers{cut}",
        columns=("layer", *(f">{name}" for name in names[first:])),
        rows=tuple(rows),
    )


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def sentences(quality: Quality) -> Iterator[str]:
    """What it is of, and what a reader should take home."""
    of = f"split {quality.split} of dataset" if quality.split else "dataset"
    drawn = ""
    if quality.num_samples < quality.num_available:
        drawn = f", drawn by content from {quality.num_available:,} (seed {quality.seed}; --max-samples takes more)"
    yield (
        f"{quality.encoder} ({quality.weights}; {quality.pool}, {quality.store_dtype}), {of} {quality.dataset}: "
        f"{quality.num_samples:,} samples{drawn}. Vectors: {quality.vectors}."
    )
    num = len(quality.layers)
    yield f"Verdict of {num} layer{'s' * (num > 1)}: {quality.verdicts}."
    for layers, kind, reason in quality.findings:
        yield f"{', '.join(layers)}: {kind}, since {reason}."
    if quality.twin_weights:
        yield f"Beside it the same encoder with random weights ({quality.twin_weights}), and the same samples."
    elif quality.twin_advice:
        yield f"No twin: {quality.twin_advice}"


def shown_tables(quality: Quality) -> Sequence[TextTable]:
    """All of them; CKA where there is something to compare."""
    compared = [cka_table(quality)] if len(quality.layers) > 1 else []
    return [ranks_table(quality), spread_table(quality), *compared]
