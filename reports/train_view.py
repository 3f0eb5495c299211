"""What the templates of controlled training need: the suite, its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fovcache.probes.train.result import TrainSuite, Verdict

from . import train_captions as captions
from .attention_maps import draw_attention
from .names import listed, shown
from .numbers import count
from .picture import Draw, Picture, Words, draw_picture
from .table import Table
from .train_curves import draw_looks, draw_loss
from .train_forest import draw_verdict
from .train_runs import metric_of, states, task_name, tasks, validation
from .train_tables import train_tables
from .train_time import draw_time

FIGURES: tuple[tuple[str, Draw[TrainSuite], Words[TrainSuite], Words[TrainSuite]], ...] = (
    ("train_verdict", draw_verdict, captions.verdict_caption, captions.verdict_alt),
    ("train_loss", draw_loss, captions.loss_caption, captions.loss_alt),
    ("train_looks", draw_looks, captions.looks_caption, captions.looks_alt),
    ("train_attention", draw_attention, captions.attention_caption, captions.attention_alt),
    ("train_time", draw_time, captions.time_caption, captions.time_alt),
)
_SENTENCE_LETTERS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainView:
    """Controlled training on a page."""

    suite: TrainSuite
    """The result."""
    file: str
    """The name of its file."""
    prefix: str
    """What the ids of its elements begin with."""
    verdict: str
    """What may be said, in a sentence."""
    control: str
    """What may be said of the negative control; empty where there is none."""
    pictures: Mapping[str, Picture]
    """By the figure's name; those that there are numbers for."""
    tables: Mapping[str, Table]
    """By name; empty ones too."""
    data: tuple[str, ...]
    """What was trained on what, in sentences."""


def train_view(suite: TrainSuite, *, file: str, number: int) -> TrainView:
    """Controlled training with its figures drawn; the first's are `train_verdict` …, a second's `train_verdict-2` …"""
    prefix = f"training-{number}-"
    files = {figure: figure if number == 1 else f"{figure}-{number}" for figure, *_ in FIGURES}
    drawn = {figure: draw_picture(suite, files[figure], draw, caption, alt) for figure, draw, caption, alt in FIGURES}
    return TrainView(
        suite=suite,
        file=file,
        prefix=prefix,
        verdict=verdict_sentence(suite),
        control=_sentence(suite.control_verdict, "Negative control") if suite.control_verdict else "",
        pictures={figure: picture for figure, picture in drawn.items() if picture},
        tables=train_tables(suite, prefix),
        data=tuple(_data(suite)),
    )


def verdict_sentence(suite: TrainSuite) -> str:
    """What may be said."""
    return _sentence(suite.verdict, "Verdict") if suite.verdict else "No verdict was asked for."


def _sentence(verdict: Verdict, what: str) -> str:
    return f"{what}: {shown(verdict.sentence, _SENTENCE_LETTERS).rstrip('.')}."


def in_a_sentence(suite: TrainSuite) -> str:
    """For the summary: the verdict, and how many runs it comes from."""
    said = verdict_sentence(suite).removeprefix("Verdict: ")
    return f"Controlled training {shown(suite.name, 40)}: {said} Runs: {states(suite) or 'none'}."


def _data(suite: TrainSuite) -> Iterator[str]:
    yield (
        f"Dataset {shown(suite.dataset)} of the cache {shown(suite.cache)}. Runs: {states(suite) or 'none'}; seeds "
        f"{listed(map(str, sorted({run.seed for run in suite.runs})))}. Compared by {shown(metric_of(suite), 40)} on "
        f"{validation(suite)}, the smaller the better."
    )
    if suite.control:
        yield f"The negative control is the main task but for {shown(suite.control, _SENTENCE_LETTERS)}."
    for task in tasks(suite):
        hashes = sorted({run.validation_hash for run in suite.runs if run.task == task})
        if len(hashes) > 1:
            yield (
                f"The runs of the {shown(task_name(task), 40)} were evaluated on {count(len(hashes))} different "
                f"validation sets ({listed(digest[:12] for digest in hashes)}): do not compare them."
            )
