"""What every way to keep rows promises about the batches that come out."""

import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from fovcache.bench.peers.synthetic import write_features
from fovcache.errors import DamageError, SelectionError, UsageError
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.loader import Loader

NUM_ROWS = 29
BATCH = 4
NUM_BATCHES = 8
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def rows_of(numbers: torch.Tensor) -> torch.Tensor:
    """The rows that belong to these labels."""
    return (numbers[:, None] + torch.tensor([0, 1000, 2000], device=numbers.device)).float()


def same(left: Batches, right: Batches) -> bool:
    """Whether these are the same batches, wherever they lie."""
    return len(left) == len(right) and all(
        torch.equal(a.cpu(), b.cpu())
        for own, other in zip(left, right, strict=True)
        for a, b in zip(own, other, strict=True)
    )


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fovcache-prefetch")]


class LoaderContract:
    """Subclass it, and set `residency` and `device`."""

    residency: str
    device = "cpu"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The cache's."""
        return tmp_path / "cache"

    @pytest.fixture
    def features(self, folder: Path) -> FeatureSet:
        """Row i holds i, 1000 + i, 2000 + i; its label is i. Over 4 shards."""
        return write_features(folder, rows_of(torch.arange(NUM_ROWS)), shard_bytes=8 * 44, num_classes=NUM_ROWS)

    @pytest.fixture(autouse=True)
    def _gather_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Several gathers an epoch, of two batches each, though the rows are few."""
        for limit in ("_GATHER_BYTES", "_CACHED_BYTES"):
            monkeypatch.setattr(f"fovcache.loaders.row_server.{limit}", 2 * BATCH * 12)

    def loader(self, features: FeatureSet, **options: Any) -> Loader:
        defaults = {"batch_size": BATCH, "shuffle": True, "seed": 3}
        return features.loader(device=self.device, residency=self.residency, **defaults | options)

    def test_rows_are_kept_as_asked_for_and_it_is_said(self, features: FeatureSet) -> None:
        assert self.loader(features).residency.kind == self.residency
        assert self.loader(features).residency.reason == "as asked for"

    def test_batches_are_on_the_device_in_the_stored_dtype(self, features: FeatureSet) -> None:
        for x, y in self.loader(features):
            assert (x.device.type, y.device.type) == (self.device, self.device)
            assert (x.dtype, y.dtype) == (torch.float32, torch.int64)

    def test_an_epoch_has_every_row_once_with_its_label(self, features: FeatureSet) -> None:
        loader = self.loader(features)
        batches = list(loader)
        x, y = (torch.cat(column) for column in zip(*batches, strict=True))
        assert sorted(y.tolist()) == list(range(NUM_ROWS))
        assert y.tolist() != list(range(NUM_ROWS))
        assert torch.equal(x, rows_of(y))
        assert len(batches) == len(loader) == NUM_BATCHES

    def test_without_shuffling_rows_come_in_the_datasets_order(self, features: FeatureSet) -> None:
        for _ in range(2):
            batches = list(self.loader(features, shuffle=False))
            assert torch.cat([y for _, y in batches]).tolist() == list(range(NUM_ROWS))

    def test_drop_last_gives_whole_batches_only(self, features: FeatureSet) -> None:
        loader = self.loader(features, drop_last=True)
        assert [len(x) for x, _ in loader] == [BATCH] * (NUM_BATCHES - 1)
        assert len(loader) == NUM_BATCHES - 1

    def test_a_batch_larger_than_the_set_is_the_set(self, features: FeatureSet) -> None:
        assert [len(x) for x, _ in self.loader(features, batch_size=1000)] == [NUM_ROWS]
        assert list(self.loader(features, batch_size=1000, drop_last=True)) == []

    def test_batches_are_those_of_rows_kept_on_the_cpu(self, features: FeatureSet) -> None:
        own = self.loader(features)
        reference = features.loader(BATCH, shuffle=True, seed=3, device="cpu", residency="device")
        for _ in range(3):
            assert same(list(own), list(reference))

    def test_seeds_have_orders_of_their_own(self, features: FeatureSet) -> None:
        assert not same(list(self.loader(features, seed=3)), list(self.loader(features, seed=4)))

    def test_each_iteration_is_the_next_epoch_and_any_epoch_can_be_had(self, features: FeatureSet) -> None:
        loader = self.loader(features)
        epochs = [list(loader) for _ in range(3)]
        assert not same(epochs[0], epochs[1])
        assert not same(epochs[1], epochs[2])
        loader.set_epoch(1)
        assert same(list(loader), epochs[1])
        assert same(list(loader), epochs[2])

    def test_an_epoch_that_is_broken_off_is_over(self, features: FeatureSet) -> None:
        whole = self.loader(features)
        epochs = [list(whole) for _ in range(2)]
        loader = self.loader(features)
        assert same(list(islice(loader, 3)), epochs[0][:3])
        assert same(list(loader), epochs[1])

    @pytest.mark.parametrize("epochs_done", [0, 2])
    @pytest.mark.parametrize("taken", [0, 1, 2, 5, NUM_BATCHES - 1, NUM_BATCHES])
    def test_a_state_goes_on_where_it_was_taken(self, features: FeatureSet, epochs_done: int, taken: int) -> None:
        loader = self.loader(features)
        epochs = [list(loader) for _ in range(epochs_done + 2)]
        first = self.loader(features)
        for _ in range(epochs_done):
            list(first)
        iterator = iter(first)
        assert same(list(islice(iterator, taken)), epochs[epochs_done][:taken])
        state = first.state_dict()
        for resumed in (first, self.loader(features)):
            resumed.load_state_dict(state)
            rest = epochs[epochs_done][taken:]
            if rest:
                assert same(list(resumed), rest)
            assert same(list(resumed), epochs[epochs_done + 1])

    def test_a_state_is_the_same_after_loading_it(self, features: FeatureSet) -> None:
        first = self.loader(features)
        list(islice(first, 3))
        resumed = self.loader(features)
        resumed.load_state_dict(first.state_dict())
        assert resumed.state_dict() == first.state_dict()
        assert len(list(islice(resumed, 2))) == 2
        assert (resumed.state_dict()["epoch"], resumed.state_dict()["batch"]) == (0, 5)

    @pytest.mark.parametrize("epoch", [0, 1, 5])
    def test_a_state_taken_after_set_epoch_is_that_epochs_beginning(self, features: FeatureSet, epoch: int) -> None:
        loader = self.loader(features)
        list(islice(loader, 3))
        loader.set_epoch(epoch)
        resumed = self.loader(features)
        resumed.load_state_dict(loader.state_dict())
        assert same(list(resumed), list(loader))

    def test_a_state_tells_of_the_newest_iteration(self, features: FeatureSet) -> None:
        loader = self.loader(features)
        old, new = iter(loader), iter(loader)
        next(new)
        for _ in range(3):
            next(old)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 1)

    @pytest.mark.parametrize(
        ("field", "other"), [("seed", 4), ("shuffle", False), ("batch_size", 5), ("drop_last", True)]
    )
    def test_a_state_of_another_order_is_refused(self, features: FeatureSet, field: str, other: Any) -> None:
        state = self.loader(features, **{field: other}).state_dict()
        own = self.loader(features)
        with pytest.raises(SelectionError, match=f"saved with {field} {other!r}, and it is "):
            own.load_state_dict(state)

    def test_a_state_of_other_rows_is_refused(self, features: FeatureSet) -> None:
        state = self.loader(features.subset(range(NUM_ROWS - 1))).state_dict()
        with pytest.raises(SelectionError, match="saved with rows '"):
            self.loader(features).load_state_dict(state)

    def test_kept_batches_stay_as_they_were(self, features: FeatureSet) -> None:
        loader = self.loader(features)
        kept = [batch for _ in range(4) for batch in loader]
        for x, y in kept:
            assert torch.equal(x, rows_of(y))

    def test_an_error_while_reading_reaches_the_consumer(self, features: FeatureSet, folder: Path) -> None:
        loader = self.loader(features)
        _shards(folder)[2].unlink()
        for _ in range(2):
            with pytest.raises(DamageError, match=r"damaged.*fovcache repair"):
                list(loader)
            assert prefetch_threads() == []

    def test_a_truncated_shard_reaches_the_consumer(self, features: FeatureSet, folder: Path) -> None:
        loader = self.loader(features)
        shard = _shards(folder)[2]
        shard.chmod(0o644)
        shard.write_bytes(shard.read_bytes()[:-300])  # into the rows
        with pytest.raises(DamageError, match=r"damaged.*fovcache repair"):
            list(loader)
        assert prefetch_threads() == []

    @pytest.mark.parametrize("taken", [0, 1, 3, NUM_BATCHES])
    def test_an_iterator_that_is_left_leaves_no_thread(self, features: FeatureSet, taken: int) -> None:
        iterator = iter(self.loader(features))
        assert len(list(islice(iterator, taken))) == taken
        del iterator
        assert prefetch_threads() == []

    def test_an_error_in_the_consumers_loop_leaves_no_thread(self, features: FeatureSet) -> None:
        def train() -> None:
            for _ in self.loader(features):
                raise ValueError("in the loop")

        with pytest.raises(ValueError, match="in the loop"):
            train()
        assert prefetch_threads() == []

    def test_loaders_side_by_side_do_not_disturb_each_other(self, features: FeatureSet) -> None:
        loaders = [self.loader(features, seed=seed) for seed in (1, 2)]
        together = list(zip(*loaders, strict=True))
        for number, seed in enumerate((1, 2)):
            assert same([batch[number] for batch in together], list(self.loader(features, seed=seed)))

    @pytest.mark.parametrize("option", [{"num_workers": 2}, {"pin_memory": True}])
    def test_workers_and_pinning_are_refused_and_why(self, features: FeatureSet, option: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"only cost time.*leave them at 0 and False"):
            self.loader(features, **option)

    @pytest.mark.parametrize("batch_size", [0, -1])
    def test_a_batch_has_at_least_one_row(self, features: FeatureSet, batch_size: int) -> None:
        with pytest.raises(UsageError, match=f"batch size {batch_size} is out of range; expected at least 1"):
            self.loader(features, batch_size=batch_size)


def _shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("shards/**/*.safetensors"))
    assert len(found) == 4
    return found
