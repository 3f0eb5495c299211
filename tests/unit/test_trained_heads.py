"""Linear heads and MLPs as an ablation uses them: their settings, what they answer, and what they say of themselves."""

from typing import Any

import numpy as np
import pytest
import torch
from plain_heads import made_problem
from sklearn.datasets import load_digits

from fovcache.errors import UsageError
from fovcache.probes.evaluate import run_trial
from fovcache.probes.heads.head import make_head
from fovcache.probes.splits import Partition


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("linear", {"learning_rates": []}, "learning_rates = [], expected different numbers above 0"),
        ("linear", {"learning_rates": [0]}, "learning_rates = [0], expected different numbers above 0"),
        ("linear", {"learning_rates": 0.1}, "learning_rates = 0.1, expected"),
        ("linear", {"learning_rates": [0.1, "much"]}, "learning_rates = [0.1, 'much'], expected"),
        ("linear", {"weight_decays": [-1.0]}, "weight_decays = [-1.0], expected different numbers from 0 on"),
        ("linear", {"weight_decays": [0.1, 0.1]}, "weight_decays = [0.1, 0.1], expected different"),
        ("linear", {"weight_decays": [float("nan")]}, "weight_decays = [nan], expected"),
        ("linear", {"epochs": 0}, "epochs = 0, expected a whole number, at least 1"),
        ("linear", {"epochs": True}, "epochs = True, expected a whole number"),
        ("linear", {"patience": 1.5}, "patience = 1.5, expected a whole number, at least 1"),
        ("linear", {"batch_size": 0}, "batch_size = 0, expected a whole number, at least 1"),
        ("linear", {"plateau_patience": -1}, "plateau_patience = -1, expected a whole number, at least 0"),
        ("linear", {"plateau_factor": 0}, "plateau_factor = 0, expected a number above 0 and at most 1"),
        ("linear", {"plateau_factor": 2}, "plateau_factor = 2, expected"),
        ("linear", {"optimiser": "adm"}, "optimiser = 'adm'; nearest: adam"),
        ("linear", {"precision": "float8"}, "precision = 'float8'; nearest: float32, float16, bfloat16"),
        ("linear", {"hidden": [8]}, "a linear head has no setting 'hidden'"),
        ("mlp", {"batch_size": 1}, "batch_size = 1, expected a whole number, at least 2"),
        ("mlp", {"hidden": []}, "hidden = [], expected widths such as [512, 512]"),
        ("mlp", {"hidden": 512}, "hidden = 512, expected widths"),
        ("mlp", {"hidden": [512, 0]}, "hidden = 0, expected a whole number, at least 1"),
        ("mlp", {"dropout": 1}, "dropout = 1, expected a number from 0 to below 1"),
        ("mlp", {"dropout": "half"}, "dropout = 'half', expected"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_head(kind, settings)
    assert message in str(caught.value)


def test_the_last_candidate_is_the_simplest() -> None:
    head = make_head("linear", {"learning_rates": [0.001, 0.1], "weight_decays": [1, 0]})
    assert [tuple(each.values()) for each in head.candidates] == [(0.1, 0), (0.1, 1), (0.001, 0), (0.001, 1)]


def test_an_mlp_is_the_reference_experiments() -> None:
    assert make_head("mlp").document() == {
        "name": "mlp",
        "learning_rates": [1e-3],
        "weight_decays": [1e-4],
        "optimiser": "adam",
        "plateau_factor": 0.1,
        "plateau_patience": 10,
        "epochs": 200,
        "patience": 15,
        "batch_size": 256,
        "precision": "float32",
        "hidden": [512, 512, 512],
        "dropout": 0.5,
    }


@pytest.mark.parametrize(("kind", "settings"), [("linear", {"learning_rates": [0.1, 0.01]}), ("mlp", {"hidden": [16]})])
def test_answers_have_their_shapes_and_one_candidate_is_the_same_alone(kind: str, settings: dict[str, Any]) -> None:
    problem, head = made_problem(classes=4), make_head(kind, {**settings, "weight_decays": [0.0, 0.1], "epochs": 3})
    (fitted,) = head.fit([problem])
    x, num = problem.x_validation_MD, len(head.candidates)
    predictions, probabilities = fitted.predict(x), fitted.probabilities(x)
    assert predictions.shape == (num, 60)
    assert predictions.dtype == np.int64
    assert probabilities.shape == (num, 60, 4)
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities.sum(2) - 1).max() < 1e-5
    assert (probabilities.argmax(2) == predictions).all()
    assert fitted.chosen is None
    for number in range(num):
        assert (fitted.at(number).predict(x)[0] == predictions[number]).all()
        assert np.abs(fitted.at(number).probabilities(x)[0] - probabilities[number]).max() < 1e-6


def test_samples_are_counted_over_candidates_and_epochs_and_a_cut_is_noted() -> None:
    head = make_head("linear", {"learning_rates": [1e-3], "weight_decays": [0.0, 1.0], "epochs": 3})
    (fitted,) = head.fit([made_problem(300)])
    assert fitted.samples_seen == 2 * 3 * 300
    assert fitted.notes == (
        "stopped at its last epoch, 3, at learning rate 0.001 and weight decay 0: not converged",
        "stopped at its last epoch, 3, at learning rate 0.001 and weight decay 1: not converged",
    )
    assert fitted.at(1).notes == fitted.notes[1:]


def test_a_head_that_has_stopped_has_nothing_to_say() -> None:
    (fitted,) = make_head("linear", {"patience": 3}).fit([made_problem(apart=3.0)])
    assert fitted.notes == ()


def test_a_class_that_train_lacks_is_known_and_not_answered() -> None:
    problem = made_problem(classes=3, apart=2.0)
    for y in (problem.y_train_N, problem.y_validation_M):
        y[y == 2] = 0
    for kind in ("linear", "mlp"):
        (fitted,) = make_head(kind, {"epochs": 20}).fit([problem])
        assert fitted.probabilities(problem.x_validation_MD).shape[2] == 3
        assert (fitted.at(0).predict(problem.x_validation_MD) < 2).all()


@pytest.mark.parametrize(
    ("kind", "settings"), [("linear", {}), ("linear", {"precision": "bfloat16"}), ("mlp", {"hidden": [128]})]
)
def test_digits_are_read(kind: str, settings: dict[str, Any]) -> None:
    """Half and half; scikit-learn's logistic regression has .92 to .94."""
    x, y = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(x))
    parts = Partition(train=places[:700], validation=places[700:900], test=places[900:])
    outcome = run_trial(x, y, parts, make_head(kind, settings), 10, initialisation_seed=1, order_seed=2)
    assert outcome.test_accuracy > 0.93
    assert outcome.setting in make_head(kind, settings).candidates
    again = run_trial(x, y, parts, make_head(kind, settings), 10, initialisation_seed=1, order_seed=2)
    assert outcome.probabilities.tobytes() == again.probabilities.tobytes()
    assert outcome.samples_seen % 700 == 0


def test_seeds_decide_weights_and_order() -> None:
    x = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long().numpy()
    parts = Partition(train=np.arange(100), validation=np.arange(100, 150), test=np.arange(150, 200))
    seeds = [(0, 0), (1, 0), (0, 1)]
    head = make_head("linear", {"epochs": 2, "batch_size": 16})
    found = [run_trial(x, y, parts, head, 2, initialisation_seed=a, order_seed=b) for a, b in seeds]
    assert len({outcome.probabilities.tobytes() for outcome in found}) == 3
