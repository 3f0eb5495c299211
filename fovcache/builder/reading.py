"""Fetching and decoding units: the stages that run on several threads, as the decoders release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..decode.sampling import WHOLE
from ..decode.video_file import VideoSource
from ..errors import SampleError
from ..extract.extractor import InputSpec, Item, WindowedInputSpec
from ..extract.together import read_together, read_windows_together
from ..keys.digest import bytes_digest
from ..pipeline.stage import Stage
from ..sources.sample import Caption, Located, Location
from .units import Unit

if TYPE_CHECKING:
    import torch

MAX_FETCHED_BYTES = 256 << 20
"""Samples that wait to be decoded take at most about this."""
_FETCH_THREADS = 4
_BESIDE_THE_CPU = 10
"""Niceness of decoding where encoders run on the same cores: each of torch's threads waits for the slowest of them, so
that one that decoding keeps off its core holds up all."""


def fetch_stage(threads: int, run: Callable[[Unit], Unit]) -> Stage:
    """The stage that brings a unit's bytes, by `fetch` and what must be done before it."""
    return Stage(
        id="fetch",
        name="read and check",
        resource="disk",
        run=run,
        num_workers=min(threads, _FETCH_THREADS),
        max_queued=2 * _FETCH_THREADS,
        size_of=lambda unit: unit.size_bytes,
    )


def decode_stage(threads: int, timeout_s: float, device: torch.device) -> Stage:
    """The stage that decodes units, for encoders on `device`."""
    return Stage(
        id="decode",
        name="decode",
        resource="cpu",
        run=decode,
        num_workers=threads,
        max_queued=4 * threads,
        max_queued_bytes=MAX_FETCHED_BYTES,
        size_of=lambda unit: unit.size_bytes,
        timeout_s=timeout_s,
        niceness=_BESIDE_THE_CPU if device.type == "cpu" else 0,
    )


def fetch(unit: Unit) -> Unit:
    """Read a unit's bytes, or check its file, against the content that the samples are known by. Raises SampleError."""
    if isinstance(unit.location, Location):
        unit.data = _checked_bytes(unit.specs[0], unit.location)
    return unit


def decode(unit: Unit) -> Unit:
    """Fill in a unit's items, with a SampleError for what cannot be decoded. Each frame is decoded once."""
    data, unit.data = unit.data, None
    try:
        unit.items = _items(unit.specs, unit.locations, data)
    except SampleError as error:
        unit.items = [[error] * len(unit.locations)] * len(unit.specs)
    return unit


def read_item(spec: InputSpec, location: Located) -> Item:
    """One sample's input, read now. Raises SampleError."""
    data = _checked_bytes(spec, location) if isinstance(location, Location) else None
    ((item,),) = _items((spec,), (location,), data)
    if isinstance(item, SampleError):
        raise item
    return item


def _checked_bytes(spec: InputSpec, location: Location) -> bytes | None:
    """The bytes; None for an input that is read from its file, of which there may be more than memory holds."""
    try:
        data = None if isinstance(spec, WindowedInputSpec) else location.read()
        digest = location.digest() if data is None else bytes_digest(data)
    except OSError as error:
        reason = f"cannot read {location.name}: {error.strerror or error}"
        raise SampleError("fetch", reason, permanent=False) from error
    if digest != location.content:
        raise SampleError("fetch", f"{location.name} changed since it was scanned", permanent=False)
    return data


def _items(
    specs: Sequence[InputSpec], located: Sequence[Located], data: bytes | None
) -> list[list[Item | SampleError]]:
    """For each input one item for each location, all in the same file; or for each caption."""
    locations = [each for each in located if isinstance(each, Location)]
    if not locations:
        captions = [each.text for each in located if isinstance(each, Caption)]
        return [[_read_text(spec, text) for text in captions] for spec in specs]
    first = locations[0]
    if data is None:
        source = VideoSource(path=first.place.path, offset=first.offset, size=first.size)
        return read_windows_together(specs, source, [location.window for location in locations])
    whole = read_together(specs, data, first.name)
    return [[item if each.window == WHOLE else _no_time(each) for each in locations] for item in whole]


def _read_text(spec: InputSpec, text: str | None) -> Item | SampleError:
    if text is None:
        return SampleError("fetch", "it has no caption", permanent=True)
    try:
        return spec.read(text.encode(), "its caption")
    except SampleError as error:
        return error


def _no_time(location: Location) -> SampleError:
    reason = f"a window from {location.window.start_s} s of what has no time"
    return SampleError("decode", reason, permanent=True)
