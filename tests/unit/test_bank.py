"""Heads trained side by side: each is the head that torch's own modules train, whatever stands beside it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_heads import Plain, made_problem, train_plainly

from fovcache.errors import UsageError
from fovcache.probes.heads import bank
from fovcache.probes.heads.fitted_networks import FittedNetworks
from fovcache.probes.heads.problem import Problem
from fovcache.probes.heads.row_batches import bounds
from fovcache.probes.heads.trained import LinearHead, MlpHead
from fovcache.probes.heads.training import Setting, Trained, Training
from fovcache.probes.one_thread import one_thread

LINEAR = LinearHead(learning_rates=(3e-2, 1e-2, 1e-3), weight_decays=(0.0, 1.0), patience=3, epochs=25, batch_size=64)
MLP = MlpHead(hidden=(24, 16), patience=4, plateau_patience=1, epochs=25, batch_size=64)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For torch's own loops: several would wait for each other longer than they work."""
    with one_thread():
        yield


def unlike_problems() -> list[Problem]:
    """Of several sizes; two have the same rows and other seeds."""
    problems = [
        made_problem(300, 20, seed=0),
        made_problem(300, 33, seed=1),
        made_problem(301, 20, seed=2, apart=0.2),
        made_problem(300, 20, 3, seed=3, validation=41),
    ]
    return [*problems, replace(problems[0], initialisation_seed=7, order_seed=8)]


def plain(problem: Problem, head: LinearHead) -> list[Plain]:
    pairs = [(each["learning_rate"], each["weight_decay"]) for each in head.candidates]
    return [train_plainly(problem, head, rate, decay) for rate, decay in pairs]


def bits(fitted: FittedNetworks) -> list[bytes]:
    return [values.numpy().tobytes() for network in fitted.networks for values in network.parameters]


@pytest.mark.parametrize("head", [LINEAR, replace(LINEAR, optimiser="adam", plateau_factor=0.5, plateau_patience=1)])
def test_linear_heads_are_those_of_torch(head: LinearHead) -> None:
    problems = unlike_problems()
    for problem, fitted in zip(problems, head.fit(problems), strict=True):
        wanted = plain(problem, head)
        assert fitted.best_epochs == tuple(each.best_epoch for each in wanted)
        probabilities = fitted.probabilities(problem.x_validation_MD)
        for number, each in enumerate(wanted):
            (weight_OI,) = fitted.networks[number].layers[0].weights[0]
            assert (weight_OI - each.network[0].weight).abs().max() < 1e-5
            assert np.abs(probabilities[number] - each.probabilities(problem.x_validation_MD).numpy()).max() < 1e-5


@pytest.mark.parametrize("dropout", [0.5, 0.2, 0.0])
def test_mlps_are_those_of_torch(dropout: float) -> None:
    problems, head = unlike_problems(), replace(MLP, dropout=dropout, epochs=6)
    for problem, fitted in zip(problems, head.fit(problems), strict=True):
        (wanted,) = plain(problem, head)
        assert fitted.best_epochs == (wanted.best_epoch,)
        off = fitted.probabilities(problem.x_validation_MD)[0] - wanted.probabilities(problem.x_validation_MD).numpy()
        assert np.abs(off).max() < 1e-4


def test_an_mlp_that_is_trained_to_its_end_stops_where_torchs_does() -> None:
    problem, head = made_problem(apart=2.0), replace(MLP, epochs=100)
    (wanted,) = plain(problem, head)
    (fitted,) = head.fit([problem])
    assert 1 < wanted.num_epochs < 100
    assert fitted.best_epochs == (wanted.best_epoch,)
    assert fitted.samples_seen == wanted.num_epochs * 300
    assert fitted.notes == ()


@pytest.mark.parametrize(("precision", "within"), [("bfloat16", 5e-2), ("float16", 1e-2)])
def test_autocast_is_torchs_within_its_precision(precision: str, within: float) -> None:
    problem = made_problem(apart=2.0)
    for head in (replace(LINEAR, epochs=3), replace(MLP, epochs=3)):
        head = replace(head, precision=precision)
        (fitted,) = head.fit([problem])
        exact = replace(head, precision="float32").fit([problem])[0].probabilities(problem.x_validation_MD)
        found = fitted.probabilities(problem.x_validation_MD)
        for number, each in enumerate(plain(problem, head)):
            assert np.abs(found[number] - each.probabilities(problem.x_validation_MD).numpy()).max() < within
        assert np.abs(found - exact).max() > 0


@pytest.mark.parametrize("head", [LINEAR, replace(LINEAR, learning_rates=(1e-2,), weight_decays=(0.1,)), MLP])
def test_a_head_is_the_same_alone_and_in_company(head: LinearHead) -> None:
    problems = unlike_problems()
    together = head.fit(problems)
    for problem, fitted in zip(problems, together, strict=True):
        (alone,) = head.fit([problem])
        assert alone.samples_seen == fitted.samples_seen
        assert alone.best_epochs == fitted.best_epochs
        for found, wanted in zip(fitted.networks, alone.networks, strict=True):
            for one, other in zip(found.parameters, wanted.parameters, strict=True):
                assert (one - other).abs().max() < 1e-6
    assert bits(together[0]) != bits(together[4])


def test_an_mlp_on_the_cpu_is_bit_for_bit_the_same_in_company() -> None:
    problems = unlike_problems()
    assert [bits(MLP.fit([each])[0]) for each in problems] == [bits(each) for each in MLP.fit(problems)]


@pytest.mark.parametrize("head", [LINEAR, MLP])
def test_bits_do_not_depend_on_the_number_of_threads(head: LinearHead, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [made_problem(seed=seed) for seed in range(5)]
    before = torch.get_num_threads()
    found = []
    for num in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", num)
        found.append([bits(fitted) for fitted in head.fit(problems)])
        assert torch.get_num_threads() == before
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_mlps_stepped_at_once_are_those_stepped_alone(precision: str) -> None:
    """As on a GPU: several problems, and several candidates of each, which stop at different epochs."""
    head = replace(MLP, precision=precision, epochs=30)
    problems = [made_problem(dims=dims, seed=seed, apart=1.0) for seed, dims in enumerate((20, 33, 20))]
    pairs = [(0, 1e-2, 1e-4), (0, 1e-3, 1e-4), (1, 1e-3, 1e-4), (2, 1e-2, 1e-3), (2, 1e-3, 0.0), (2, 1e-4, 0.0)]
    settings = [Setting(problem=problem, rate=rate, decay=decay) for problem, rate, decay in pairs]
    together = Training(problems, settings, head._plan()).run()
    assert len({each.num_epochs for each in together}) > 2
    for setting, found in zip(settings, together, strict=True):
        problem = problems[setting.problem]
        (alone,) = Training([problem], [replace(setting, problem=0)], head._plan()).run()
        assert (found.num_epochs, found.best_epoch) == (alone.num_epochs, alone.best_epoch)
        rows = [problem.x_validation_MD.float()[None]]
        assert (found.network.scores(rows) - alone.network.scores(rows)).abs().max() < 1e-3


@pytest.mark.parametrize("head", [replace(LINEAR, learning_rates=(3.0,)), replace(MLP, learning_rates=(0.3,))])
def test_the_best_epochs_weights_come_back_and_stay(head: LinearHead) -> None:
    """Steps far too large: later epochs are worse, and would show in weights that were not copied."""
    problem = made_problem(apart=0.3)
    (fitted,) = replace(head, weight_decays=(0.0,), patience=20).fit([problem])
    (last,) = replace(head, weight_decays=(0.0,), epochs=fitted.best_epochs[0]).fit([problem])
    assert bits(fitted) == bits(last)
    (trained,) = _trained(replace(head, weight_decays=(0.0,), patience=20), problem)
    assert trained.num_epochs > trained.best_epoch


def _trained(head: LinearHead, problem: Problem) -> list[Trained]:
    settings = [Setting(problem=0, rate=head.learning_rates[0], decay=head.weight_decays[0])]
    return Training([problem], settings, head._plan()).run()


def test_candidates_begin_at_the_same_weights_and_see_the_same_masks() -> None:
    """Rates that hardly differ come to weights that hardly differ."""
    head = replace(MLP, learning_rates=(1e-3, 1.000001e-3), weight_decays=(0.0,), epochs=3)
    (fitted,) = head.fit([made_problem()])
    pairs = zip(*(network.parameters for network in fitted.networks), strict=True)
    assert 0 < max((one - other).abs().max() for one, other in pairs) < 1e-5


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.integers(12, 40), st.integers(1, 9), st.integers(2, 4), st.integers(5, 9)), min_size=1, max_size=5
    ),
    st.sampled_from([2, 5, 11, 64]),
    st.sampled_from([(), (3,), (8, 4)]),
)
def test_whatever_problems_stand_together_each_is_as_alone(
    shapes: list[tuple[int, int, int, int]], batch_size: int, hidden: tuple[int, ...]
) -> None:
    shared = {"batch_size": batch_size, "epochs": 3, "patience": 2, "weight_decays": (0.1,)}
    head = MlpHead(hidden=hidden, **shared) if hidden else LinearHead(learning_rates=(0.1, 0.01), **shared)
    problems = [
        made_problem(rows, dims, classes, seed=seed, validation=validation)
        for seed, (rows, dims, classes, validation) in enumerate(shapes)
    ]
    for problem, fitted in zip(problems, head.fit(problems), strict=True):
        (alone,) = head.fit([problem])
        assert alone.best_epochs == fitted.best_epochs
        off = alone.probabilities(problem.x_validation_MD) - fitted.probabilities(problem.x_validation_MD)
        assert np.abs(off).max() < 1e-5
        if not hidden:
            assert fitted.best_epochs == tuple(each.best_epoch for each in plain(problem, head))


def test_one_heads_overflow_leaves_the_others_alone() -> None:
    """In float16 rows of 1e4 overflow a product: that head's steps are skipped until its scale is small enough."""
    calm, wild = made_problem(seed=0), made_problem(seed=1)
    wild = replace(wild, x_train_ND=wild.x_train_ND * 1e4)
    head = LinearHead(learning_rates=(1e-3,), weight_decays=(0.0,), precision="float16", epochs=3, batch_size=64)
    settings = [Setting(problem=number, rate=1e-3, decay=0.0) for number in range(2)]
    (beside, _) = Training([calm, wild], settings, head._plan()).run()
    (alone,) = Training([calm], settings[:1], head._plan()).run()
    assert [a.tolist() for a in beside.network.parameters] == [a.tolist() for a in alone.network.parameters]


def test_a_head_that_diverges_keeps_what_it_had_and_says_so() -> None:
    """Rows whose scores overflow: no epoch of it is any good, and the other problem's is as ever."""
    good, bad = made_problem(seed=0), made_problem(seed=1)
    bad = replace(bad, x_train_ND=bad.x_train_ND * 1e38)
    head = replace(LINEAR, learning_rates=(1e6,), weight_decays=(0.0,), epochs=5)
    found = head.fit([bad, good])
    assert found[0].best_epochs == (0,)
    assert found[0].notes == (
        "diverged in epoch 1 at learning rate 1e+06 and weight decay 0: its weights are those of the beginning",
    )
    assert np.isfinite(found[0].probabilities(good.x_validation_MD)).all()
    assert bits(found[1]) == bits(head.fit([good])[0])


def test_a_last_batch_of_one_sample_is_left_out_of_an_mlps_epoch_alone() -> None:
    assert bounds(129, 64, whole=True) == [(0, 64), (64, 128)]
    assert bounds(129, 64, whole=False) == [(0, 64), (64, 128), (128, 129)]
    assert bounds(130, 64, whole=True) == bounds(130, 64, whole=False) == [(0, 64), (64, 128), (128, 130)]
    problem = made_problem(129)
    for head, seen in ((replace(MLP, epochs=2), 2 * 128), (replace(LINEAR, epochs=2), 6 * 2 * 129)):
        (fitted,) = head.fit([problem])
        assert fitted.samples_seen == seen


def test_an_error_in_one_job_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    failed = threading.Event()
    train = Training.run

    def run(training: Training, check: object) -> list[Trained]:
        if training._batches._num_rows == 50:
            failed.set()
            raise MemoryError("no room")
        assert failed.wait(60)
        return train(training, check)

    monkeypatch.setattr(Training, "run", run)
    head = replace(MLP, epochs=10**6, patience=10**6)
    with pytest.raises(MemoryError, match="no room"):
        head.fit([made_problem(300), made_problem(50)])
    assert not [thread.name for thread in threading.enumerate() if "bank" in thread.name]


def test_jobs_are_of_few_heads_and_each_candidate_is_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [made_problem(40, seed=seed) for seed in range(10)] + [made_problem(41)]

    def jobs(head: LinearHead, num_candidates: int) -> list[bank._Job]:
        pairs = [(1e-3, float(number)) for number in range(num_candidates)]
        found = list(bank._jobs_of_cores(problems, range(11), pairs, head._plan()))
        places = [place for job in found for place in job.places]
        assert sorted(places) == [(number, candidate) for number in range(11) for candidate in range(num_candidates)]
        return found

    assert [len(job.problems) for job in jobs(LINEAR, 2)] == [4, 4, 2, 1]
    assert [len(job.problems) for job in jobs(LINEAR, 9)] == [1] * 11
    assert [len(job.places) for job in jobs(MLP, 2)] == [1] * 22
    monkeypatch.setattr(bank, "_TOGETHER_BYTES", jobs(LINEAR, 4)[0].size_bytes - 1)
    assert [len(job.problems) for job in jobs(LINEAR, 4)] == [1] * 11


def test_a_head_that_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=200_000)
    monkeypatch.setattr(bank.psutil, "virtual_memory", lambda: free)
    replace(LINEAR, epochs=1).fit([made_problem()])
    with pytest.raises(UsageError, match=r"training a head on 20 numbers of each .*, and 97.7 KiB can be taken"):
        MLP.fit([made_problem()])
