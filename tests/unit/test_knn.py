"""The kNN head answers as scikit-learn's KNeighborsClassifier, for every k of one search."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from fovcache.errors import UsageError
from fovcache.probes.heads import knn
from fovcache.probes.heads.head import make_head
from fovcache.probes.heads.knn import KnnHead

NEIGHBOURS = (1, 2, 5, 20)


def made(num: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Rows, labels and new rows, none of which are equally far."""
    chance = np.random.default_rng(0)
    y = chance.integers(0, 4, num)
    x = chance.standard_normal((num, 6)) + 2 * chance.standard_normal((4, 6))[y]
    return x, y, torch.from_numpy(chance.standard_normal((90, 6)) * 3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_votes_are_scikit_learns(metric: str) -> None:
    x, y, new = made(300)
    fitted = KnnHead(neighbours=NEIGHBOURS, metric=metric).fit_rows(torch.from_numpy(x), y, 4)
    predictions, probabilities = fitted.predict(new), fitted.probabilities(new)
    assert (predictions.dtype, probabilities.dtype) == (np.int64, np.float32)
    assert (fitted.chosen, fitted.notes, fitted.samples_seen) == (None, (), 0)
    for number, num in enumerate(NEIGHBOURS):
        theirs = KNeighborsClassifier(num, metric=metric, algorithm="brute").fit(x, y)
        assert predictions[number].tolist() == theirs.predict(new).tolist()
        assert probabilities[number] == pytest.approx(theirs.predict_proba(new), abs=1e-6)
        assert (fitted.at(number).predict(new)[0] == predictions[number]).all()


def test_blocks_of_any_size_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, new = made(300)
    fitted = KnnHead(neighbours=NEIGHBOURS).fit_rows(torch.from_numpy(x), y, 4)
    whole = fitted.predict(new)
    for size in (1, 300 * 8 * 7):
        monkeypatch.setitem(knn._BLOCK_BYTES, "cpu", size)
        assert (fitted.predict(new) == whole).all()


def test_of_equally_near_rows_the_first_of_train_count() -> None:
    """Whole numbers, whose distances are exact: many rows of train are at the same place."""
    chance = np.random.default_rng(0)
    x, new = (chance.integers(0, 3, (num, 3)).astype(np.float64) for num in (200, 40))
    y = chance.integers(0, 4, 200)
    fitted = KnnHead(neighbours=NEIGHBOURS).fit_rows(torch.from_numpy(x), y, 4)
    order = ((new[:, None] - x) ** 2).sum(2).argsort(axis=1, kind="stable")
    for number, num in enumerate(NEIGHBOURS):
        votes = np.stack([np.bincount(y[row[:num]], minlength=4) for row in order])
        assert fitted.probabilities(torch.from_numpy(new))[number] == pytest.approx(votes / num)
        assert (fitted.predict(torch.from_numpy(new))[number] == votes.argmax(1)).all()


def test_all_of_train_may_be_neighbours_and_a_row_of_zeros_has_no_angle() -> None:
    x, y, new = made(20)
    x[3] = 0
    fitted = KnnHead(neighbours=(20,), metric="cosine").fit_rows(torch.from_numpy(x), y, 4)
    assert fitted.probabilities(new * 0) == pytest.approx(np.tile(np.bincount(y, minlength=4) / 20, (1, 90, 1)))


def test_settings_are_sorted_or_refused() -> None:
    assert make_head("knn", {"neighbours": [5, 1]}).candidates == ({"neighbours": 1}, {"neighbours": 5})
    assert make_head("knn").document() != make_head("knn", {"metric": "cosine"}).document()
    for neighbours in ([], [0], [1, 1], [1.5], 5):
        with pytest.raises(UsageError, match="expected different whole numbers above 0"):
            make_head("knn", {"neighbours": neighbours})
    with pytest.raises(UsageError, match="metric = 'cos'; nearest: cosine"):
        make_head("knn", {"metric": "cos"})
    x, y, _ = made(12)
    with pytest.raises(UsageError, match=r"train has 12 samples: ask for fewer, such as neighbours = \[1, 5\]"):
        KnnHead(neighbours=(1, 5, 20)).fit_rows(torch.from_numpy(x), y, 4)
