"""A trial looks at test once, after everything is chosen, and is the same whenever it is run."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fovcache.errors import UsageError
from fovcache.probes.evaluate import SealedLabels, run_trial, shuffled_labels
from fovcache.probes.heads.head import Head, make_head
from fovcache.probes.splits import Partition, SplitRule, partition

RIDGE = make_head("ridge")
STRENGTHS = [each["strength"] for each in RIDGE.candidates]


def ridge(*strengths: float) -> Head:
    return make_head("ridge", {"strengths": list(strengths)})


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, Partition]:
    x, y = load_digits(return_X_y=True)
    keys = np.random.default_rng(0).integers(0, 256, (len(x), 32), dtype=np.uint8)
    return x.astype(np.float32), y, partition(keys, y, None, None, SplitRule(kind="resplit"), 0)


def test_digits_are_decodable_and_chance_is_chance(digits) -> None:
    x, y, parts = digits
    outcome = run_trial(x, y, parts, RIDGE, 10)
    assert 0.9 < outcome.test_accuracy < 0.97
    assert 0.08 < outcome.chance < 0.13
    assert outcome.num_features == 64
    varying = x[parts.train][:, np.ptp(x[parts.train], 0) > 0]  # some pixels are always black
    standardised = (varying - varying.mean(0)) / varying.std(0)
    assert outcome.num_effective == len(np.unique(standardised.round(3), axis=1).T) < 64
    assert outcome.test_accuracy == outcome.correct.mean() == (outcome.predictions == y[parts.test]).mean()
    assert outcome.setting in RIDGE.candidates


@pytest.mark.parametrize("head", [RIDGE, make_head("logistic", {"strengths": [10, 100]})], ids=["ridge", "logistic"])
def test_labels_shuffled_give_chance(digits, head) -> None:
    x, y, parts = digits
    shuffled = shuffled_labels(y, parts, 0)
    assert (shuffled[parts.test] == y[parts.test]).all()
    for side in (parts.train, parts.validation):
        assert (shuffled[side] != y[side]).mean() > 0.8
        assert np.bincount(shuffled[side]).tolist() == np.bincount(y[side]).tolist()
    assert 0.03 < run_trial(x, shuffled, parts, head, 10).test_accuracy < 0.2
    assert (shuffled == shuffled_labels(y, parts, 0)).all()
    assert (shuffled != shuffled_labels(y, parts, 1)).any()


def test_test_labels_and_test_rows_decide_nothing_else(digits) -> None:
    """With other test samples, everything about the head stays as it was."""
    x, y, parts = digits
    other_x, other_y = x.copy(), y.copy()
    other_x[parts.test] *= 100
    other_y[parts.test] = 0
    one, two = run_trial(x, y, parts, RIDGE, 10), run_trial(other_x, other_y, parts, RIDGE, 10)
    for name in ("setting", "train_accuracy", "validation_accuracy", "num_effective"):
        assert getattr(one, name) == getattr(two, name)


def test_validation_does_not_scale_what_train_is_fitted_on(digits) -> None:
    x, y, parts = digits
    other = x.copy()
    other[parts.validation] += 1000
    head = ridge(10)
    assert (run_trial(x, y, parts, head, 10).predictions == run_trial(other, y, parts, head, 10).predictions).all()


def test_of_equal_strengths_the_strongest_is_chosen() -> None:
    x = np.array([[-1.0], [1.0]] * 30) + np.linspace(0, 0.1, 60)[:, None]
    y = np.array([0, 1] * 30)
    parts = Partition(train=np.arange(40), validation=np.arange(40, 50), test=np.arange(50, 60))
    outcome = run_trial(x, y, parts, ridge(0.1, 1, 10), 2)
    assert (outcome.validation_accuracy, outcome.setting) == (1.0, {"strength": 10})


def test_the_strength_that_validation_likes_is_the_one() -> None:
    """Train's one good column is tiny beside noise: what regularises hard cannot use it."""
    chance = np.random.default_rng(0)
    y = chance.integers(0, 2, 300)
    x = np.column_stack([y + 0.3 * chance.standard_normal(300), chance.standard_normal((300, 150))])
    parts = Partition(train=np.arange(160), validation=np.arange(160, 220), test=np.arange(220, 300))
    found = {strength: run_trial(x, y, parts, ridge(strength), 2).validation_accuracy for strength in STRENGTHS}
    outcome = run_trial(x, y, parts, RIDGE, 2)
    assert outcome.validation_accuracy == max(found.values()) > min(found.values())
    assert outcome.setting["strength"] == max(each for each in found if found[each] == max(found.values()))


def test_the_same_trial_gives_the_same_bits_on_any_number_of_threads(digits) -> None:
    x, y, parts = digits
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 4):
            torch.set_num_threads(num_threads)
            found.append(dataclasses.asdict(run_trial(x, y, parts, RIDGE, 10)))
    finally:
        torch.set_num_threads(before)
    for outcome in found:
        outcome.pop("seconds")
        outcome["predictions"], outcome["correct"] = outcome["predictions"].tobytes(), outcome["correct"].tobytes()
    assert found[0] == found[1] == found[2]


def test_tensors_and_half_precision_are_welcome(digits) -> None:
    x, y, parts = digits
    exact = run_trial(x, y, parts, RIDGE, 10)
    assert run_trial(torch.from_numpy(x).bfloat16(), y, parts, RIDGE, 10).test_accuracy == exact.test_accuracy


def test_features_that_are_not_finite_are_refused(digits) -> None:
    x, y, parts = digits
    broken = x.copy()
    broken[parts.train[0], 3] = np.inf
    with pytest.raises(UsageError, match="not finite"):
        run_trial(broken, y, parts, RIDGE, 10)


def test_sealed_labels_open_once_and_only_after_the_choice() -> None:
    sealed = SealedLabels(np.array([1, 2]))
    with pytest.raises(AssertionError, match="before the choice"):
        sealed.read()
    sealed.choose()
    assert sealed.read().tolist() == [1, 2]
    with pytest.raises(AssertionError, match="read twice"):
        sealed.read()
