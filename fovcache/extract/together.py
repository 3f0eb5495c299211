"""One decode that feeds several inputs: what encoders read of the same sample, each at its own geometry."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from ..decode.geometry import Geometry
from ..decode.sampling import Window
from ..decode.video_file import VideoSource
from ..errors import SampleError
from .clips import ClipInput
from .extractor import InputSpec, Item
from .frames import FrameInput

_Read = TypeVar("_Read")


def read_together(specs: Sequence[InputSpec], data: bytes, name: str) -> list[Item | SampleError]:
    """For each input its item of one sample's bytes, or why it cannot be had.

    Inputs of frames that differ only in geometry and preprocessing share one decode, and those of equal geometry one
    array: it is not to be written to.
    """
    return _read(
        specs,
        alone=lambda spec: spec.read(data, name),
        shared=lambda spec, geometries: spec.read_to(data, geometries),
        failed=lambda error: error,
    )


def read_windows_together(
    specs: Sequence[InputSpec], source: VideoSource, windows: Sequence[Window]
) -> list[list[Item | SampleError]]:
    """For each input that reads windows one item for each of a file's, or why it cannot be had.

    Shared as in `read_together`.
    """
    return _read(
        specs,
        alone=lambda spec: list(spec.read_windows(source, windows)),
        shared=lambda spec, geometries: spec.read_windows_to(source, windows, geometries),
        failed=lambda error: [error] * len(windows),
    )


def _read(
    specs: Sequence[Any],
    *,
    alone: Callable[[Any], _Read],
    shared: Callable[[Any, Sequence[Geometry]], Sequence[_Read]],
    failed: Callable[[SampleError], _Read],
) -> list[_Read]:
    found: dict[int, _Read] = {}
    for numbers in _groups(specs):
        first = specs[numbers[0]]
        try:
            if len(numbers) == 1:
                found[numbers[0]] = alone(first)
                continue
            geometries = list(dict.fromkeys(specs[number].geometry for number in numbers))
            by_geometry = dict(zip(geometries, shared(first, geometries), strict=True))
            found |= {number: by_geometry[specs[number].geometry] for number in numbers}
        except SampleError as error:
            found |= {number: failed(error) for number in numbers}
    return [found[number] for number in range(len(specs))]


def _groups(specs: Sequence[InputSpec]) -> list[list[int]]:
    """The numbers of those that can share a decode."""
    groups: dict[Hashable, list[int]] = {}
    for number, spec in enumerate(specs):
        groups.setdefault(_decoding(spec, number), []).append(number)
    return list(groups.values())


def _decoding(spec: InputSpec, number: int) -> Hashable:
    kind: type[FrameInput]
    for kind, methods in ((ClipInput, ("read", "read_windows")), (FrameInput, ("read",))):
        # One that reads in a way of its own is left to it.
        if isinstance(spec, kind) and all(getattr(type(spec), name) is getattr(kind, name) for name in methods):
            return kind, spec.decoding
    return number
