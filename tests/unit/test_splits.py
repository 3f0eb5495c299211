"""Splits say no, with the class, the counts and the way out, rather than divide what cannot be divided."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from fovcache.errors import SplitError, UsageError
from fovcache.probes.splits import Partition, SplitRule, partition, varies_with_seed
from fovcache.probes.units import find_units

RESPLIT, GIVEN = SplitRule(kind="resplit"), SplitRule(kind="given")
BY_GROUP = SplitRule(kind="resplit", group=True)


def keys_of(names: Sequence[object]) -> np.ndarray:
    digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def all_of(parts: Partition) -> list[int]:
    return sorted(np.concatenate([parts.train, parts.validation, parts.test]).tolist())


def test_shares_are_of_all_samples_and_every_class_has_its_part() -> None:
    labels = np.repeat([0, 1, 2], [200, 100, 20])
    parts = partition(keys_of(range(320)), labels, None, None, SplitRule(kind="resplit", test=0.3, validation=0.1), 0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (192, 32, 96)
    assert np.bincount(labels[parts.test]).tolist() == [60, 30, 6]
    assert np.bincount(labels[parts.validation]).tolist() == [20, 10, 2]
    assert all_of(parts) == list(range(320))


def test_what_rounding_takes_from_one_class_another_gets() -> None:
    labels = np.repeat(np.arange(100), 5)  # a quarter of 5 is 1.25: always rounding down would make 20 % of all
    parts = partition(keys_of(range(500)), labels, None, None, RESPLIT, 0)
    assert len(parts.test) == 125
    assert set(np.bincount(labels[parts.test]).tolist()) == {1, 2}


def test_a_class_in_large_groups_does_not_shift_one_in_small_groups() -> None:
    labels = np.repeat([0, 1], [70, 40])
    groups = [f"g{number // 7}" if number < 70 else f"s{number}" for number in range(110)]
    for seed in range(20):
        parts = partition(keys_of(range(110)), labels, groups, None, BY_GROUP, seed)
        assert abs((labels[parts.test] == 1).sum() - 10) <= 1


def test_groups_that_hold_every_class_are_divided_whole() -> None:
    labels, groups = np.arange(160) % 4, [f"g{number // 4}" for number in range(160)]
    parts = partition(keys_of(range(160)), labels, groups, None, BY_GROUP, 0)
    for side, num in ((parts.test, 10), (parts.validation, 6), (parts.train, 24)):
        assert np.bincount(labels[side]).tolist() == [num] * 4
        assert len({groups[position] for position in side}) == num


def test_a_class_that_is_the_majority_of_two_groups_and_in_many_is_divided() -> None:
    groups = [f"g{number // 10}" for number in range(300)]
    labels = np.array([0] * 9 + [1]).repeat(30).reshape(10, 30).T.ravel()
    labels[:20] = 1
    parts = partition(keys_of(range(300)), labels, groups, None, BY_GROUP, 0)
    assert all(set(labels[side]) == {0, 1} for side in (parts.train, parts.validation, parts.test))


def test_a_seed_is_a_split_and_another_seed_another() -> None:
    keys, labels = keys_of(range(100)), np.arange(100) % 2
    once, again, other = (partition(keys, labels, None, None, RESPLIT, seed) for seed in (3, 3, 4))
    assert once.test.tolist() == again.test.tolist()
    assert once.test.tolist() != other.test.tolist()


def test_a_sample_goes_where_chance_sends_it() -> None:
    """Over seeds every sample is about as often in test: nothing about it but the hash decides."""
    times = np.zeros(40)
    for seed in range(200):
        times[partition(keys_of(range(40)), np.arange(40) // 20, None, None, RESPLIT, seed).test] += 1
    assert times.sum() == 200 * 10
    assert 20 <= times.min() <= times.max() <= 85  # binomial, 50 ± 6


def test_splits_of_a_seed_stay_what_they_are() -> None:
    """What a paper reports by its seed must be found again by later versions."""
    parts = partition(keys_of(range(20)), np.arange(20) % 2, None, None, RESPLIT, 0)
    assert (parts.test.tolist(), parts.validation.tolist()) == ([3, 7, 8, 9, 14], [10, 13, 19])


def test_equal_samples_are_on_one_side_without_groups() -> None:
    names = [number % 30 for number in range(90)]  # each content three times
    parts = partition(keys_of(names), np.array(names) % 2, None, None, RESPLIT, 0)
    sides = [{names[position] for position in side} for side in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sides)) == 30


def test_groups_that_share_a_sample_are_one() -> None:
    names = ["a0", "shared", "shared", "b0", *(f"x{number}" for number in range(60))]
    groups = ["a", "a", "b", "b", *(f"g{number}" for number in range(60))]
    labels = np.array([0, 0, 0, 0, *(number % 2 for number in range(60))])
    for seed in range(20):
        parts = partition(keys_of(names), labels, groups, None, BY_GROUP, seed)
        first = [side for side in (parts.train, parts.validation, parts.test) if set(side.tolist()) & {0, 1, 2, 3}]
        assert len(first) == 1


def test_a_group_has_the_label_of_most_of_its_samples() -> None:
    units = find_units(keys_of(range(7)), np.array([1, 0, 1, 2, 2, 0, 0]), ["a", "a", "a", "b", "b", "b", "b"])
    assert dict(zip(units.identities, units.labels.tolist(), strict=True)) == {b"group a": 1, b"group b": 0}


def test_a_sample_without_a_group_stands_for_itself() -> None:
    groups = [None] * 40 + ["only"] * 10
    labels = np.array([number % 2 for number in range(40)] + [0] * 10)
    parts = partition(keys_of(range(50)), labels, groups, None, BY_GROUP, 0)
    assert all_of(parts) == list(range(50))
    assert all(len(side) < 40 for side in (parts.train, parts.validation, parts.test))


def test_given_test_stays_and_validation_is_drawn_from_train() -> None:
    splits = ["train"] * 60 + ["test"] * 20
    labels = np.arange(80) % 2
    one, two = (partition(keys_of(range(80)), labels, None, splits, GIVEN, seed) for seed in (0, 1))
    assert one.test.tolist() == two.test.tolist() == list(range(60, 80))
    assert len(one.validation) == 9  # 15 % of train
    assert one.validation.tolist() != two.validation.tolist()
    assert all_of(one) == list(range(80))
    assert varies_with_seed(splits, GIVEN) == "which samples of the given train split are for validation"


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_given_validation_is_the_validation(name: str) -> None:
    splits = ["train"] * 60 + [name] * 10 + ["test"] * 10
    one, two = (partition(keys_of(range(80)), np.arange(80) % 2, None, splits, GIVEN, seed) for seed in (0, 1))
    assert one.validation.tolist() == two.validation.tolist() == list(range(60, 70))
    assert varies_with_seed(splits, GIVEN).startswith("nothing")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test": 0.7, "validation": 0.3}, r"test = 0.7 and validation = 0.3 leave nothing for train"),
        ({"test": 0}, r"share of test is 0; it must lie between 0 and 1"),
        ({"validation": 1.5}, "share of validation is 1.5"),
        ({"test": float("nan")}, "share of test is nan"),
        ({"kind": "resplits"}, r"kind is 'resplits'; nearest: resplit"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SplitRule(**{"kind": "resplit", **shares})


def test_the_share_of_test_is_not_looked_at_where_test_is_given() -> None:
    assert SplitRule(kind="given", test=0.9, validation=0.2).validation == 0.2


def refused(labels: object, rule: SplitRule = RESPLIT, **named: object) -> str:
    """What partition says."""
    num = len(named.get("keys", labels if labels is not None else range(4)))
    given = {"keys": keys_of(range(num)), "groups": None, "splits": None, "seed": 0} | named
    with pytest.raises(SplitError) as caught:
        partition(labels=None if labels is None else np.array(labels), rule=rule, **given)
    return str(caught.value)


def test_labels_are_needed() -> None:
    assert refused(None).startswith("a head needs labels, and these samples have none: put them in a folder")


def test_one_class_is_too_few() -> None:
    assert refused([1] * 30, classes=["cat", "dog"]).startswith("all 30 samples are of one class, 'dog'")


def test_a_class_with_too_few_samples_is_named() -> None:
    said = refused([0] * 30 + [1] * 2, classes=["cat", "dog"])
    assert said.startswith(
        "class 'dog' has 2 different samples to divide, and train, validation and test need one each"
    )
    assert "(" not in said
    assert "leave the class out" in said
    assert "(2 classes have too few)" in refused([0] * 30 + [1] * 2 + [2])


def test_copies_of_one_sample_do_not_make_it_three() -> None:
    keys = keys_of([*range(30), "same", "same", "same"])
    assert refused([0] * 30 + [1] * 3, keys=keys).startswith("class 1 has 1 different sample to divide")


def test_a_class_with_too_few_groups_is_named() -> None:
    groups = [f"g{number}" for number in range(30)] + ["one"] * 10 + ["two"] * 10
    said = refused([0] * 30 + [1] * 20, BY_GROUP, groups=groups)
    assert said.startswith("class 1 has 2 groups to divide, and train, validation and test need one each")
    assert "group = false" in said


def test_a_class_that_is_nowhere_the_majority_is_missing_and_named() -> None:
    groups = [f"g{number // 10}" for number in range(100)]
    labels = [number // 10 % 2 for number in range(100)]
    labels[0] = 2
    said = refused(labels, BY_GROUP, groups=groups)
    assert said.startswith("class 2 ")


def test_a_class_that_is_in_every_group_goes_where_the_groups_go() -> None:
    """Such as a direction, where each group moves in all of them."""
    groups = [f"g{number // 4}" for number in range(160)]
    labels = np.arange(160) % 2
    parts = partition(keys_of(range(160)), labels, groups, None, BY_GROUP, 0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (96, 24, 40)
    assert np.bincount(labels[parts.test]).tolist() == [20, 20]


def test_grouping_without_groups_is_refused() -> None:
    assert "none names a group" in refused([0, 1] * 20, BY_GROUP, groups=[None] * 40)
    assert "group = false" in refused([0, 1] * 20, BY_GROUP)


def test_a_class_missing_from_a_given_split_is_named_with_its_counts() -> None:
    said = refused([0, 1] * 20 + [0] * 10, GIVEN, splits=["train"] * 40 + ["test"] * 10, classes=["cat", "dog"])
    assert said.startswith("class 'dog' is missing from test: it has 17 in train, 3 in validation, 0 in test")
    assert 'set kind = "resplit"' in said


def test_a_class_of_one_given_train_sample_cannot_be_divided() -> None:
    said = refused([0] * 20 + [1] + [0, 1] * 5, GIVEN, splits=["train"] * 21 + ["test"] * 10)
    assert said.startswith("class 1 has 1 different sample to divide, and train and validation need one each")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train"] * 40, "no split 'test' (splits there are: 'train')"),
        (["test"] * 40, "no split 'train'"),
        (["train"] * 20 + ["test"] * 19 + ["dev"], "samples are in split 'dev' (1 of 40)"),
        (["train"] * 20 + ["test"] * 19 + [None], "samples name no split (1 of 40)"),
        (None, "samples name no split (40 of 40)"),
        (["train", "test", "val", "validation"] * 10, "two splits for validation"),
    ],
)
def test_given_splits_that_are_not_there_are_refused(splits: list | None, message: str) -> None:
    assert message in refused([0, 1] * 20, GIVEN, splits=splits)


def test_a_sample_in_two_given_splits_is_a_leak() -> None:
    keys = keys_of([*range(38), 5, 7])
    splits = ["train"] * 30 + ["test"] * 10
    said = refused([0, 1] * 20, GIVEN, keys=keys, splits=splits, uris=[f"{number}.png" for number in range(40)])
    assert said.startswith("train and test share 2 samples of equal bytes, such as 3")
    assert ".png" in said
    assert 'kind = "resplit", which keeps equal samples on one side' in said


def test_a_group_in_two_given_splits_is_a_leak() -> None:
    groups = [f"g{number}" for number in range(39)] + ["g3"]
    said = refused(
        [0, 1] * 20, SplitRule(kind="given", group=True), groups=groups, splits=["train"] * 30 + ["test"] * 10
    )
    assert said.startswith("train and test share 1 group, such as 'g3'")
    partition(keys_of(range(40)), np.arange(40) % 2, groups, ["train"] * 30 + ["test"] * 10, GIVEN, 0)  # if it is meant


def independent(num_parts: int, **fields: object) -> SplitRule:
    return SplitRule(kind="independent", num_parts=num_parts, **fields)


def test_independent_parts_share_nothing_and_leave_nothing_out() -> None:
    labels = np.repeat([0, 1, 2], [200, 100, 20])
    parts = [partition(keys_of(range(320)), labels, None, None, independent(4), seed, part=seed) for seed in range(4)]
    assert sorted(np.concatenate([all_of(each) for each in parts]).tolist()) == list(range(320))
    for each in parts:
        assert np.bincount(labels[all_of(each)]).tolist() == [50, 25, 5]
        assert len(each.test) == 20
        assert len(each.validation) == 12


def test_a_part_is_the_same_samples_for_every_seed_divided_anew() -> None:
    labels = np.arange(120) % 2
    one, two = (partition(keys_of(range(120)), labels, None, None, independent(3), seed, part=1) for seed in (5, 9))
    assert all_of(one) == all_of(two)
    assert one.test.tolist() != two.test.tolist()
    assert (
        varies_with_seed(None, independent(3)) == "which samples it has to itself, 1/3 of all, and how they are divided"
    )


def test_groups_are_in_one_part() -> None:
    groups = [f"g{number // 5}" for number in range(300)]
    labels = np.arange(300) // 5 % 2
    rule = independent(3, group=True)
    of_part = [partition(keys_of(range(300)), labels, groups, None, rule, 0, part=part) for part in range(3)]
    names = [{groups[position] for position in all_of(each)} for each in of_part]
    assert sum(map(len, names)) == 60


def test_parts_that_would_be_too_small_are_refused() -> None:
    said = refused([0] * 60 + [1] * 14, independent(5), classes=["cat", "dog"])
    assert said.startswith(
        "class 'dog' has 14 different samples, and 5 seeds with samples of their own need 15 at least, one each for "
        "train, validation and test: take fewer seeds"
    )
    assert 'kind = "resplit", whose seeds share all' in said
    groups = [f"a{number}" for number in range(40)] + ["large"] * 30 + [f"b{number}" for number in range(8)]
    rule, labels = independent(3, group=True), np.repeat([0, 1], [40, 38])
    told = []
    for part in range(3):
        try:
            partition(keys_of(range(78)), labels, groups, None, rule, 0, part=part)
        except SplitError as error:
            told.append((part, str(error)))
    assert told  # the part that has the large group has no room for two more
    for part, said in told:
        assert said.startswith(f"part {part + 1} of 3, one for each seed: class 1 has ")
        assert said.endswith("; or take fewer seeds")


def test_shots_are_so_many_of_every_class_and_the_rest_stays_where_it_is() -> None:
    labels = np.repeat([0, 1, 2], [200, 100, 20])
    whole = partition(keys_of(range(320)), labels, None, None, RESPLIT, 3)
    kept = []
    for shots in (1, 5, 12):
        rule = SplitRule(kind="resplit", shots=shots)
        few = partition(keys_of(range(320)), labels, None, None, rule, 3)
        assert np.bincount(labels[few.train]).tolist() == [shots] * 3
        assert few.test.tolist() == whole.test.tolist()
        assert few.validation.tolist() == whole.validation.tolist()
        kept.append(set(few.train.tolist()))
    assert kept[0] < kept[1] < kept[2] <= set(whole.train.tolist())
    assert varies_with_seed(None, rule).endswith("; which 12 of each class train keeps")


def test_shots_are_of_different_groups_as_long_as_there_are_some() -> None:
    groups = [f"g{number // 10}" for number in range(400)]
    labels = np.arange(400) % 2  # every group has five of each
    for shots, most in ((20, 1), (30, 2)):
        rule = SplitRule(kind="resplit", group=True, shots=shots)
        train = partition(keys_of(range(400)), labels, groups, None, rule, 0).train
        for label in (0, 1):
            times = np.unique([groups[position] for position in train if labels[position] == label], return_counts=True)
            assert times[1].max() == most


def test_more_shots_than_a_class_has_in_train_are_refused() -> None:
    rule = SplitRule(kind="resplit", shots=20)
    said = refused([0] * 60 + [1] * 20, rule, classes=["cat", "dog"])
    assert said.startswith(
        "class 'dog' has 12 different samples in train, and shots = 20 takes that many of every class"
    )
    copies = keys_of([*range(60), *(number % 15 for number in range(100, 160))])
    assert "class 1 has 9 different samples in train" in refused([0] * 60 + [1] * 60, rule, keys=copies)
    with pytest.raises(UsageError, match="shots is 0, expected how many samples of each class"):
        SplitRule(kind="resplit", shots=0)


def test_shots_of_a_given_train_split_are_drawn_by_the_seed() -> None:
    splits, rule = ["train"] * 60 + ["val"] * 10 + ["test"] * 10, SplitRule(kind="given", shots=4)
    one, two = (partition(keys_of(range(80)), np.arange(80) % 2, None, splits, rule, seed) for seed in (0, 1))
    assert one.train.tolist() != two.train.tolist()
    assert len(one.train) == len(two.train) == 8
    assert varies_with_seed(splits, rule) == "which 4 of each class train keeps"
