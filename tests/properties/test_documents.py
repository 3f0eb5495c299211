"""Documents, datasets, plans and columns of strings: what is written is what is read."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.builder.plan import Plan, Want, make_plans, open_plans, publish_plan, read_plan, unfinished
from fovcache.errors import DamageError
from fovcache.keys.digest import canonical_json, document_digest
from fovcache.sources.sample import Sample, Unreadable
from fovcache.store.dataset import Dataset, publish_dataset, read_dataset
from fovcache.store.documents import sealed, unseal
from fovcache.store.layout import dataset_name, manifest_name
from fovcache.store.manifest import Manifest, publish_manifest
from fovcache.store.storage import LocalStorage
from fovcache.store.strings import pack_strings, unpack_strings

NewStorage = Callable[[], AbstractContextManager[LocalStorage]]
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)
KEYS = st.binary(min_size=32, max_size=32).map(bytes.hex)
TEXTS = st.none() | st.text(max_size=12)
LABELS = st.none() | st.text(max_size=6) | st.integers(-(2**63), 2**63 - 1)
SAMPLES = st.builds(
    Sample,
    key=KEYS,
    uri=st.text(max_size=20),
    source=st.integers(0, 2**31 - 1),
    label=LABELS,
    caption=TEXTS,
    group=TEXTS,
    split=TEXTS,
)
UNREADABLE = st.builds(
    Unreadable, uri=st.text(max_size=20), source=st.integers(0, 9), reason=st.text(max_size=20), permanent=st.booleans()
)
FEATURES = st.lists(KEYS, min_size=1, max_size=3, unique=True).map(lambda digests: tuple(sorted(digests)))
WANTS = st.builds(Want, key=KEYS, features=FEATURES, attempt=st.integers(0, 2))
PLANS = st.builds(
    Plan,
    recipe=KEYS,
    features=FEATURES,
    keys=st.lists(KEYS, min_size=1, max_size=12, unique=True).map(tuple),
    rows_per_block=st.integers(1, 5),
    attempt=st.integers(0, 3),
)


def reordered(value: object, draw: st.DrawFn) -> object:
    """The same JSON value with the fields of its objects in another order."""
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: reordered(value[name], draw) for name in names}
    return [reordered(item, draw) for item in value] if isinstance(value, list) else value


@given(DOCUMENTS, st.data())
def test_a_digest_does_not_depend_on_the_order_of_fields(document: dict[str, object], data: st.DataObject) -> None:
    other = reordered(document, data.draw)
    assert canonical_json(other) == canonical_json(document)
    assert document_digest(other) == document_digest(document)


@given(DOCUMENTS)
def test_the_canonical_form_is_json_of_the_same_value(document: dict[str, object]) -> None:
    # As other languages read it: every number is a double.
    assert json.loads(canonical_json(document), parse_int=float) == document


@given(DOCUMENTS, DOCUMENTS)
def test_documents_that_differ_have_digests_that_differ(first: dict[str, object], second: dict[str, object]) -> None:
    # json.dumps tells 1 from True, which Python's == does not; JSON has one kind of number, so 1.0 is 1.
    same = json.dumps(json.loads(canonical_json(first)), sort_keys=True) == json.dumps(
        json.loads(canonical_json(second)), sort_keys=True
    )
    assert (document_digest(first) == document_digest(second)) == same


@given(DOCUMENTS.filter(lambda document: "digest" not in document), st.data())
def test_a_sealed_document_opens_and_shows_any_flipped_bit(document: dict[str, object], data: st.DataObject) -> None:
    whole = sealed(document)
    assert unseal(whole, "it") == document
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamageError):
        unseal(bytes(damaged), "it")


@given(st.lists(st.none() | st.text(max_size=20), max_size=8))
def test_columns_of_strings_come_back(values: list[str | None]) -> None:
    columns = pack_strings("name", values)
    assert unpack_strings("name", columns, len(values)) == values


@given(st.lists(SAMPLES, max_size=6), st.lists(UNREADABLE, max_size=3))
def test_a_dataset_comes_back(new_storage: NewStorage, samples: list[Sample], unreadable: list[Unreadable]) -> None:
    dataset = Dataset(samples=tuple(samples), unreadable=tuple(unreadable))
    with new_storage() as storage:
        digest = publish_dataset(storage, dataset)
        assert digest == dataset.digest
        assert read_dataset(storage, digest) == dataset


@given(st.lists(SAMPLES, min_size=1, max_size=3), st.data())
def test_a_dataset_shows_any_flipped_bit(new_storage: NewStorage, samples: list[Sample], data: st.DataObject) -> None:
    with new_storage() as storage:
        digest = publish_dataset(storage, Dataset(samples=tuple(samples)))
        damaged = bytearray(storage.read(dataset_name(digest)))
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        storage.put(dataset_name(digest), [bytes(damaged)])
        with pytest.raises(DamageError):
            read_dataset(storage, digest)


@given(PLANS)
def test_a_plan_comes_back(new_storage: NewStorage, plan: Plan) -> None:
    with new_storage() as storage:
        name = publish_plan(storage, plan)
        assert read_plan(storage, name) == plan
        assert open_plans(storage, plan.recipe) == {name: plan}


@given(PLANS)
def test_a_plans_blocks_are_its_samples_in_order(plan: Plan) -> None:
    blocks = list(plan.blocks())
    assert [key for block in blocks for key in block.keys] == list(plan.keys)
    assert [len(block.keys) for block in blocks[:-1]] == [plan.rows_per_block] * (len(blocks) - 1)
    assert len({block.id for block in blocks}) == len(blocks)


@given(PLANS, st.data())
def test_unfinished_blocks_have_no_manifest(new_storage: NewStorage, plan: Plan, data: st.DataObject) -> None:
    blocks = list(plan.blocks())
    done = {block.id for block in blocks if data.draw(st.booleans())}
    with new_storage() as storage:
        for identity in done:
            publish_manifest(storage, _empty_manifest(plan, identity))
            assert storage.exists(manifest_name(plan.recipe, identity))
        assert unfinished(storage, plan) == [block for block in blocks if block.id not in done]


@given(
    st.lists(st.tuples(KEYS, FEATURES, st.integers(0, 2)), unique_by=lambda item: item[0], max_size=10),
    st.integers(1, 4),
)
def test_plans_hold_every_want_once_and_in_order(wants: list[tuple[str, tuple[str, ...], int]], rows: int) -> None:
    plans = make_plans("recipe", [Want(key=key, features=f, attempt=a) for key, f, a in wants], rows)
    for plan in plans:
        assert list(plan.keys) == [k for k, f, a in wants if (f, a) == (plan.features, plan.attempt)]
    assert sum(len(plan.keys) for plan in plans) == len(wants)


def _empty_manifest(plan: Plan, block: str) -> Manifest:
    return Manifest(
        recipe=plan.recipe, block=block, attempt=plan.attempt, features=plan.features, shards=(), failures=()
    )
