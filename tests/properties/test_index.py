"""The index against a plain dictionary, whatever state its file is in."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from fovcache.store.index import RecipeIndex, open_index
from fovcache.store.layout import INDEX, shard_name
from fovcache.store.manifest import Manifest, block_id, publish_manifest
from fovcache.store.shard import keys_array, keys_hex, write_shard
from fovcache.store.storage import LocalStorage

RECIPE = "12" * 32
FEATURES = ["0a" * 32, "0b" * 32, "0c" * 32]
# Four prefixes of 8 bytes, each of four keys; of those, two pairs share their first 31.
KEYS = [f"{a:02x}" * 8 + f"{b:02x}" * 23 + f"{c:02x}" for a in range(4) for b in (1, 2) for c in (0, 255)]
UNKNOWN = ["ee" * 32, KEYS[0][:16] + "ff" * 24, KEYS[-1][:62] + "77", "00" * 32, "ff" * 32]
BLOCKS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(FEATURES), min_size=1),
        st.lists(st.sampled_from(KEYS), min_size=1, max_size=8, unique=True),
    ),
    max_size=6,
)
NewStorage = Callable[[], AbstractContextManager[LocalStorage]]
Blocks = list[tuple[set[str], list[str]]]
Places = dict[tuple[str, str], set[tuple[str, int]]]


def publish(storage: LocalStorage, blocks: Blocks) -> Places:
    """Write blocks as a build does; for each feature and key, in which shards and rows it lies."""
    places: Places = {}
    for features, keys in blocks:
        block = block_id(RECIPE, sorted(features), keys_array(keys).tobytes(), 0)
        rows = {feature: torch.zeros((len(keys), 1)) for feature in features}
        shard = write_shard(storage, recipe=RECIPE, block=block, keys=keys, features=rows)
        manifest = Manifest(
            recipe=RECIPE, block=block, attempt=0, features=tuple(sorted(features)), shards=(shard,), failures=()
        )
        publish_manifest(storage, manifest)
        for feature in features:
            for row, key in enumerate(keys):
                places.setdefault((feature, key), set()).add((shard.digest, row))
    return places


def check(index: RecipeIndex, places: Places) -> None:
    """Every key that some block has is found where it lies; no other key is found."""
    asked = KEYS + UNKNOWN
    for feature in FEATURES:
        shard, row = index.lookup(feature, keys_array(asked))
        for key, number, position in zip(asked, shard.tolist(), row.tolist(), strict=True):
            expected = places.get((feature, key), set())
            found = (index.shards[number].shard.digest, position) if number >= 0 else None
            assert found in expected if expected else found is None


@examples(20)
@given(BLOCKS)
def test_lookup_is_that_of_a_dictionary(new_storage: NewStorage, blocks: Blocks) -> None:
    with new_storage() as storage:
        places = publish(storage, blocks)
        index = open_index(storage, RECIPE, save=True)
        check(index, places)
        assert index.lookup(FEATURES[0], keys_array([]))[0].shape == (0,)
        again = open_index(storage, RECIPE)
        check(again, places)
        assert len(again) == len(index)


@examples(20)
@given(BLOCKS, BLOCKS)
def test_an_index_that_is_behind_is_made_anew(new_storage: NewStorage, early: Blocks, late: Blocks) -> None:
    with new_storage() as storage:
        places = publish(storage, early)
        open_index(storage, RECIPE, save=True)
        for place, found in publish(storage, late).items():
            places.setdefault(place, set()).update(found)
        check(open_index(storage, RECIPE), places)
        check(open_index(storage, RECIPE, save=True), places)


@examples(20)
@given(BLOCKS.filter(bool), st.data())
def test_a_damaged_index_is_made_anew(new_storage: NewStorage, blocks: Blocks, data: st.DataObject) -> None:
    with new_storage() as storage:
        places = publish(storage, blocks)
        open_index(storage, RECIPE, save=True)
        (name,) = storage.list(INDEX)
        damaged = bytearray(storage.read(name))
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "gone"])):
            case "flip":
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
                storage.put(name, [bytes(damaged)])
            case "cut":
                storage.put(name, [bytes(damaged[:at])])
            case "gone":
                storage.delete(name)
        check(open_index(storage, RECIPE), places)


@examples(20)
@given(BLOCKS.filter(bool), st.data())
def test_a_lost_shard_takes_only_its_block_along(new_storage: NewStorage, blocks: Blocks, data: st.DataObject) -> None:
    with new_storage() as storage:
        places = publish(storage, blocks)
        open_index(storage, RECIPE, save=True)
        lost = data.draw(st.sampled_from(sorted({digest for found in places.values() for digest, _ in found})))
        storage.delete(shard_name(RECIPE, lost))
        left = {place: {item for item in found if item[0] != lost} for place, found in places.items()}
        index = open_index(storage, RECIPE)
        check(index, left)
        assert len(index.lost) == 1


@given(st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=6))
def test_keys_come_back_as_bytes(keys: list[str]) -> None:
    assert keys_hex(keys_array(keys)) == keys
