"""What H.264 and HEVC packets hold, as far as it decides where decoding can begin and what may be passed over.

Formats: ITU-T H.264 7.3.1, D.1.8 and H.265 7.3.1.2 (NAL unit headers, recovery points), ISO/IEC 14496-15
(length-prefixed units, avcC and hvcC headers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_AVC_SLICES, _AVC_IDR, _AVC_SEI, _AVC_PARAMETERS = frozenset({1, 5}), 5, 6, frozenset({7, 8, 13, 15})
_HEVC_SLICES, _HEVC_PARAMETERS = frozenset({*range(10), *range(16, 22)}), frozenset({32, 33, 34})
_HEVC_ENTRIES, _HEVC_UNNEEDED = range(16, 22), frozenset(range(0, 10, 2))
_RECOVERY_POINT = 6
_AVC_INTRA_TYPES = (2, 7)


@dataclass(frozen=True, slots=True)
class PacketUnits:
    """What the units of one packet tell."""

    is_plain: bool
    """Whether the packet gives one frame by what the stream's header says: slices that can be read are in it, and no
    parameter sets that the header has not."""
    is_needed: bool
    """Whether other frames may need this one."""
    is_base_layer: bool
    """Whether no unit is of a higher temporal layer, where a picture that its own layer does not need can still be
    needed by others."""


_ODD = PacketUnits(False, True, False)


class UnitReader:
    """Looks into the packets of one stream."""

    def __init__(self, *, is_avc: bool, header: bytes, prefix_bytes: int) -> None:
        self._is_avc = is_avc
        self._header = header
        self._prefix_bytes = prefix_bytes

    def read(self, packet: memoryview) -> PacketUnits:
        """What the packet holds."""
        end, has_slice, is_needed, is_base_layer = 0, False, False, True
        for start, end in self._units(packet):
            kind = self._kind(packet[start])
            if kind in (_AVC_SLICES if self._is_avc else _HEVC_SLICES):
                has_slice = True
                is_needed |= packet[start] & 0x60 != 0 if self._is_avc else kind not in _HEVC_UNNEEDED
            elif kind in (_AVC_PARAMETERS if self._is_avc else _HEVC_PARAMETERS):
                unit = bytes(packet[start:end])
                if len(unit).to_bytes(4, "big")[2:] + unit not in self._header:
                    return _ODD
            is_base_layer &= self._is_avc or packet[start + 1] & 7 == 1
        is_whole = end == len(packet)
        return PacketUnits(has_slice, is_needed or not is_whole, is_base_layer)

    def can_begin(self, packet: memoryview) -> bool:
        """Whether decoding from here gives this picture, and all that are shown after it, bit for bit."""
        is_recovery = is_entry = False
        for start, end in self._units(packet):
            kind = self._kind(packet[start])
            if not self._is_avc:
                if kind in _HEVC_SLICES:
                    return kind in _HEVC_ENTRIES
            elif kind == _AVC_SEI:
                is_recovery |= _is_exact_recovery(bytes(packet[start + 1 : end]))
            elif kind in _AVC_SLICES:
                # Encoders name pictures in the midst of an intra refresh as exact, and they are not.
                if kind != _AVC_IDR and not (is_recovery and _is_intra_slice(bytes(packet[start + 1 : end][:16]))):
                    return False
                is_entry = True
        return is_entry

    def _kind(self, header: int) -> int:
        return header & 31 if self._is_avc else (header >> 1) & 63

    def _units(self, packet: memoryview) -> Iterator[tuple[int, int]]:
        """Where each unit begins and ends; the last end is not the packet's where the lengths are wrong."""
        at, size = 0, len(packet)
        while at + self._prefix_bytes + 1 < size:
            start = at + self._prefix_bytes
            at = start + int.from_bytes(packet[at:start], "big")
            yield start, at


def unit_reader(codec: str, header: bytes | None) -> UnitReader | None:
    """A reader for `h264` or `hevc` by the stream's header; None where units are not length-prefixed."""
    is_avc = codec == "h264"
    at = 4 if is_avc else 21
    if header is None or len(header) <= at or header[0] != 1:
        return None
    return UnitReader(is_avc=is_avc, header=header, prefix_bytes=(header[at] & 3) + 1)


def _is_exact_recovery(messages: bytes) -> bool:
    """Whether a unit of SEI messages names this very picture as a recovery point, and the pictures after it exact."""
    data, at = messages.replace(b"\0\0\3", b"\0\0"), 0
    while at < len(data):
        fields = []
        for _ in range(2):  # the kind and the size: bytes of 255, and one that ends each
            value = 0
            while at < len(data) and data[at] == 255:
                value, at = value + 255, at + 1
            if at >= len(data):
                return False
            fields.append(value + data[at])
            at += 1
        if fields[0] == _RECOVERY_POINT:
            return at < len(data) and data[at] >> 6 == 0b11  # no pictures to wait for, exact from then on
        at += fields[1]
    return False


def _is_intra_slice(slice_header: bytes) -> bool:
    data = slice_header.replace(b"\0\0\3", b"\0\0")
    bits = "".join(f"{byte:08b}" for byte in data)
    values = []
    for _ in range(2):  # the first macroblock's number and the slice's type: Exp-Golomb codes
        zeros = len(bits) - len(bits.lstrip("0"))
        length = 2 * zeros + 1
        if length > len(bits):
            return False
        values.append(int(bits[zeros:length], 2) - 1)
        bits = bits[length:]
    return values[1] in _AVC_INTRA_TYPES
