"""Captions instead of samples' bytes: where their encoders find what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UsageError
from ..sources.sample import Caption, Located
from ..sources.scan import Found, Scan
from ..store.dataset import SampleTable
from ..store.shard import keys_hex
from .request import Resolution


def located(found: Found, resolution: Resolution) -> Mapping[str, Located]:
    """By the key that its rows have, what an encoder reads of samples."""
    return found.captions if resolution.is_of_captions else found.locations


def suffixes_of(resolutions: Sequence[Resolution]) -> frozenset[str]:
    """Endings of the samples of a build. An encoder of captions takes samples of whatever kind the others read."""
    return next((each for each in resolutions if not each.is_of_captions), resolutions[0]).suffixes


def check_captions(scan: Scan, resolutions: Sequence[Resolution]) -> None:
    """Raise UsageError where an encoder reads captions and there is none. Tar shards to download may yet have some."""
    names = [each.extractor.name for each in resolutions if each.is_of_captions]
    if not names or any(entry.caption is not None for entry in scan.entries):
        return
    samples = scan.samples
    may_be_tar = any(place.suffix not in scan.suffixes for place in scan.pending)
    if may_be_tar or not (samples or scan.pending) or any(sample.caption is not None for sample in samples):
        return
    raise UsageError(
        f"{' and '.join(names)} reads captions, and none of {len(samples) + len(scan.pending_uris)} samples has one: "
        "give a manifest (.csv, .jsonl, .parquet) with a column `caption`, or tar shards with a NAME.txt beside each "
        "NAME.mp4 or NAME.jpg"
    )


def captions_of(table: SampleTable) -> dict[str, Caption]:
    """The captions of a stored dataset, by their keys: to read them again no source is needed."""
    texts = zip(keys_hex(table.caption_keys), table.texts("caption"), strict=True)
    return {key: Caption(text=text) for key, text in texts}
