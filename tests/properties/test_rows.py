"""Reading rows, whatever their layout over shards, against plain indexing."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import DamageError
from fovcache.loaders.rows import Rows
from fovcache.store.index import IndexedShard
from fovcache.store.shard import write_shard
from fovcache.store.storage import LocalStorage

NewStorage = Callable[[], AbstractContextManager[LocalStorage]]
RECIPE, FEATURE, OTHER = "ab" * 32, "1c" * 32, "0d" * 32
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


class Layout:
    """Shards of some rows each, and an order that names rows of them, repeats included."""

    def __init__(self, counts: list[int], shape: tuple[int, ...], dtype: torch.dtype, places: list[tuple[int, int]]):
        self.shape, self.dtype = shape, dtype
        size = math.prod(shape)
        table = torch.arange(sum(counts) * size, dtype=torch.int32) + 1
        self.table = [part.to(dtype) for part in table.reshape(sum(counts), *shape).split(counts)]
        self.shard = np.array([shard for shard, _ in places], np.int32)
        self.row = np.array([row for _, row in places], np.int32)
        self.expected = torch.stack([self.table[shard][row] for shard, row in places])

    def write(self, storage: LocalStorage) -> list[IndexedShard]:
        """Every second shard has another feature in front, so that rows begin at odd places in the file."""
        shards = []
        for number, rows in enumerate(self.table):
            keys = [f"{number:02x}" * 31 + f"{row:02x}" for row in range(len(rows))]
            features = {FEATURE: rows.contiguous()}
            if number % 2:
                features[OTHER] = torch.zeros((len(rows), 3), dtype=torch.float16)
            shard = write_shard(storage, recipe=RECIPE, block=f"{number:064x}", keys=keys, features=features)
            shards.append(IndexedShard(RECIPE, shard, tuple(sorted(features))))
        return shards

    def rows(self, storage: LocalStorage, *, mapped: bool) -> Rows:
        """The rows; not `mapped` as on a network file system."""
        rows = Rows(storage, FEATURE, self.write(storage), self.shard, self.row)
        rows._mappable = mapped
        return rows


@st.composite
def layouts(draw: st.DrawFn, smallest_side: int = 0) -> Layout:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    shape = tuple(draw(st.lists(st.integers(smallest_side, 5), max_size=2)))
    every = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
    anywhere = st.lists(st.sampled_from(every), min_size=1, max_size=12)
    places = draw(st.just(every) | st.permutations(every) | anywhere)
    return Layout(counts, shape, draw(st.sampled_from(DTYPES)), places)


@examples(40)
@given(layout=layouts(), mapped=st.booleans(), shortest_run=st.sampled_from([1, 1 << 16]), data=st.data())
def test_reading_in_order(
    new_storage: NewStorage, layout: Layout, mapped: bool, shortest_run: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(layout.expected) - 1))
    stop = data.draw(st.integers(start, len(layout.expected)))
    with new_storage() as storage, pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovcache.loaders.rows._MIN_RUN_BYTES", shortest_run)  # so that tiny rows are read in runs too
        patch.setattr("fovcache.loaders.rows._JOB_BYTES", 40)
        rows = layout.rows(storage, mapped=mapped)
        assert (len(rows), rows.shapes, rows.dtype) == (len(layout.expected), [layout.shape], layout.dtype)
        out = torch.empty((stop - start, *layout.shape), dtype=layout.dtype)
        rows.read_all(out, start)
        assert torch.equal(out, layout.expected[start:stop])


@examples(40)
@given(layout=layouts(), mapped=st.booleans(), data=st.data())
def test_gathering(new_storage: NewStorage, layout: Layout, mapped: bool, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, len(layout.expected) - 1), max_size=15)), np.int64)
    with new_storage() as storage:
        rows = layout.rows(storage, mapped=mapped)
        expected = layout.expected[torch.from_numpy(positions)]
        found = rows.gather(positions)
        assert found.dtype == layout.dtype
        assert torch.equal(found, expected)
        out = torch.empty_like(expected)
        assert rows.gather(positions, out) is out
        assert torch.equal(out, expected)


@examples(20)
@given(layout=layouts(), data=st.data())
def test_a_subset_is_the_rows_at_its_positions(new_storage: NewStorage, layout: Layout, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, len(layout.expected) - 1), min_size=1)), np.int64)
    with new_storage() as storage:
        subset = layout.rows(storage, mapped=True).subset(positions)
        out = torch.empty((len(positions), *layout.shape), dtype=layout.dtype)
        subset.read_all(out)
        assert torch.equal(out, layout.expected[torch.from_numpy(positions)])


@examples(12)
@given(layout=layouts(smallest_side=1), data=st.data())
def test_a_row_that_no_shard_has_is_damage(new_storage: NewStorage, layout: Layout, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(layout.row) - 1))
    layout.row[at] = len(layout.table[layout.shard[at]]) + data.draw(st.integers(0, 3))
    with new_storage() as storage, pytest.raises(DamageError, match="do not have"):
        layout.rows(storage, mapped=True)


@examples(12)
@given(layout=layouts(smallest_side=1), mapped=st.booleans())
def test_a_shard_that_was_cut_is_damage(new_storage: NewStorage, layout: Layout, mapped: bool) -> None:
    with new_storage() as storage:
        rows = layout.rows(storage, mapped=mapped)
        for name in list(storage.list("shards")):
            storage.put(name, [storage.read(name)[:128]])
        with pytest.raises(DamageError, match="damaged"):
            rows.gather(np.arange(len(layout.row)))
