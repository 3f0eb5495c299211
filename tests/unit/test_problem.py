"""What no head can be fitted on is refused before any is."""

import numpy as np
import pytest
import torch

from fovcache.errors import UsageError
from fovcache.probes.heads.problem import Problem


def problem(labels: list[int], num_classes: int) -> Problem:
    """Its rows do not matter."""
    return Problem(
        x_train_ND=torch.zeros((len(labels), 2), dtype=torch.float64),
        y_train_N=np.array(labels),
        x_validation_MD=torch.zeros((1, 2), dtype=torch.float64),
        y_validation_M=np.array([0]),
        num_classes=num_classes,
    )


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 1, 2], 4, "train has 3 samples, and there are 4 classes: a head needs one of each .* larger share"),
        ([1, 1, 1, 1], 3, "all 4 samples of train are of one class: .* add samples of other classes"),
    ],
)
def test_too_few_classes_or_samples_are_refused(labels: list[int], num_classes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        problem(labels, num_classes)


def test_train_may_lack_a_class() -> None:
    assert problem([0, 2, 2], 3).num_classes == 3
