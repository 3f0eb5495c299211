"""Shards: rows come back bit for bit, here and by the safetensors library.

Rows of any shape are allowed, rows of no bytes too: the format has them, so a shard does.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from fovcache.errors import DamageError
from fovcache.store.layout import shard_name
from fovcache.store.safetensors_file import file_parts, parse_header
from fovcache.store.shard import (
    KEYS,
    Shard,
    keys_hex,
    read_shard_header,
    read_shard_keys,
    shard_damage,
    write_shard,
)
from fovcache.store.storage import LocalStorage

NewStorage = Callable[[], AbstractContextManager[LocalStorage]]
Content = tuple[list[str], dict[str, torch.Tensor]]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
RECIPE, BLOCK = "ab" * 32, "cd" * 32
METADATA = st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """Keys, and one to three features of them with any bits, NaNs included."""
    keys = draw(st.lists(DIGESTS, min_size=1, max_size=5, unique=True))
    features = {}
    for digest in draw(st.lists(DIGESTS, min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = (len(keys), *draw(st.lists(st.integers(0, 4), max_size=3)))
        size = math.prod(shape) * dtype.itemsize
        data = draw(st.binary(min_size=size, max_size=size))
        features[digest] = torch.tensor(list(data), dtype=torch.uint8).view(dtype).reshape(shape)
    return keys, features


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def write(storage: LocalStorage, keys: list[str], features: dict[str, torch.Tensor]) -> tuple[Shard, str]:
    shard = write_shard(storage, recipe=RECIPE, block=BLOCK, keys=keys, features=features)
    return shard, shard_name(RECIPE, shard.digest)


@given(contents())
def test_a_shard_comes_back(new_storage: NewStorage, content: Content) -> None:
    keys, features = content
    with new_storage() as storage:
        shard, name = write(storage, keys, features)
        header = read_shard_header(storage, name)
        assert (shard.size_bytes, shard.num_rows) == (storage.size(name), len(keys))
        assert (header.recipe, header.block, header.features) == (RECIPE, BLOCK, tuple(sorted(features)))
        assert keys_hex(read_shard_keys(storage, name)) == keys
        assert shard_damage(storage, name) is None
        data = storage.read(name)
        for digest, rows in features.items():
            info = header.tensors[digest]
            assert info.shape == tuple(rows.shape)
            assert data[info.offset : info.offset + info.size_bytes] == bits(rows)


@given(contents())
def test_the_safetensors_library_reads_a_shard(new_storage: NewStorage, content: Content) -> None:
    keys, features = content
    with new_storage() as storage:
        _, name = write(storage, keys, features)
        with safe_open(storage.path(name), framework="pt") as file:
            assert set(file.keys()) == {KEYS, *features}
            for digest, rows in features.items():
                found = file.get_tensor(digest)
                assert (found.dtype, found.shape) == (rows.dtype, rows.shape)
                assert bits(found) == bits(rows)
        with safe_open(storage.path(name), framework="numpy") as file:
            assert keys_hex(file.get_tensor(KEYS)) == keys
            for digest, rows in features.items():
                if rows.dtype != torch.bfloat16:  # numpy has none
                    found = file.get_tensor(digest)
                    assert found.shape == tuple(rows.shape)
                    assert found.tobytes() == bits(rows)


@given(contents(), st.data())
def test_equal_content_is_one_file(new_storage: NewStorage, content: Content, data: st.DataObject) -> None:
    keys, features = content
    order = data.draw(st.permutations(list(features)))
    with new_storage() as storage:
        assert write(storage, keys, features) == write(storage, keys, {digest: features[digest] for digest in order})
        assert len(list(storage.list("shards"))) == 1


@given(contents(), st.data())
def test_any_flipped_bit_or_cut_is_found(new_storage: NewStorage, content: Content, data: st.DataObject) -> None:
    keys, features = content
    with new_storage() as storage:
        _, name = write(storage, keys, features)
        damaged = bytearray(storage.read(name))
        at = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del damaged[at:]
        storage.put(name, [bytes(damaged)])
        assert shard_damage(storage, name) is not None


@given(METADATA, st.lists(st.integers(0, 9), max_size=4))
def test_a_header_comes_back_and_its_data_is_aligned(metadata: dict[str, str], sizes: list[int]) -> None:
    tensors = {f"t{n}": ("U8", (size,), np.full(size, n, np.uint8).data) for n, size in enumerate(sizes)}
    data = b"".join(file_parts(tensors, metadata))
    infos, found = parse_header(data, len(data), "it")
    assert found == metadata
    assert {name: (info.shape, data[info.offset : info.offset + info.size_bytes]) for name, info in infos.items()} == {
        name: (shape, bytes(value)) for name, (_, shape, value) in tensors.items()
    }
    assert min((info.offset for info in infos.values()), default=0) % 64 == 0


@given(st.binary(max_size=200))
def test_what_is_no_header_is_damage(data: bytes) -> None:
    with pytest.raises(DamageError):
        parse_header(data, len(data) + 1, "it")
