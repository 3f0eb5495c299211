"""The online feed, for comparison: every batch is read, decoded and encoded anew, by what the cache was built with.

Samples, their order, text and labels are those of a cached feed of the same configuration; only floating features are
computed, by the same code as in a build and rounded as they are stored. On the CPU a row's bits depend on the batch it
is encoded in, so equal bits take `encode_batch_size` = 1 and a cache that was built with a batch size of 1.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate

import numpy as np
import torch

from fovcache.builder.finding import find_samples
from fovcache.builder.reading import decode_stage, fetch, fetch_stage
from fovcache.builder.request import BuildOptions
from fovcache.builder.units import Unit
from fovcache.errors import SampleError, UsageError
from fovcache.extract.extractor import Item
from fovcache.loaders.streams import used_by
from fovcache.pipeline.pipeline import Pipeline
from fovcache.pipeline.serial import SerialPipeline
from fovcache.pipeline.stage import Failed, Stage
from fovcache.sources.sample import Location
from fovcache.store.shard import keys_hex
from fovcache.trainable import Need

from ..config import ONLINE, TrainConfig
from ..feed import FeedBatch
from .encoders import FeatureEncoders
from .opening import OpenedInputs, open_inputs
from .ordered import OrderedFeed
from .sets import named
from .sources import absolute_source

logger = logging.getLogger(__name__)

_MAX_AHEAD = 2
"""Encoded parts of steps that wait for the loop."""


def open_online(
    config: TrainConfig,
    needs: Mapping[str, Need],
    *,
    seed: int,
    device: torch.device,
    rank: int = 0,
    num_ranks: int = 1,
    overlapped: bool = True,
) -> OnlineFeed:
    """The online feed of a configuration; it needs the cached features, for their recipes, and the sources.

    Raises what opening a cache does, and UsageError where an encoder or a source is not what it was.
    """
    return OnlineFeed(
        open_inputs(config, needs),
        [absolute_source(source, config.folder) for source in config.data.sources],
        batch_size=config.train.batch_size,
        encode_batch_size=config.data.encode_batch_size,
        seed=seed,
        device=device,
        rank=rank,
        num_ranks=num_ranks,
        overlapped=overlapped,
    )


@dataclass(slots=True, kw_only=True)
class _Part:
    """Samples of a step that are encoded at once."""

    positions: np.ndarray
    """Among the opened samples, int64 [samples]."""
    ends_step: bool
    """Whether the step has no further samples."""


@dataclass(slots=True, kw_only=True)
class _Wanted(Unit):
    """One sample of a part."""

    part: _Part
    """Which; the same object for all of its samples."""


@dataclass(slots=True, kw_only=True)
class _Encoded:
    """A part with its rows."""

    part: _Part
    """The samples."""
    rows: dict[str, torch.Tensor]
    """By name, [samples, …]."""
    made: torch.cuda.Event | None
    """On CUDA, after which the rows are there."""


class OnlineFeed(OrderedFeed):
    """Computes the rows of opened inputs. `overlapped` reads, decodes and encodes in threads, ahead of the loop."""

    kind = ONLINE

    def __init__(
        self,
        opened: OpenedInputs,
        sources: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        encode_batch_size: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        overlapped: bool = True,
    ) -> None:
        """Raises UsageError: an encoder is not what it was; a sample is not in `sources`; sources that are URLs."""
        super().__init__(opened, batch_size=batch_size, seed=seed, rank=rank, num_ranks=num_ranks)
        self._device, self._overlapped = device, overlapped
        self._part_size = min(encode_batch_size or self._share, self._share)
        self._tables = {name: table.to(device) for name, table in opened.tables.items()}
        self._encoders = FeatureEncoders(opened, device=device, batch_size=self._part_size)
        self._hex_keys = keys_hex(self._keys)
        self._locations = _locate(opened, self._hex_keys, self._encoders.suffixes, sources)
        self._encoding = threading.Lock()  # validation encodes while the next steps are
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # beside the model's own work
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which loads the encoders
        self._running: list[Generator[FeedBatch]] = []

    def document(self) -> Mapping[str, object]:
        """See Feed."""
        return {**super().document(), "encode_batch_size": self._part_size}

    def _batches(self, steps: Iterator[np.ndarray]) -> Iterator[FeedBatch]:
        self._running = [each for each in self._running if getgeneratorstate(each) != GEN_CLOSED]
        self._running.append(running := self._run(steps))
        return running

    def _run(self, steps: Iterator[np.ndarray]) -> Generator[FeedBatch]:
        pipeline = (
            Pipeline(self._stages(), max_results=_MAX_AHEAD) if self._overlapped else SerialPipeline(self._stages())
        )
        waiting: list[_Encoded] = []
        with contextlib.closing(pipeline.run(self._wanted(steps))) as encoded:
            for each in encoded:
                waiting.append(each)
                if each.part.ends_step:
                    yield self._joined(waiting)
                    waiting = []

    def _wanted(self, steps: Iterator[np.ndarray]) -> Iterator[_Wanted]:
        for step in steps:
            for begin in range(0, len(step), self._part_size):
                end = begin + self._part_size
                part = _Part(positions=step[begin:end], ends_step=end >= len(step))
                for at in part.positions.tolist():
                    key = self._hex_keys[at]
                    yield _Wanted(keys=(key,), locations=(self._locations[key],), specs=self._encoders.specs, part=part)

    def _stages(self) -> list[Stage]:
        options = BuildOptions()
        threads = options.threads()
        return [
            fetch_stage(threads, fetch),
            decode_stage(threads, options.watchdog_s, self._device),
            Stage(
                id="encode",
                name="encode",
                resource="cpu" if self._device.type == "cpu" else "gpu",
                run=self._encode,
                regroup=_parts,
                max_queued=2 * self._part_size + threads,
            ),
        ]

    def _encode(self, samples: list[_Wanted]) -> _Encoded:
        items = [[_item(sample, number) for sample in samples] for number in range(len(self._encoders.specs))]
        made = None
        with self._encoding, contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            found = self._encoders.rows(items)
            if self._stream is not None:
                made = torch.cuda.Event()
                made.record(self._stream)
        return _Encoded(part=samples[0].part, rows=found, made=made)

    def _joined(self, parts: Sequence[_Encoded]) -> FeedBatch:
        for each in parts:
            if each.made is not None:
                current = torch.cuda.current_stream(self._device)
                current.wait_event(each.made)
                used_by(current, each.rows.values())
        positions = np.concatenate([each.part.positions for each in parts])
        tensors = {name: torch.cat([each.rows[name] for each in parts]) for name in parts[0].rows}
        index = torch.from_numpy(positions).to(self._device)
        tensors |= {name: table.index_select(0, index) for name, table in self._tables.items()}
        return FeedBatch(tensors=tensors, keys=self._keys[positions])

    def close(self) -> None:
        """End the threads, and let the encoders go."""
        for running in self._running:
            running.close()
        self._encoders.close()


def _parts(samples: Iterator[_Wanted | Failed]) -> Iterator[list[_Wanted]]:
    """The samples of a part together, decoded. Raises UsageError for one that cannot be read."""
    found: list[_Wanted] = []
    for sample in samples:
        if isinstance(sample, Failed):
            raise _unreadable(sample.item, sample.error)
        found.append(sample)
        if len(found) == len(sample.part.positions):
            yield found
            found = []


def _item(sample: _Wanted, number: int) -> Item:
    """What an encoder reads of a decoded sample."""
    item = sample.items[number][0]
    if isinstance(item, SampleError):
        raise _unreadable(sample, item)
    return item


def _unreadable(sample: _Wanted, error: SampleError) -> UsageError:
    return UsageError(f"{sample.location.place.name} is in the cache and cannot be read again: {error}")


def _locate(
    opened: OpenedInputs,
    keys: Sequence[str],
    suffixes: frozenset[str],
    sources: Sequence[str],
) -> Mapping[str, Location]:
    """Where the samples lie now. Raises UsageError for those that are not in the sources."""
    with contextlib.ExitStack() as stack:
        scan, downloads = find_samples(sources, suffixes, BuildOptions(), stack, storage=opened.storage)
    if downloads is not None:
        raise UsageError('kind = "online" reads local files, and the sources name URLs; download them first')
    missing = np.flatnonzero([key not in scan.locations for key in keys])
    if len(missing):
        uris = opened.table.texts("uri")
        raise UsageError(
            f"{len(missing)} of {len(keys)} samples of dataset {opened.ref.name!r} are not in the sources "
            f"({named(opened.sets.used[missing], uris)}); name those that it was built from"
        )
    return {key: scan.locations[key] for key in keys}
