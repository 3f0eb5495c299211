"""What a decoder in a process of its own is asked and answers: lengths, JSON, and raw bytes behind it.

No pickle: whoever takes over the process that decodes must not get at the one that asks.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BufferedIOBase
from typing import Any

import numpy as np

from ..errors import SampleError
from .geometry import Geometry
from .limits import Limits
from .sampling import Sampling, Window
from .video import ClipOrError, DecodedClip
from .video_file import VideoSource

_LENGTHS = struct.Struct("<QQ")
_MAX_HEADER_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be decoded, and how."""

    source: VideoSource
    """The file, a part of it, or bytes."""
    sampling: Sampling
    """Which frames."""
    windows: tuple[Window, ...]
    """Of which parts."""
    geometries: tuple[Geometry, ...]
    """What the frames are brought to."""
    limits: Limits
    """What is refused."""
    backend: str
    """`pyav`, `ffmpeg`, or `pillow` for still images."""

    def send(self, stream: BufferedIOBase) -> None:
        """Write it to a pipe. Raises OSError."""
        header = asdict(self)
        data = header["source"].pop("data")
        send(stream, header, [data])

    @classmethod
    def of_message(cls, header: Mapping[str, Any], data: np.ndarray) -> Job:
        """What `send` wrote."""
        values = dict(header)
        return cls(
            source=VideoSource(**values.pop("source"), data=data.tobytes()),
            sampling=Sampling(**values.pop("sampling")),
            windows=tuple(Window(**window) for window in values.pop("windows")),
            geometries=tuple(Geometry(**geometry) for geometry in values.pop("geometries")),
            limits=Limits(**values.pop("limits")),
            **values,
        )


def send(stream: BufferedIOBase, header: Mapping[str, Any], payloads: Sequence[Any] = ()) -> None:
    """Write one message; `payloads` are contiguous buffers. Raises OSError."""
    parts = [memoryview(payload).cast("B") for payload in payloads]
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), sum(len(part) for part in parts)) + text)
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BufferedIOBase, max_bytes: int) -> tuple[dict[str, Any], np.ndarray]:
    """Read one message: its header, and its payload as uint8 [bytes]. Raises EOFError, OSError, ValueError."""
    num_header, num_payload = _LENGTHS.unpack(_read(stream, _LENGTHS.size).tobytes())
    if num_header > _MAX_HEADER_BYTES or num_payload > max_bytes:
        raise ValueError(f"a message of {num_header} and {num_payload} bytes")
    header = json.loads(_read(stream, num_header).tobytes())
    if not isinstance(header, dict):
        raise ValueError("a message that is no object")
    return header, _read(stream, num_payload)


def _read(stream: BufferedIOBase, num: int) -> np.ndarray:
    data = np.empty(num, np.uint8)
    if num and stream.readinto(data.data) < num:
        raise EOFError("the pipe is closed")
    return data


def send_outcomes(stream: BufferedIOBase, outcomes: Iterable[Sequence[ClipOrError]]) -> None:
    """Write the clips of each geometry, and errors in the places of others. Raises OSError."""
    described, payloads = [], []
    for clips in outcomes:
        described.append([_described(clip) for clip in clips])
        payloads += [np.ascontiguousarray(clip.frames).data for clip in clips if isinstance(clip, DecodedClip)]
    send(stream, {"outcomes": described}, payloads)


def _described(clip: ClipOrError) -> dict[str, Any]:
    if isinstance(clip, SampleError):
        return error_document(clip)
    return {"shape": clip.frames.shape, "pts_s": clip.pts_s.tolist()}


def outcomes_of(header: Mapping[str, Any], payload: np.ndarray) -> list[list[ClipOrError]]:
    """What `send_outcomes` wrote. Raises KeyError, TypeError, ValueError for what it cannot have written."""
    at = 0

    def outcome(described: Mapping[str, Any]) -> ClipOrError:
        nonlocal at
        if "stage" in described:
            return error_of(described)
        shape = tuple(int(length) for length in described["shape"])
        pts_s = np.array(described["pts_s"], np.float64)
        if len(shape) != 4 or min(shape) < 1 or shape[3] != 3 or pts_s.shape != shape[:1]:
            raise ValueError(f"frames of shape {shape}")
        begin, at = at, at + math.prod(shape)
        return DecodedClip(frames=payload[begin:at].reshape(shape), pts_s=pts_s)

    outcomes = [[outcome(described) for described in clips] for clips in header["outcomes"]]
    if at != len(payload):
        raise ValueError(f"{len(payload)} bytes, of which {at} are frames")
    return outcomes


def error_document(error: SampleError) -> dict[str, Any]:
    """A SampleError as JSON."""
    return {"stage": error.stage, "reason": error.reason, "permanent": error.permanent}


def error_of(document: Mapping[str, Any]) -> SampleError:
    """The SampleError again. Raises KeyError."""
    return SampleError(str(document["stage"]), str(document["reason"]), permanent=bool(document["permanent"]))
