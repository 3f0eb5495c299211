"""The loader's batches: every row once an epoch, in an order of (seed, epoch) alone, resumable anywhere."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.bench.peers.synthetic import write_features
from fovcache.loaders.feature_set import FeatureSet
from fovcache.loaders.loader import Loader
from fovcache.loaders.order import epoch_order

NUM_ROWS = 61
RESIDENCIES = st.sampled_from(["device", "host", "stream"])
BATCH_SIZES = st.integers(1, NUM_ROWS + 3)
SEEDS = st.integers(0, 2**63)
EPOCHS = st.integers(0, 2**40)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """Row i holds i, 1000 + i, 2000 + i; its label is i. Over 5 shards."""
    rows = torch.arange(NUM_ROWS)[:, None] + torch.tensor([0, 1000, 2000])
    folder: Path = tmp_path_factory.mktemp("features")
    return write_features(folder / "cache", rows.float(), shard_bytes=13 * (12 + 32), num_classes=NUM_ROWS)


@pytest.fixture(scope="session", autouse=True)
def _gather_little() -> Iterator[None]:
    """Several gathers an epoch, of several batches each, though the rows are few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovcache.loaders.row_server._GATHER_BYTES", 12 * 9)
        patch.setattr("fovcache.loaders.row_server._CACHED_BYTES", 12 * 9)
        yield


@given(num_rows=st.integers(0, 300), seed=SEEDS, epoch=EPOCHS)
def test_an_order_is_a_permutation_and_comes_again(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(order), np.arange(num_rows))
    assert np.array_equal(order, epoch_order(num_rows, seed=seed, epoch=epoch))


@given(seed=SEEDS, epoch=EPOCHS)
def test_seeds_and_epochs_have_orders_of_their_own(seed: int, epoch: int) -> None:
    """Two permutations of 100 are equal by chance once in 10^158."""
    order = epoch_order(100, seed=seed, epoch=epoch)
    assert not np.array_equal(order, epoch_order(100, seed=seed + 1, epoch=epoch))
    assert not np.array_equal(order, epoch_order(100, seed=seed, epoch=epoch + 1))


@given(residency=RESIDENCIES, batch=BATCH_SIZES, shuffle=st.booleans(), drop_last=st.booleans(), epoch=EPOCHS)
def test_an_epoch_is_the_rows_in_its_order(
    features: FeatureSet, residency: str, batch: int, shuffle: bool, drop_last: bool, epoch: int
) -> None:
    loader = features.loader(batch, shuffle=shuffle, seed=7, residency=residency, drop_last=drop_last)
    loader.set_epoch(epoch)
    batches = list(loader)
    order = epoch_order(NUM_ROWS, seed=7, epoch=epoch) if shuffle else np.arange(NUM_ROWS)
    num_given = NUM_ROWS // batch * batch if drop_last else NUM_ROWS
    assert len(batches) == len(loader)
    assert all(len(x) == len(y) == batch for x, y in batches[:-1])
    x = torch.cat([x for x, _ in batches]) if batches else torch.empty((0, 3))
    y = torch.cat([y for _, y in batches]) if batches else torch.empty(0, dtype=torch.int64)
    assert y.tolist() == order[:num_given].tolist()
    assert torch.equal(x, y[:, None] + torch.tensor([0.0, 1000.0, 2000.0]))


@examples(50)
@given(residency=RESIDENCIES, batch=BATCH_SIZES, taken=st.integers(0, 80), data=st.data())
def test_a_state_goes_on_where_it_was_taken(
    features: FeatureSet, residency: str, batch: int, taken: int, data: st.DataObject
) -> None:
    """Batches given out before and after a state are those of a loader that was never stopped, over three epochs."""
    options = {"shuffle": True, "seed": data.draw(SEEDS), "residency": residency}
    whole = [y.tolist() for y in _labels(features.loader(batch, **options), epochs=3)]
    first = features.loader(batch, **options)
    before = [y.tolist() for y in islice(_labels(first, epochs=3), taken)]
    state = first.state_dict()
    second = features.loader(batch, **options)
    second.load_state_dict(state)
    epochs_left = 3 - second.state_dict()["epoch"]
    after = [y.tolist() for y in _labels(second, epochs=epochs_left)]
    assert before + after == whole


def _labels(loader: Loader, *, epochs: int) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        for _, y in loader:
            yield y


@given(residency=RESIDENCIES, batch=st.integers(1, 20))
def test_batches_are_tensors_of_their_own_to_autograd_and_to_writers(
    features: FeatureSet, residency: str, batch: int
) -> None:
    """Small batches are cut out of one gather, and nobody can tell."""
    weight = torch.ones(3, requires_grad=True)
    loader = features.loader(batch, residency=residency)
    losses, expected = [], torch.zeros(3)
    for x, _ in loader:
        assert not x.requires_grad
        expected += x.sum(dim=0)
        losses.append((x * weight).sum())  # keeps x for the backward pass …
        with torch.no_grad():
            copy = x.clone()
            copy.fill_(-1)
    for x, _ in loader:
        x.sub_(1.0)  # … which writing to another batch must not disturb,
        x.mul_(weight)  # nor may a gradient through one reach another,
        losses.append(x.sum())
        expected += x.detach().sum(dim=0)
    torch.stack(losses).sum().backward()
    assert torch.allclose(weight.grad, expected)
    assert torch.equal(features.tensors()[0][:, 0], torch.arange(float(NUM_ROWS)))  # nor the cached rows
    again = torch.cat([x for x, _ in loader])
    assert torch.equal(again[:, 0], torch.arange(float(NUM_ROWS)))
