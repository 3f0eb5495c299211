"""A small model and a feed in memory, real ones, for tests of the training loop."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fovcache.loaders.order import epoch_order
from fovcache.probes.train.feed import ORDER_VERSION, FeedBatch
from fovcache.probes.train.recipe import standard
from fovcache.probes.train.result import Run
from fovcache.probes.train.run import How, RunName, train
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.stepping.processes import open_processes
from fovcache.trainable import FEATURES, LABELS, InputInfo, Need

WIDTH, CLASSES = 6, 3
SETTINGS = standard(
    samples=160,
    batch_size=8,
    learning_rate=0.01,
    warmup_samples=32,
    evaluate_every=40,
    validation_samples=11,
    checkpoint_every=40,
    keep=2,
)


class ToyModule(nn.Module):
    """Classifies features, with dropout, a buffer that each pass changes, and a part that is not used."""

    parts: Mapping[str, tuple[str, ...]] = {"body": ("body",), "spare": ("spare",)}

    def __init__(self, width: int, seed: int, dropout: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES))
        self.spare = nn.Linear(2, 2)
        self.num_passes: torch.Tensor
        self.register_buffer("num_passes", torch.zeros(()))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One number a sample: the loss, and the entropy where the class is 0."""
        if self.training:
            self.num_passes += 1
        logits = self.body(batch["frames"].float())
        loss = nn.functional.cross_entropy(logits, batch["y"], reduction="none")
        entropy = torch.distributions.Categorical(logits=logits.detach()).entropy()
        values = {"loss": loss, "entropy": torch.where(batch["y"] == 0, entropy, torch.nan)}
        return values if self.training else {**values, "accuracy": (logits.argmax(1) == batch["y"]).float()}


@dataclasses.dataclass(frozen=True)
class Toy:
    """The same before it is built."""

    name = "toy"
    dropout: float = 0.2
    module: type[ToyModule] = ToyModule

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "dropout": self.dropout}

    def needs(self) -> Mapping[str, Need]:
        return {"frames": Need(kind=FEATURES, what="features"), "y": Need(kind=LABELS, what="labels")}

    def frozen(self) -> Mapping[str, str]:
        return {"encoder": "frames"}

    def build(self, inputs: Mapping[str, InputInfo], seed: int) -> nn.Module:
        return self.module(inputs["frames"].row_shape[0], seed, self.dropout)


class ToyFeed:
    """Samples in memory."""

    def __init__(
        self,
        settings: TrainSettings = SETTINGS,
        *,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_train: int = 30,
        validation_batch: int = 4,
    ) -> None:
        chance = torch.Generator().manual_seed(7)
        num = num_train + settings.validation_samples
        self.x = torch.randn(num, WIDTH, generator=chance)
        self.y = torch.randint(CLASSES, (num,), generator=chance)
        self.keys = np.stack(
            [np.frombuffer(hashlib.sha256(str(each).encode()).digest(), np.uint8) for each in range(num)]
        )
        self.inputs = {
            "frames": InputInfo(row_shape=(WIDTH,), dtype="fp32"),
            "y": InputInfo(row_shape=(), dtype="int64", num_classes=CLASSES),
        }
        self.num_train, self.num_validation = num_train, settings.validation_samples
        self.validation_hash = "00"
        self._seed, self._rank, self._num_ranks = seed, rank, num_ranks
        self._batch_size, self._validation_batch = settings.batch_size, validation_batch
        self.seen: list[bytes] = []
        """Keys of all batches that were given for training."""
        self.is_closed = False

    @property
    def notes(self) -> tuple[str, ...]:
        """See Feed: nothing."""
        return ()

    def document(self) -> Mapping[str, Any]:
        return {
            "kind": "toy",
            "order_version": ORDER_VERSION,
            "num_train": self.num_train,
            "processes": self._num_ranks,
        }

    def train_batches(self, samples_seen: int) -> Iterator[FeedBatch]:
        share = self._batch_size // self._num_ranks
        for begin in range(samples_seen + self._rank * share, 10**9, self._batch_size):
            some = np.array([self._position(number) for number in range(begin, begin + share)])
            self.seen += [key.tobytes() for key in self.keys[some]]
            yield self.batch(some)

    def validation_batches(self) -> Iterator[FeedBatch]:
        own = np.arange(self.num_train + self._rank, len(self.x), self._num_ranks)
        for start in range(0, len(own), self._validation_batch):
            yield self.batch(own[start : start + self._validation_batch])

    def batch(self, positions: np.ndarray) -> FeedBatch:
        return FeedBatch(tensors={"frames": self.x[positions], "y": self.y[positions]}, keys=self.keys[positions])

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        assert not state

    def close(self) -> None:
        self.is_closed = True

    def _position(self, number: int) -> int:
        epoch, at = divmod(number, self.num_train)
        return int(epoch_order(self.num_train, seed=self._seed, epoch=epoch)[at])


def train_toy(
    folder: Path,
    settings: TrainSettings = SETTINGS,
    *,
    toy: Toy | None = None,
    feed: ToyFeed | None = None,
    seed: int = 0,
    how: How | None = None,
    device: str = "cpu",
    **changes: Any,
) -> Run:
    """A run in `folder`; `changes` are of the settings."""
    settings = dataclasses.replace(settings, **changes)
    toy = Toy() if toy is None else toy
    with ExitStack() as stack:
        processes = stack.enter_context(open_processes(settings, device))
        feed = feed or ToyFeed(settings, seed=seed, rank=processes.rank, num_ranks=processes.num)
        feed.x, feed.y = feed.x.to(processes.device), feed.y.to(processes.device)
        document = {f"model.{name}": each for name, each in toy.document().items()}
        document |= {f"train.{name}": each for name, each in dataclasses.asdict(settings).items()}
        how = How(with_plan=False) if how is None else how
        return train(toy, feed, settings, processes, folder, RunName(seed=seed), document, how)
