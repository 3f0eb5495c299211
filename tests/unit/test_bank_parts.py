"""What training side by side is made of, each beside torch's own: optimiser, schedule, loss scale, masks, products."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fovcache.probes.heads import loss_scale, products
from fovcache.probes.heads.adam import Adam
from fovcache.probes.heads.dropout import Dropout
from fovcache.probes.heads.early_stopping import EarlyStopping, Plateau
from fovcache.probes.heads.initial_network import initial_network
from fovcache.probes.heads.loss_scale import LossScale
from fovcache.probes.heads.network import Network
from fovcache.probes.one_thread import one_thread

CPU = torch.device("cpu")
ACCURACIES = st.lists(st.integers(0, 12).map(lambda num: num / 12), min_size=1, max_size=60)


def network() -> Network:
    """Two heads of one problem and one of another, with a hidden layer."""
    return initial_network([5, 7], [6], 3, [1, 2], [2, 1], [[0], [1]])


def like(net: Network, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(values.shape, generator=generator) for values in net.parameters]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_each_head_is_stepped_as_torchs_optimiser_steps_it(name: str) -> None:
    net, decays = network(), [0.0, 0.3, 0.3]
    optimiser = Adam(net, decays, name)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    heads = [[torch.nn.Parameter(values.clone()) for values in net.kept([[head]]).parameters] for head in range(3)]
    theirs = [kind(own, lr=1.0, weight_decay=decay) for own, decay in zip(heads, decays, strict=True)]
    for number, rates in enumerate([(1e-2, 1e-2, 1e-3)] * 2 + [(1e-3, 1e-2, 1e-2)] * 2):
        gradients = like(net, number)
        split = [values.parameters for values in _by_head(net, gradients)]
        optimiser.step(gradients, rates)
        for own, rate, other, values in zip(heads, rates, theirs, split, strict=True):
            other.param_groups[0]["lr"] = rate
            for parameter, gradient in zip(own, values, strict=True):
                parameter.grad = gradient
            other.step()
    for head, own in enumerate(heads):
        for found, wanted in zip(net.kept([[head]]).parameters, own, strict=True):
            torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-6)


def _by_head(net: Network, values: list[torch.Tensor]) -> list[Network]:
    """Gradients as a network, each head's alone."""
    carrier = net.zeros()
    for place, each in zip(carrier.parameters, values, strict=True):
        place.copy_(each)
    return [carrier.kept([[head]]) for head in range(3)]


def test_a_head_that_overflows_is_not_stepped_and_its_steps_are_not_counted() -> None:
    still, moved = network(), network()
    ours, other = Adam(still, [0.0] * 3, "adam"), Adam(moved, [0.0] * 3, "adam")
    scale_H, none, first = torch.full((3,), 4.0), torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])
    before = [values.clone() for values in still.kept([[0]]).parameters]
    ours.step([4 * values for values in like(still, 0)], [1e-2] * 3, scale_H, first)
    assert all(torch.equal(a, b) for a, b in zip(still.kept([[0]]).parameters, before, strict=True))
    ours.step([4 * values for values in like(still, 1)], [1e-2] * 3, scale_H, none)
    other.step(like(moved, 1), [1e-2] * 3)
    for found, wanted in zip(still.kept([[0]]).parameters, moved.kept([[0]]).parameters, strict=True):
        torch.testing.assert_close(found, wanted)


def test_heads_that_go_on_keep_their_moments() -> None:
    net, fewer = network(), network()
    optimiser, other = Adam(net, [0.0] * 3, "adam"), Adam(fewer, [0.0] * 3, "adam")
    for step in (optimiser, other):
        step.step(like(network(), 0), [1e-2] * 3)
    fewer = fewer.kept([[0], [2]])
    other.keep(fewer, [[0], [2]])
    gradients = like(network(), 1)
    optimiser.step(gradients, [1e-2] * 3)
    carrier = network().zeros()
    for place, each in zip(carrier.parameters, gradients, strict=True):
        place.copy_(each)
    other.step(carrier.kept([[0], [2]]).parameters, [1e-2] * 2)
    for found, wanted in zip(fewer.parameters, net.kept([[0], [2]]).parameters, strict=True):
        assert torch.equal(found, wanted)


@given(ACCURACIES, st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 4), st.sampled_from([1e-3, 1e-7]))
def test_plateau_is_torchs(accuracies: list[float], factor: float, patience: int, rate: float) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=min(factor, 1 - 1e-15), patience=patience
    )
    ours = Plateau(rate=rate, factor=factor, patience=patience)
    for accuracy in accuracies:
        theirs.step(accuracy)
        ours.step(accuracy)
        assert ours.rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)


@given(ACCURACIES, st.integers(1, 6))
def test_early_stopping_keeps_the_first_best_epoch(accuracies: list[float], patience: int) -> None:
    stopping = EarlyStopping(patience=patience)
    seen: list[float] = []
    for accuracy in accuracies:
        seen.append(accuracy)
        assert stopping.improves(accuracy) == (accuracy > max(seen[:-1], default=-math.inf))
        assert stopping.best_epoch == 1 + seen.index(max(seen))
        assert stopping.is_over == (len(seen) - stopping.best_epoch >= patience)
        if stopping.is_over:
            break


def test_an_accuracy_that_is_no_number_improves_nothing() -> None:
    stopping = EarlyStopping(patience=2)
    assert not stopping.improves(math.nan)
    assert stopping.improves(0.0)


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_loss_scale_is_torchs(overflows: list[bool]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scale, "_INTERVAL", 3)
        ours = LossScale(2, CPU)
        theirs = torch.amp.GradScaler("cpu", growth_interval=3)
        weight = torch.nn.Parameter(torch.ones(1))
        optimiser = torch.optim.SGD([weight], lr=0.1)
        for overflow in overflows:
            theirs.scale(weight.sum() * (math.inf if overflow else 1)).backward()
            theirs.step(optimiser)
            theirs.update()
            optimiser.zero_grad()
            gradients = [torch.ones(1, 4), torch.ones(1, 2), torch.ones(2, 3)]
            gradients[2][1, 1] = math.inf if overflow else 1
            found = ours.overflows(gradients, [0, 1, 0])
            assert found.tolist() == [0.0, float(overflow)]
            ours.update(found)
            assert ours.scale_H[1] == theirs.get_scale()
        assert ours.scale_H[0] == 2.0 ** (16 + len(overflows) // 3)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.9])
def test_masks_drop_the_share_and_enlarge_the_rest(share: float) -> None:
    first, second = Dropout(share, [64, 32], [0, 1], CPU).masks(500)
    assert first.shape == (2, 64, 500)
    assert second.shape == (2, 32, 500)
    kept = first > 0
    assert first[kept].unique().tolist() == pytest.approx([1 / (1 - share)])
    assert kept.float().mean((1, 2)).tolist() == pytest.approx([1 - share] * 2, abs=0.01)
    assert kept.float().mean(2).std() < 2 * math.sqrt(share * (1 - share) / 500)
    assert (kept[0] == kept[1]).float().mean() == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_a_problems_masks_are_the_same_in_any_company(share: float) -> None:
    both, alone = Dropout(share, [9, 5], [3, 4], CPU), Dropout(share, [9, 5], [4], CPU)
    for num in (7, 5, 1):
        for found, wanted in zip(both.masks(num), alone.masks(num), strict=True):
            assert torch.equal(found[1:], wanted)
    both.keep([1])
    for found, wanted in zip(both.masks(8), alone.masks(8), strict=True):
        assert torch.equal(found, wanted)
    assert not torch.equal(both.masks(8)[0], both.masks(8)[0])


def test_no_masks_are_made_where_nothing_is_dropped() -> None:
    assert Dropout(0.0, [8], [0], CPU).masks(4) == []


@pytest.mark.parametrize("shape", [(3, 5, 7), (512, 640, 99), (10, 384, 256), (200, 300, 257)])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_float32s_whoever_computes_them(shape: tuple[int, int, int], transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, shape[0], shape[1], generator=generator)
    b = torch.randn(2, shape[1], shape[2], generator=generator)
    if transposed:
        a, b = (each.transpose(1, 2).contiguous().transpose(1, 2) for each in (a, b))
    wanted = a.double() @ b.double()
    with one_thread():
        found = products.products(a, b, torch.float32)
        assert torch.equal(products.product(a[1], b[1], torch.float32), found[1])
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < 1e-6 * shape[1] ** 0.5 * 10
    rounded = products.products(a, b, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - wanted).abs().max() < 0.02 * shape[1] ** 0.5 * 5


def test_products_without_onednn_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_onednn", lambda: None)
    a, b = torch.randn(2, 100, 200), torch.randn(2, 200, 300)
    assert torch.equal(products.products(a, b, torch.float32), a @ b)


def test_first_weights_are_those_of_torchs_layers() -> None:
    net = initial_network([5, 7], [6], 3, [1, 2], [2, 1], [[0], [1]])
    for seed, dims, heads in ((1, 5, [0, 1]), (2, 7, [2])):
        torch.manual_seed(seed)
        first, second = torch.nn.Linear(dims, 6), torch.nn.Linear(6, 3)
        for head in heads:
            own = net.kept([[head]])
            assert torch.equal(own.layers[0].weights[0][0], first.weight)
            assert torch.equal(own.layers[0].bias_HO[0], first.bias)
            assert torch.equal(own.layers[1].weights[0][0], second.weight)
            assert torch.equal(own.layers[1].bias_HO[0], second.bias)


def test_heads_that_are_kept_are_copies() -> None:
    net = network()
    copies = [net.kept([[1]]), net.kept([[0, 1], [2]])]
    before = [[values.clone() for values in each.parameters] for each in copies]
    for layer in net.layers:
        for values in (*layer.weights, layer.bias_HO):
            values.add_(1)
        if layer.norm is not None:
            layer.norm.mean_HO.add_(1)
            layer.norm.variance_HO.add_(1)
    for each, wanted in zip(copies, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(each.parameters, wanted, strict=True))
        norm = each.layers[0].norm
        assert norm is not None
        assert not norm.mean_HO.any()
        assert (norm.variance_HO == 1).all()


def test_scores_of_many_rows_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows = network(), [torch.randn(1, 30, 5), torch.randn(1, 30, 7)]
    whole = net.scores(rows)
    monkeypatch.setattr("fovcache.probes.heads.network.BLOCK", 8)
    assert np.allclose(whole, net.scores(rows), atol=1e-6)
    assert whole.shape == (3, 3, 30)
