"""The demo's inputs in its folder: the clips, and two manifests of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .moving_digits import MovingDigit, encode, moving_digits, pictures

CLIPS = "clips"
"""The folder's name."""
DIGITS, DIRECTIONS = "digits.csv", "directions.csv"
"""The manifests: the same clips, labelled by what they show and by where it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoClips:
    """The clips in a folder."""

    num_clips: int
    """Files."""
    num_sources: int
    """Source digits, each in several clips."""
    num_written: int
    """Files that were not there, or not whole, and were written now."""
    size_bytes: int
    """Of all."""


def write_clips(folder: Path, num_sources: int) -> DemoClips:
    """Encode the clips into `folder`; files that are there and the same are left alone."""
    clips, shown = moving_digits(num_sources), pictures()
    folder.mkdir(parents=True, exist_ok=True)
    num_written = size_bytes = 0
    for clip in clips:
        data = encode(clip, shown[clip.source])
        num_written += _write_if_other(folder / clip.name, data)
        size_bytes += len(data)
    return DemoClips(
        num_clips=len(clips),
        num_sources=len({clip.source for clip in clips}),
        num_written=num_written,
        size_bytes=size_bytes,
    )


def write_manifests(folder: Path, url: str, num_sources: int) -> None:
    """Write both manifests into `folder`, the clips being at `url`."""
    clips = moving_digits(num_sources)
    _write_if_other(folder / DIGITS, _manifest(clips, url, [clip.digit for clip in clips]))
    _write_if_other(folder / DIRECTIONS, _manifest(clips, url, [clip.direction for clip in clips]))


def port_of(folder: Path) -> int | None:
    """The port in the URLs of an earlier run's manifest; None where there is none."""
    try:
        with (folder / DIGITS).open() as file:
            return urlsplit(next(csv.DictReader(file))["uri"]).port
    except (OSError, StopIteration, KeyError, ValueError):
        return None


def _manifest(clips: Sequence[MovingDigit], url: str, labels: Sequence[object]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["uri", "label", "group"])
    writer.writerows([f"{url}/{clip.name}", label, clip.group] for clip, label in zip(clips, labels, strict=True))
    return text.getvalue().encode()


def _write_if_other(path: Path, data: bytes) -> bool:
    """Whether it had to be written."""
    if path.is_file() and path.read_bytes() == data:
        return False
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return True
