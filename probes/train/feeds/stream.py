"""The streaming feed: sources that do not fit the disk, fetched, decoded, encoded, used once and let go.

The validation set is a dataset of the cache, built before; what is streamed is encoded by the same recipes. Sources are
taken one after the other, each shuffled within itself, so the order of samples follows from the seed alone; a sample
whose content was seen before, or is in the validation set, is left out and counted, and so is one that failed.

Axes: B samples of a batch, n samples of a piece.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fovcache.builder.request import BuildOptions, EncoderRequest
from fovcache.errors import DamageError, SelectionError, UsageError
from fovcache.fetch.reasons import Reason
from fovcache.loaders.order import epoch_order
from fovcache.maintain.catalog import Catalog
from fovcache.sources.address import shown_uri
from fovcache.sources.spec import parse_source
from fovcache.store.dataset import SampleTable, read_table
from fovcache.store.refs import find_ref
from fovcache.trainable import LABELS, InputInfo, Need

from ..config import TrainConfig
from ..feed import ORDER_VERSION, FeedBatch
from .cached import CachedFeed
from .opening import OpenedInputs, open_inputs
from .sets import TRAIN, TrainSets
from .sources import absolute_source
from .used_keys import UsedKeys
from .window import DATASET, Piece, Requests, RollingWindow

logger = logging.getLogger(__name__)

_LeftOut = tuple[int, int, int]
WHY = ("they failed", "used before, or in validation", f"of a split that is not {TRAIN!r}")
"""Why samples were left out, as _LeftOut counts them."""
_PIECES_EPOCH = 2**63
"""The order of sources is drawn as an epoch of this number, which no piece has."""


def open_stream(
    config: TrainConfig,
    needs: Mapping[str, Need],
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    rank: int = 0,
    num_ranks: int = 1,
) -> StreamFeed:
    """The streaming feed of a run in `folder`, where its window and the list of what it has used lie.

    Raises UsageError for several processes, for features whose recipe cannot be asked for again, and what opening a
    cache raises; EnvironmentFailure.
    """
    if num_ranks > 1:
        raise UsageError(
            f'kind = "stream" feeds one process, and there are {num_ranks}: build the cache first and train from it'
        )
    opened = open_inputs(config, needs, only_validation=True)
    return StreamFeed(config, needs, opened, _requests(opened), seed=seed, device=device, folder=folder)


class StreamFeed:
    """See the module. Close it: it has a thread that builds."""

    kind = "stream"

    def __init__(
        self,
        config: TrainConfig,
        needs: Mapping[str, Need],
        opened: OpenedInputs,
        requests: Requests,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        self._config, self._needs, self._opened, self._requests = config, needs, opened, requests
        self._seed, self._device, self._folder = seed, device, folder
        self._batch_size = config.train.batch_size
        self._validation = CachedFeed(opened, batch_size=self._batch_size, seed=seed, device=device)
        sources = [piece for source in config.data.sources for piece in _pieces(source, config.folder)]
        if config.data.shuffle_shards:
            order = epoch_order(len(sources), seed=seed, epoch=_PIECES_EPOCH)
            sources = [sources[at] for at in order.tolist()]
        self._sources = sources
        self._starts = [0]  # samples before each piece; of the piece that is under way also those after it
        self._left_out: list[_LeftOut] = []  # of each piece that was opened
        self._window: RollingWindow | None = None

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """See Feed: as the validation set has them."""
        return self._opened.infos

    @property
    def num_train(self) -> None:
        """Not known."""
        return None

    @property
    def num_validation(self) -> int:
        """See Feed."""
        return self._validation.num_validation

    @property
    def validation_hash(self) -> str:
        """See Feed."""
        return self._validation.validation_hash

    @property
    def peak_bytes(self) -> int:
        """The most that was on disk at once, downloads and features together."""
        return self._window.peak_bytes if self._window else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and how much of the disk was used; for the results."""
        said = [f"the window held at most {self.peak_bytes} bytes of {self._max_bytes} since the run was last started"]
        totals = [sum(counts) for counts in zip(*self._left_out, strict=True)]
        said += [
            f"{num} samples of the stream were left out: {why}" for num, why in zip(totals, WHY, strict=False) if num
        ]
        return tuple(said)

    def document(self) -> Mapping[str, Any]:
        """See Feed."""
        return {
            "kind": self.kind,
            "sources": [shown_uri(source) for source in self._sources],
            "validation": self._opened.ref.dataset,
            "features": dict(self._opened.digests),
            "validation_hash": self.validation_hash,
            "seed": self._seed,
            "order_version": ORDER_VERSION,
            "batch_size": self._batch_size,
        }

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        """See Feed. Raises UsageError where the sources end."""
        number = bisect.bisect_right(self._starts, samples_seen) - 1
        self._starts, self._left_out = self._starts[: number + 2], self._left_out[:number]
        start, end = self._starts[number], self._starts[-1]
        used = UsedKeys(self._folder / "used-keys.bin", keep=end, since=start)
        if used.num_kept < end:
            raise DamageError(
                f"{self._folder / 'used-keys.bin'} has {used.num_kept} of the {end} samples that were used: without "
                "it samples could be used twice; begin the run anew"
            )
        used.bar(self._opened.keys)
        self.close()
        self._window = RollingWindow(
            self._folder / "window",
            self._sources,
            self._requests,
            max_bytes=self._max_bytes,
            options=BuildOptions(device=str(self._device), batch_size=self._config.data.encode_batch_size),
            first=number,
        )
        return self._batches(self._window, used, number, skip=samples_seen - start)

    @property
    def _max_bytes(self) -> int:
        return int(self._config.data.window_gb * 10**9)

    def _batches(self, window: RollingWindow, used: UsedKeys, first: int, *, skip: int) -> Iterator[FeedBatch]:
        waiting: list[FeedBatch] = []  # parts of a step that ends in a later piece
        num_waiting = 0
        for number in range(first, len(window)):
            piece = self._open(window.piece(number), used)
            if number + 1 == len(self._starts):
                self._starts.append(self._starts[number] + len(piece.keys))
            order = epoch_order(len(piece.keys), seed=self._seed, epoch=number)[skip if number == first else 0 :]
            while len(order):
                wanted = self._batch_size - num_waiting
                part = piece.batch(order[:wanted], self._device)
                order = order[wanted:]
                waiting.append(part)
                num_waiting += len(part)
                if not len(order):
                    window.release(number)  # rows that were gathered are copies
                if num_waiting == self._batch_size:
                    yield _joined(waiting)
                    waiting, num_waiting = [], 0
            if not len(piece.keys):
                window.release(number)
        raise UsageError(
            f"the stream has ended after {self._starts[-1]} samples, and train.samples is "
            f"{self._config.train.samples}: begin a run with more sources, or with train.samples of at most "
            f"{self._starts[-1] // self._batch_size * self._batch_size}"
        )

    def _open(self, piece: Piece, used: UsedKeys) -> _OpenPiece:
        """A piece without what failed and what was used before; if it was open before, what it had then.

        Raises DamageError where it has not that any more.
        """
        storage = piece.cache.storage
        table = read_table(storage, find_ref(storage, DATASET).dataset)
        catalog = Catalog(storage)
        is_whole = np.ones(len(table), bool)
        for feature in self._opened.all_features.values():
            is_whole &= feature.recipe in catalog.recipes and catalog.has(feature, table)
        split = np.array([name or TRAIN for name in table.texts("split")])
        whole = np.flatnonzero(is_whole & (split == TRAIN))
        new = self._as_before(piece, used, table) if len(used.again) else whole[used.new(table.keys[whole])]
        self._tell_of_failures(piece)
        num_other = int((is_whole & (split != TRAIN)).sum())
        self._left_out.append((len(piece.report.failures), len(whole) - len(new), num_other))
        sets = TrainSets(train=new, validation=new[:0], validation_hash="")
        config = replace(self._config, cache=str(storage.root), dataset=DATASET)
        if not len(new):
            return _OpenPiece(opened=None)
        opened = open_inputs(config, self._needs, sets=sets)
        self._check_labels(opened, piece.number)
        return _OpenPiece(opened=opened)

    def _as_before(self, piece: Piece, used: UsedKeys, table: SampleTable) -> np.ndarray:
        """Positions, int64, of what the piece that is taken up again was used for, whatever else it has now."""
        at = {key.tobytes(): position for position, key in enumerate(table.keys)}
        keys = [key.tobytes() for key in used.again]
        used.again = used.again[:0]
        if lost := sum(key not in at for key in keys):
            raise DamageError(
                f"{shown_uri(self._sources[piece.number])} has {lost} of the {len(keys)} samples no more that it had "
                "when the run was stopped: begin the run anew"
            )
        return np.array([at[key] for key in keys], np.int64)

    def _tell_of_failures(self, piece: Piece) -> None:
        """Raises UsageError for a file that the window's downloads have no room for."""
        failures, where = piece.report.failures, shown_uri(self._sources[piece.number])
        if not failures:
            return
        shown = "; ".join(f"{each.uri}: {each.reason}" for each in failures[:3])
        if any(each.stage == "fetch" and each.reason.startswith(Reason.TOO_LARGE) for each in failures):
            raise UsageError(f"{shown}; raise window_gb, of which one download may be a quarter, or cut it into shards")
        logger.warning("%s: %d samples failed and are left out: %s", where, len(failures), shown)

    def _check_labels(self, opened: OpenedInputs, number: int) -> None:
        """Labels must mean the same in every piece."""
        for name, need in self._needs.items():
            if need.kind != LABELS:
                continue
            most, found = self._opened.infos[name].num_classes, opened.infos[name].num_classes
            if opened.table.categories("label")[1] or found is None or most is None or found > most:
                raise SelectionError(
                    f"{shown_uri(self._sources[number])}: labels of a stream must be whole numbers below the {most} "
                    "classes of the validation set; names are numbered by what a source has, and would change with it"
                )

    def uris(self, keys: np.ndarray) -> list[str]:
        """Where validation samples of these keys stand in their sources."""
        return self._validation.uris(keys)

    def validation_batches(self) -> Iterator[FeedBatch]:
        """See Feed."""
        return self._validation.validation_batches()

    def state(self) -> Mapping[str, Any]:
        """Where each source began, in samples, and what was left out of it."""
        return {"starts": list(self._starts), "left_out": [list(each) for each in self._left_out]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See Feed."""
        self._starts = [int(start) for start in state["starts"]] or [0]
        self._left_out = [(int(failed), int(repeated), int(other)) for failed, repeated, other in state["left_out"]]

    def close(self) -> None:
        """See Feed."""
        if self._window is not None:
            self._window.close()


@dataclass(frozen=True, kw_only=True, eq=False)
class _OpenPiece:
    """A piece that batches are gathered from; `opened` is None where nothing of it is new."""

    opened: OpenedInputs | None

    @cached_property
    def keys(self) -> np.ndarray:
        """uint8 [n, 32]."""
        return np.empty((0, 32), np.uint8) if self.opened is None else self.opened.keys

    def batch(self, positions: np.ndarray, device: torch.device) -> FeedBatch:
        """The rows at `positions`, int64 [B]."""
        assert self.opened is not None
        tensors = {name: each.rows.gather(positions) for name, each in self.opened.features.items()}
        tensors |= {name: table[torch.from_numpy(positions)] for name, table in self.opened.tables.items()}
        on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
        return FeedBatch(tensors=on_device, keys=self.keys[positions])


def _joined(parts: Sequence[FeedBatch]) -> FeedBatch:
    """Parts of a step as one; text is as wide as the widest."""
    if len(parts) == 1:
        return parts[0]
    tensors = {}
    for name in parts[0].tensors:
        each = [part.tensors[name] for part in parts]
        if each[0].dtype == torch.int64 and each[0].ndim == 2:
            longest = max(tensor.shape[1] for tensor in each)
            each = [torch.nn.functional.pad(tensor, (0, longest - tensor.shape[1]), value=-1) for tensor in each]
        tensors[name] = torch.cat(each)
    return FeedBatch(tensors=tensors, keys=np.concatenate([part.keys for part in parts]))


def _pieces(source: str, folder: Path) -> list[str]:
    """The sources that a text stands for: each tar shard, folder, file or URL of it, or a manifest or list as a whole.

    Raises SourceError for one that names nothing, UsageError for one of another split than `train`.
    """
    text = absolute_source(source, folder)
    spec = parse_source(text)
    if spec.split not in (None, TRAIN):
        raise UsageError(f"source {shown_uri(source)!r}: a stream trains on its sources; leave the split out")
    return [str(each) for each in spec.urls or (spec.paths if spec.kind == "files" else ())] or [text]


def _requests(opened: OpenedInputs) -> Requests:
    """What the validation set's features were asked for by, for the layers that are used.

    Raises UsageError where encoders are not what they were then.
    """
    layers: dict[str, list[str]] = {}
    for feature in opened.all_features.values():
        layers.setdefault(feature.recipe, []).append(feature.layer)
    requests = []
    for recipe, own in layers.items():
        manifests = [each for each in opened.catalog.index(recipe).manifests if each.shards]
        request = EncoderRequest.from_document(manifests[-1].provenance["request"])
        request = replace(request, layers=tuple(dict.fromkeys(own)))
        found = {each.recipe.digest for resolution in request.resolve() for each in resolution.each}
        if recipe not in found:
            raise UsageError(
                f"{request.encoder} is not what it was when the validation set {opened.ref.name!r} was built: build "
                "that again"
            )
        requests.append(request)
    return Requests(each=tuple(requests))
