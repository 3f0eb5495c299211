"""Fetching and decoding units: the stages that run on several threads, as the decoders release the GIL."""

from __future__ import annotations

from ..decode.sampling import WHOLE
from ..decode.video_file import VideoSource
from ..errors import SampleError
from ..extract.extractor import InputSpec, Item, WindowedInputSpec
from ..keys.digest import bytes_digest
from ..sources.sample import Location
from .units import Unit


def fetch(unit: Unit) -> Unit:
    """Read a unit's bytes, or check its file, against the content that the samples are known by. Raises SampleError."""
    unit.data = _checked_bytes(unit.work.resolved.spec, unit.location)
    return unit


def decode(unit: Unit) -> Unit:
    """Fill in a unit's items, with a SampleError for what cannot be decoded."""
    data, unit.data = unit.data, None
    try:
        unit.items = _items(unit.work.resolved.spec, unit.locations, data)
    except SampleError as error:
        unit.items = [error] * len(unit.keys)
    return unit


def read_item(spec: InputSpec, location: Location) -> Item:
    """One sample's input, read now. Raises SampleError."""
    (item,) = _items(spec, (location,), _checked_bytes(spec, location))
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


def _items(spec: InputSpec, locations: tuple[Location, ...], data: bytes | None) -> list[Item | SampleError]:
    first = locations[0]
    if isinstance(spec, WindowedInputSpec):
        source = VideoSource(path=first.place.path, offset=first.offset, size=first.size)
        return list(spec.read_windows(source, [location.window for location in locations]))
    assert data is not None
    item = None
    items: list[Item | SampleError] = []
    for location in locations:
        if location.window != WHOLE:
            reason = f"a window from {location.window.start_s} s of what has no time"
            items.append(SampleError("decode", reason, permanent=True))
            continue
        item = spec.read(data, first.name) if item is None else item
        items.append(item)
    return items
