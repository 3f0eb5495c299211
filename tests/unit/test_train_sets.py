"""The dataset's own splits are kept, and what cannot be divided is refused."""

import hashlib
import logging

import numpy as np
import pytest

from fovcache.errors import SplitError, UsageError
from fovcache.probes.train.config import SplitChoice
from fovcache.probes.train.feeds.sets import TrainSets, divide
from fovcache.probes.train.feeds.steps import share_of


def sets_of(
    samples: list[tuple[str, str | None]], num: int = 2, groups: list[str | None] | None = None, **choice: str
) -> TrainSets:
    """Of (content, split) pairs."""
    digests = b"".join(hashlib.sha256(content.encode()).digest() for content, _ in samples)
    return divide(
        np.frombuffer(digests, np.uint8).reshape(-1, 32),
        [split for _, split in samples],
        SplitChoice(**choice),
        num,
        uris=[f"{content}.mp4" for content, _ in samples],
        groups=groups or [],
    )


@pytest.mark.parametrize("name", ["val", "validation"])
def test_given_splits_are_what_is_trained_on_and_validated_with(name: str) -> None:
    sets = sets_of([("a", "train"), ("b", name), ("c", "test"), ("d", "train"), ("e", name), ("f", None)])
    assert sets.train.tolist() == [0, 3]
    assert sorted(sets.validation.tolist()) == [1, 4]
    assert sets.used.tolist() == [0, 3, *sets.validation.tolist()]


def test_splits_can_be_named() -> None:
    samples = [("a", "train"), ("b", "val"), ("c", "test"), ("d", "extra")]
    assert sets_of(samples, 1, train="extra", validation="test").train.tolist() == [3]
    assert sets_of(samples, 1, train="extra", validation="test").validation.tolist() == [2]


def test_without_a_train_split_all_but_the_validation_split_is_trained_on() -> None:
    assert sets_of([("a", None), ("b", "val"), ("c", None), ("d", "val")], 1).train.tolist() == [0, 2]


def test_without_a_validation_split_it_is_drawn_from_the_train_split() -> None:
    samples = [(str(number), "train" if number % 2 else "test") for number in range(20)]
    sets = sets_of(samples, 4)
    assert len(sets.validation) == 4
    assert {samples[at][1] for at in sets.used.tolist()} == {"train"}
    assert len(sets.used) == 10


def test_of_a_large_validation_split_the_same_samples_are_taken_as_of_any_set() -> None:
    samples = [(str(number), "val" if number < 10 else "train") for number in range(20)]
    few, more = sets_of(samples, 3), sets_of(samples, 5)
    assert few.validation.tolist() == more.validation[:3].tolist()
    assert len(more.validation) == 5
    assert few.train.tolist() == list(range(10, 20))  # what is left of the split is not trained on


def test_a_small_validation_split_is_all_used_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sets = sets_of([("a", "train"), ("b", "val")], 1000)
    assert sets.validation.tolist() == [1]
    assert "split 'val' has 1 samples, and validation_samples is 1000" in caplog.text


def test_content_in_both_given_splits_is_refused_by_name() -> None:
    with pytest.raises(SplitError, match=r"1 samples of the validation split .*same content.*\(a\.mp4\)"):
        sets_of([("a", "train"), ("a", "val"), ("b", "val")])


def test_groups_on_both_sides_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    samples = [(str(number), None) for number in range(8)]
    with caplog.at_level(logging.WARNING):
        sets_of(samples, 2, groups=["one video"] * 8)
    assert "1 groups have samples to train on and samples to validate with (such as 'one video')" in caplog.text


@pytest.mark.parametrize(
    ("samples", "choice", "said"),
    [
        (
            [("a", None), ("b", None)],
            {},
            "no sample is left to train on: 2 of 2.*validation_samples is 2; set it lower",
        ),
        ([("a", "val"), ("b", "val")], {}, "no sample is left to train on: all 2 are in split 'val'"),
        ([("a", "train")], {"train": "trian"}, "the dataset has no split 'trian'; nearest: train"),
        ([("a", "train")], {"validation": "val"}, "the dataset has no split 'val'"),
        ([("a", "train")], {"validation": "train"}, "cannot be for training and for validation"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    samples: list[tuple[str, str | None]], choice: dict[str, str], said: str
) -> None:
    with pytest.raises(SplitError, match=said):
        sets_of(samples, **choice)


def test_a_step_that_processes_cannot_share_is_refused() -> None:
    assert share_of(32, 4) == 8
    with pytest.raises(UsageError, match="batch_size = 32 is not a multiple of the 3 processes"):
        share_of(32, 3)
