"""What H.264 and HEVC packets hold, as far as it decides which of them may be passed over.

Formats: ITU-T H.264 7.3.1 and H.265 7.3.1.2 (NAL unit headers), ISO/IEC 14496-15 (length-prefixed units).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PacketUnits:
    """What the units of one packet tell."""

    is_picture: bool
    """Whether decoding the packet gives a frame: a slice is in it, as far as it can be read."""
    can_skip: bool
    """Whether reference flags can be trusted: the units fill the packet, and none is of a higher temporal layer,
    where a picture that its own layer does not refer to can still be needed."""


UnitReader: TypeAlias = Callable[[memoryview], PacketUnits]

_PLAIN = PacketUnits(True, True)
_NO_PICTURE = PacketUnits(False, False)
_NO_SKIPPING = PacketUnits(True, False)


def unit_reader(codec: str, extradata: bytes | None) -> UnitReader | None:
    """A function that looks into packets of `h264` or `hevc`; None where their units are not length-prefixed."""
    is_avc = codec == "h264"
    at = 4 if is_avc else 21
    if extradata is None or len(extradata) <= at or extradata[0] != 1:
        return None
    prefix = (extradata[at] & 3) + 1
    is_slice = _is_h264_slice if is_avc else _is_hevc_slice

    def read(packet: memoryview) -> PacketUnits:
        at, end, has_slice, is_base_layer = 0, len(packet), False, True
        while at + prefix + 1 < end:
            header = at + prefix
            has_slice |= is_slice(packet[header])
            is_base_layer &= is_avc or packet[header + 1] & 7 == 1
            at = header + int.from_bytes(packet[at:header])
        if at != end:
            return _NO_SKIPPING
        if not has_slice:
            return _NO_PICTURE
        return _PLAIN if is_base_layer else _NO_SKIPPING

    return read


def _is_h264_slice(header: int) -> bool:
    return 1 <= header & 31 <= 5


def _is_hevc_slice(header: int) -> bool:
    return (header >> 1) & 63 < 32
