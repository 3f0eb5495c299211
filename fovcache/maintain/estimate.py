"""Estimating: how many bytes and how much time a build would take, measured on a few samples."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..builder.clock import StageClock
from ..builder.request import BuildOptions, EncoderRequest, pick_device, resolve
from ..builder.wants import stand
from ..errors import SampleError, SourceError
from ..keys.digest import DIGEST_BYTES
from ..sources.scan import scan_sources
from ..store.index import open_index
from ..store.layout import MEMO
from ..store.memo import Memo
from ..store.storage import LocalStorage

_MAX_RUNS = 7
_ENOUGH_S = 2.0


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
    from ..builder.encoding import BatchEncoder, SampleReader

    resolved = resolve(request)
    memo = Memo(storage.path(MEMO) if storage else None, ignore=options.rehash)
    scan = scan_sources(sources, resolved.spec.suffixes(), memo, num_threads=options.threads())
    keys = list(dict.fromkeys(sample.key for sample in scan.samples))
    digests = [feature.digest for feature in resolved.features]
    if storage is not None:
        index = open_index(storage, resolved.recipe.digest)
        software = resolved.spec.software()
        missing = stand(index, keys, digests, software=software, retry_failed=options.retry_failed).wants
        to_compute = len(missing)
    else:
        to_compute = len(keys)
    device = pick_device(options.device)
    slot = options.batch_on(device)
    clock = StageClock()
    reader = SampleReader(resolved.spec, scan.locations, clock, num_threads=1, num_ahead=1)
    encoder = BatchEncoder(
        resolved.extractor,
        resolved.spec,
        resolved.features,
        device=device,
        compute_dtype=request.compute_dtype,
        batch_size=slot,
        clock=clock,
    )
    try:
        items = []
        start = time.perf_counter()
        for key in keys[: 2 * slot]:
            try:
                items.append(reader.read(key))
            except SampleError:
                continue
        decode_s = (time.perf_counter() - start) / max(1, len(items))
        if not items:
            raise SourceError(
                f"none of the first {len(keys[: 2 * slot])} samples can be read; `fovcache build` says why"
            )
        like = [item for item in items if resolved.spec.shape(item) == resolved.spec.shape(items[0])]
        batch = (like * slot)[:slot]
        rows = encoder.rows(batch)  # the first batch also warms up
        encode_s = _median_s(lambda: encoder.rows(batch)) / len(batch)
    finally:
        reader.close()
        encoder.close()
    row_bytes = sum(value.nbytes // len(batch) for value in rows.values())
    total = to_compute * (row_bytes + DIGEST_BYTES)
    return Estimate(
        samples=len(scan.samples),
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
