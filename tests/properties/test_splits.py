"""Whatever the samples: nothing crosses, the order of samples says nothing, shares and classes are kept."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import SplitError
from fovcache.probes.splits import Partition, SplitRule, partition

SHARES = st.sampled_from([(0.25, 0.15), (0.2, 0.1), (0.5, 0.3), (0.05, 0.05)])


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Keys, labels and groups: 2 to 5 classes, groups of 1 to 6 samples, some copies, some without a group."""
    keys, labels, groups = [], [], []
    for label, sizes in enumerate(draw(st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=15), min_size=2))):
        for group, size in enumerate(sizes):
            named = size > 1 or draw(st.booleans())
            copied = draw(st.booleans())
            for number in range(size):
                name = f"{label} {group} {0 if copied else number}"
                keys.append(hashlib.sha256(name.encode()).digest())
                labels.append(label)
                groups.append(f"{label} {group}" if named else None)
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), np.array(labels), groups


def sides(parts: Partition) -> tuple[np.ndarray, ...]:
    return parts.train, parts.validation, parts.test


@given(samples(), SHARES, st.integers(0, 2**31), st.booleans())
def test_each_sample_is_once_somewhere_and_nothing_crosses(made, shares, seed, group) -> None:
    keys, labels, groups = made
    group = group and any(groups)
    rule = SplitRule(kind="resplit", test=shares[0], validation=shares[1], group=group)
    parts = partition(keys, labels, groups, None, rule, seed)
    assert sorted(np.concatenate(sides(parts)).tolist()) == list(range(len(labels)))
    contents = [{row.tobytes() for row in keys[side]} for side in sides(parts)]
    assert sum(map(len, contents)) == len(set.union(*contents))
    if group:
        names = [{groups[position] for position in side} - {None} for side in sides(parts)]
        assert sum(map(len, names)) == len(set.union(*names))
    assert all(set(labels[side]) == set(labels) for side in sides(parts))


@given(samples(), st.integers(0, 2**31), st.randoms())
def test_the_order_of_samples_says_nothing(made, seed, chance) -> None:
    keys, labels, groups = made
    rule = SplitRule(kind="resplit", group=any(groups))
    order = list(range(len(labels)))
    chance.shuffle(order)
    parts = partition(keys, labels, groups, None, rule, seed)
    again = partition(keys[order], labels[order], [groups[each] for each in order], None, rule, seed)
    for one, other in zip(sides(parts), sides(again), strict=True):
        assert sorted(row.tobytes() for row in keys[one]) == sorted(row.tobytes() for row in keys[order][other])


@given(st.lists(st.integers(3, 60), min_size=2, max_size=12), SHARES, st.integers(0, 2**31))
def test_classes_and_shares_are_kept_to_the_sample(counts, shares, seed) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    keys = np.frombuffer(b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(len(labels))), np.uint8)
    rule = SplitRule(kind="resplit", test=shares[0], validation=shares[1])
    parts = partition(keys.reshape(-1, 32), labels, None, None, rule, seed)
    for side, share in ((parts.test, shares[0]), (parts.validation, shares[1])):
        wanted = share * np.array(counts)
        assert (np.abs(np.bincount(labels[side], minlength=len(counts)) - wanted) <= 1).all()
        if (wanted >= 1).all() and min(counts) >= 10:
            assert abs(len(side) - share * len(labels)) <= 1


@given(samples(), st.integers(0, 2**31))
def test_shares_of_groups_are_kept_to_the_largest_group(made, seed) -> None:
    keys, labels, groups = made
    groups = [name or f"own {keys[position].tobytes().hex()}" for position, name in enumerate(groups)]
    rule = SplitRule(kind="resplit", group=True)
    parts = partition(keys, labels, groups, None, rule, seed)
    for label in np.unique(labels):
        num = int((labels == label).sum())
        largest = np.unique(np.array(groups)[labels == label], return_counts=True)[1].max()
        for side, share in ((parts.test, rule.test), (parts.validation, rule.validation)):
            assert abs(int((labels[side] == label).sum()) - share * num) <= largest


@given(samples(), st.integers(1, 4), st.integers(0, 2**31), st.booleans(), st.randoms())
def test_independent_parts_are_disjoint_whole_and_do_not_depend_on_order(made, num_parts, seed, group, chance) -> None:
    keys, labels, groups = made
    rule = SplitRule(kind="independent", num_parts=num_parts, group=group and any(groups))
    try:
        parts = [partition(keys, labels, groups, None, rule, seed, part=part) for part in range(num_parts)]
    except SplitError:
        return
    every = np.concatenate([np.concatenate(sides(each)) for each in parts])
    assert sorted(every.tolist()) == list(range(len(labels)))
    contents = [{row.tobytes() for row in keys[side]} for each in parts for side in sides(each)]
    assert sum(map(len, contents)) == len(set.union(*contents))
    order = list(range(len(labels)))
    chance.shuffle(order)
    again = partition(
        keys[order], labels[order], [groups[each] for each in order], None, rule, seed, part=num_parts - 1
    )
    for one, other in zip(sides(parts[-1]), sides(again), strict=True):
        assert sorted(row.tobytes() for row in keys[one]) == sorted(row.tobytes() for row in keys[order][other])


@given(samples(), st.integers(1, 4), st.integers(0, 2**31), st.booleans(), st.randoms())
def test_shots_are_exact_of_train_and_do_not_depend_on_order(made, shots, seed, group, chance) -> None:
    keys, labels, groups = made
    group = group and any(groups)
    whole = partition(keys, labels, groups, None, SplitRule(kind="resplit", group=group), seed)
    rule = SplitRule(kind="resplit", group=group, shots=shots)
    different = [
        len({row.tobytes() for row in keys[whole.train][labels[whole.train] == label]}) for label in set(labels)
    ]
    if min(different) < shots:
        with pytest.raises(SplitError, match="shots"):
            partition(keys, labels, groups, None, rule, seed)
        return
    few = partition(keys, labels, groups, None, rule, seed)
    assert set(few.train) <= set(whole.train)
    assert np.bincount(labels[few.train]).tolist() == [shots] * len(different)
    assert few.test.tolist() == whole.test.tolist()
    order = list(range(len(labels)))
    chance.shuffle(order)
    again = partition(keys[order], labels[order], [groups[each] for each in order], None, rule, seed)
    kept = [sorted(row.tobytes() for row in rows) for rows in (keys[few.train], keys[order][again.train])]
    assert kept[0] == kept[1]
