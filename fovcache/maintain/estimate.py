"""Estimating: how many bytes and how much time a build would take, measured on a few samples."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..builder.captions import check_captions, located
from ..builder.finding import by_kind, find_samples
from ..builder.request import BuildOptions, EncoderRequest, Resolved, pick_device, resolve
from ..builder.wants import stand
from ..errors import SampleError, SourceError
from ..keys.digest import DIGEST_BYTES
from ..store.index import open_index
from ..store.storage import LocalStorage

_MAX_RUNS = 7
_ENOUGH_S = 2.0
_FEW = 8
"""Samples that are downloaded to be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a build would cost."""

    samples: int
    """Samples in the sources."""
    to_compute: int
    """Distinct samples that the cache lacks."""
    row_bytes: int
    """Stored bytes of a sample, all features together, without its key."""
    total_bytes: int
    """Bytes that the build would write, keys included."""
    num_shards: int
    """Shards that it would write."""
    free_bytes: int
    """Free space where the cache lies or would lie."""
    decode_s: float
    """Seconds to read and decode one sample on one thread (mean)."""
    encode_s: float
    """Seconds to encode one sample at this batch size (median batch, without the first)."""
    seconds: float
    """Predicted time: the larger of decoding over its threads and encoding."""
    measured_on: int
    """Samples that the times are means of."""

    @property
    def exit_status(self) -> int:
        """Always 0: an estimate has not failed when the disk is too small, it has said so."""
        return 0

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return asdict(self)


def estimate(
    sources: Sequence[str], request: EncoderRequest, options: BuildOptions, storage: LocalStorage | None = None
) -> Estimate:
    """Scan the sources, encode a few samples, and multiply. Writes nothing; `storage` is a cache to count hits in."""
    from ..builder.encoding import BatchEncoder
    from ..builder.reading import read_item

    resolution = resolve(request, options.limits)
    with contextlib.ExitStack() as stack:
        scan, downloads = find_samples(sources, resolution.suffixes, options, stack, storage=storage)
        if downloads is not None and len(scan.locations) < _FEW:
            downloads.learn(scan.pending[:_FEW])
            scan.refresh()
        check_captions(scan, (resolution,))
        kinds = by_kind(scan.found(), resolution)
        locations = located(scan.found(), resolution)
        if not kinds:
            raise SourceError("none of the sources' first samples can be read; `fovcache build` says why")
        to_compute = len(scan.pending) + sum(_num_missing(storage, *kind, options) for kind in kinds)
        resolved, keys = max(kinds, key=lambda kind: len(kind[1]))
        device = pick_device(options.device)
        slot = options.batch_on(device, resolved.spec)
        encoder = BatchEncoder(
            resolved.extractor,
            resolved.spec,
            resolved.features,
            device=device,
            compute_dtype=request.compute_dtype,
            batch_size=slot,
        )
        stack.callback(encoder.close)
        items = []
        start = time.perf_counter()
        for location in [locations[key] for key in keys[: 2 * slot]]:
            here = downloads.at_hand(location) if downloads is not None else contextlib.nullcontext()
            with contextlib.suppress(SampleError), here:
                items.append(read_item(resolved.spec, location))
        decode_s = (time.perf_counter() - start) / max(1, len(items))
        if not items:
            raise SourceError(
                f"none of the first {len(keys[: 2 * slot])} samples can be read; `fovcache build` says why"
            )
        like = [item for item in items if resolved.spec.shape(item) == resolved.spec.shape(items[0])]
        batch = (like * slot)[:slot]
        rows = encoder.rows(batch)  # the first batch also warms up
        encode_s = _median_s(lambda: encoder.rows(batch)) / len(batch)
        sizes = {resolved.spec.shape(items[0]): sum(value.nbytes // len(batch) for value in rows.values())}
        for item in items:
            if (shape := resolved.spec.shape(item)) not in sizes and len(sizes) <= _FEW:
                sizes[shape] = sum(value.nbytes for value in encoder.rows([item]).values())
    each = [sizes[shape] for shape in map(resolved.spec.shape, items) if shape in sizes]
    row_bytes = sum(each) // len(each)
    total = to_compute * (row_bytes + DIGEST_BYTES)
    return Estimate(
        samples=len(scan.samples) + len(scan.pending),
        to_compute=to_compute,
        row_bytes=row_bytes,
        total_bytes=total,
        num_shards=-(-total // options.shard_bytes),
        free_bytes=_free_bytes(storage.root if storage else Path.cwd()),
        decode_s=decode_s,
        encode_s=encode_s,
        seconds=to_compute * max(decode_s / options.threads(), encode_s),
        measured_on=len(items),
    )


def _num_missing(storage: LocalStorage | None, resolved: Resolved, keys: list[str], options: BuildOptions) -> int:
    if storage is None:
        return len(keys)
    index = open_index(storage, resolved.recipe.digest)
    digests = [feature.digest for feature in resolved.features]
    software = resolved.spec.software()
    return len(stand(index, keys, digests, software=software, retry_failed=options.retry_failed).wants)


def _median_s(run: Callable[[], object]) -> float:
    """The median time of a few runs: single ones are off by several times while caches and clocks settle."""
    times: list[float] = []
    while len(times) < _MAX_RUNS and sum(times) < _ENOUGH_S:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _free_bytes(path: Path) -> int:
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
