"""A linear probe by scikit-learn: how much of the labels a straight line reads out of frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fovcache.errors import UsageError
from fovcache.loaders.feature_set import FeatureSet

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's C that are tried: inverse regularisation strengths."""

_VALIDATION_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a probe reached on one feature."""

    layer: str
    """The feature's layer."""
    num_dims: int
    """Numbers in a row."""
    strength: float
    """The C that did best on the validation part of train; of equals the smallest."""
    validation_accuracy: float
    """With that C, on the validation part of train."""
    test_accuracy: float
    """Fitted again on all of train; test was scored this once."""
    interval: tuple[float, float]
    """95 % Wilson interval of the test accuracy: it knows that test is a sample, not that training is one."""
    chance: float
    """Test accuracy of always answering train's most frequent class."""
    num_train: int
    """Rows that it was fitted on, those for validation included."""
    num_test: int
    """Rows that it was scored on."""


def probe(train: FeatureSet, test: FeatureSet) -> ProbeResult:
    """Standardise, fit a logistic regression on `train`, and score it once on `test`."""
    from scipy.stats import binomtest
    from threadpoolctl import threadpool_limits

    x_train, y_train = _arrays(train)
    x_test, y_test = _arrays(test)
    held_out = is_validation(train.keys)
    with threadpool_limits(1):  # small problems: further threads cost time, and their sums differ from run to run
        scores = [
            _fit(x_train[~held_out], y_train[~held_out], c).score(x_train[held_out], y_train[held_out])
            for c in STRENGTHS
        ]
        best = int(np.argmax(scores))
        num_right = int((_fit(x_train, y_train, STRENGTHS[best]).predict(x_test) == y_test).sum())
    interval = binomtest(num_right, len(y_test)).proportion_ci(0.95, method="wilson")
    return ProbeResult(
        layer=train.feature.layer,
        num_dims=x_train.shape[1],
        strength=STRENGTHS[best],
        validation_accuracy=float(scores[best]),
        test_accuracy=num_right / len(y_test),
        interval=(float(interval.low), float(interval.high)),
        chance=float((y_test == np.bincount(y_train).argmax()).mean()),
        num_train=len(y_train),
        num_test=len(y_test),
    )


def is_validation(keys: list[str]) -> np.ndarray:
    """bool [n]: about a quarter of the samples, by content, so that equal ones are on one side."""
    return np.array([int(key[:8], 16) < _VALIDATION_SHARE * 2**32 for key in keys], bool)


def _arrays(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    x, y = features.tensors()
    if y is None:
        raise UsageError("a probe needs labels, and these samples have none: put them in a folder for each class")
    return x.flatten(1).float().numpy(), y.numpy()


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x, y)
