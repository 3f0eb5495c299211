"""Stages that tests of the pipeline are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from fovcache.errors import SampleError
from fovcache.pipeline.stage import Stage


def stage(run: Callable[[Any], Any] = lambda item: item, name: str = "decode", **settings: Any) -> Stage:
    return Stage(id=name, name=name, resource="cpu", run=run, **settings)


def pairs(items: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    while unit := tuple(itertools.islice(items, 2)):
        yield unit


def fail_on(*bad: int) -> Callable[[int], int]:
    def run(item: int) -> int:
        if item in bad:
            raise SampleError("decode", f"{item} is damaged", permanent=True)
        return item * 10

    return run
