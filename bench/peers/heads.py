"""Heads trained side by side, beside torch's own modules and optimisers one head at a time.

python -m fovcache.bench.peers.heads [--rounds 12] [--threads 1 4] [--out DIR]

The peers train from the same first weights, in the same order, and validate after each epoch: through torch's
DataLoader, or by indexing tensors in memory. A bound beside the MLPs is the time of their matrix products alone, as
torch.bmm computes them for all heads at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fovcache.probes.heads.problem import Problem
from fovcache.probes.heads.trained import LinearHead, MlpHead

from .comparison import Comparison, Method, compare, finish

NUM_CLASSES = 10
OURS = "ours, side by side"
INDEXING = "torch, indexing, one by one"
LOADER = "torch, DataLoader, one by one"
BOUND = "their products alone, torch.bmm"
LINEAR_TO_LOADER, LINEAR_TO_INDEXING, MLP_TO_INDEXING = 50.0, 5.0, 3.0
NEVER = 10**6
"""A patience that no run comes to."""

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def linear(
    *,
    rows: int,
    dims: int,
    problems: int,
    candidates: int,
    epochs: int,
    rounds: int,
    threads: Sequence[int],
    peer_threads: Sequence[int],
) -> Comparison:
    """Linear heads: `candidates` of each problem, which has rows, first weights and an order of its own."""
    rates = tuple(float(each) for each in np.logspace(-4, -2, candidates))
    head = LinearHead(learning_rates=rates, weight_decays=(1e-2,), epochs=epochs, patience=NEVER)
    made = [make_problem(rows, dims, seed) for seed in range(problems)]
    wanted = _wanted(head, made)
    methods = [_ours(head, made, num, wanted) for num in threads]
    for name, batches, at_most in ((INDEXING, indexed, 4), (LOADER, loaded, 1)):
        methods += [_theirs(head, made, name, batches, num, wanted[:at_most]) for num in peer_threads]
    title = f"{problems} × {candidates} linear heads by AdamW on {rows} × {dims}, {NUM_CLASSES} classes, batch 256"
    comparison = compare(title, methods, unit="head-epochs", rounds=rounds)
    mine = _best(comparison, OURS)
    comparison.judge(mine, _best(comparison, LOADER), LINEAR_TO_LOADER)
    comparison.judge(mine, _best(comparison, INDEXING), LINEAR_TO_INDEXING)
    return comparison


def mlp(*, rows: int, dims: int, problems: int, epochs: int, rounds: int, threads: Sequence[int]) -> Comparison:
    """MLPs of 3 × 512 with batch normalisation and dropout, one of each problem."""
    head = MlpHead(epochs=epochs, patience=NEVER, plateau_factor=1)
    made = [make_problem(rows, dims, seed) for seed in range(problems)]
    _assert_equal(replace(head, dropout=0.0, epochs=1), made[0])
    wanted = _wanted(head, made)
    methods = [_ours(head, made, num, wanted) for num in threads]
    methods += [_theirs(head, made, INDEXING, indexed, num, wanted[:2]) for num in threads]
    methods += [_products(head, rows, dims, problems, epochs, num) for num in threads]
    title = f"{problems} MLPs of 3 × 512 by Adam on {rows} × {dims}, {NUM_CLASSES} classes, batch 256"
    comparison = compare(title, methods, unit="head-epochs", rounds=rounds)
    mine = _best(comparison, OURS)
    comparison.judge(mine, _best(comparison, INDEXING), MLP_TO_INDEXING)
    comparison.judge(mine, _best(comparison, BOUND))
    return comparison


def make_problem(rows: int, dims: int, seed: int) -> Problem:
    """Classes that overlap; validation has a seventh of the rows of train."""
    chance = np.random.default_rng(seed)
    y = chance.integers(0, NUM_CLASSES, rows + rows // 7)
    x = chance.standard_normal((len(y), dims)) + 1.5 / dims**0.5 * chance.standard_normal((NUM_CLASSES, dims))[y]
    x = ((x - x[:rows].mean(0)) / x[:rows].std(0)).astype(np.float32)  # else all would spend their time on casting
    return Problem(
        x_train_ND=torch.from_numpy(x[:rows]),
        y_train_N=y[:rows],
        x_validation_MD=torch.from_numpy(x[rows:]),
        y_validation_M=y[rows:],
        num_classes=NUM_CLASSES,
        initialisation_seed=seed,
        order_seed=seed + 1000,
    )


def indexed(x: torch.Tensor, y: torch.Tensor, size: int, generator: torch.Generator) -> Batches:
    """A shuffled epoch of tensors in memory."""
    for index in torch.randperm(len(x), generator=generator).split(size):
        yield x[index], y[index]


def loaded(x: torch.Tensor, y: torch.Tensor, size: int, generator: torch.Generator) -> Batches:
    """The same through torch's DataLoader."""
    dataset = TensorDataset(x, y)
    yield from DataLoader(dataset, size, sampler=torch.randperm(len(x), generator=generator).tolist())


def train(
    problem: Problem, head: LinearHead, rate: float, decay: float, batches: Callable[..., Batches]
) -> tuple[float, nn.Sequential]:
    """A head the usual way: the best accuracy on validation, and the last epoch's modules."""
    hidden, dropout = (head.hidden, head.dropout) if isinstance(head, MlpHead) else ((), 0.0)
    torch.manual_seed(problem.initialisation_seed)
    below, modules = problem.x_train_ND.shape[1], []
    for width in hidden:
        modules += [nn.Linear(below, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        below = width
    network = nn.Sequential(*modules, nn.Linear(below, problem.num_classes))
    kind = torch.optim.Adam if head.optimiser == "adam" else torch.optim.AdamW
    optimiser = kind(network.parameters(), lr=rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(problem.order_seed)
    x, y = problem.x_train_ND.float(), torch.from_numpy(problem.y_train_N)
    x_validation, y_validation = problem.x_validation_MD.float(), torch.from_numpy(problem.y_validation_M)
    best, kept = -1.0, {}
    for _ in range(head.epochs):
        network.train()
        for rows, classes in batches(x, y, head.batch_size, generator):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(rows), classes).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            accuracy = float((network(x_validation).argmax(1) == y_validation).double().mean())
        if accuracy > best:
            best, kept = accuracy, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(kept)
    return best, network


def _ours(head: LinearHead, problems: Sequence[Problem], num_threads: int, wanted: Sequence[float]) -> Method:
    """`wanted` are the first heads' accuracies."""

    def run() -> list[list[float]]:
        return [
            list((fitted.predict(problem.x_validation_MD) == problem.y_validation_M).mean(1))
            for fitted, problem in zip(head.fit(problems), problems, strict=True)
        ]

    def check(found: list[list[float]]) -> None:
        _assert_near([accuracy for each in found for accuracy in each][: len(wanted)], wanted, head)

    return Method(
        name=_named(OURS, num_threads),
        run=run,
        check=check,
        amount=len(problems) * len(head.candidates) * head.epochs,
        before=lambda: _allow(num_threads),
    )


def _theirs(
    head: LinearHead,
    problems: Sequence[Problem],
    name: str,
    batches: Callable[..., Batches],
    num_threads: int,
    wanted: Sequence[float],
) -> Method:
    """Of the first heads, as many as `wanted` are: all take as long."""
    heads = _pairs(head, problems)[: len(wanted)]

    def run() -> list[float]:
        return [train(problem, head, rate, decay, batches)[0] for problem, rate, decay in heads]

    return Method(
        name=_named(name, num_threads),
        run=run,
        check=lambda found: _assert_near(found, wanted, head),
        amount=len(heads) * head.epochs,
        before=lambda: _allow(num_threads),
    )


def _products(head: MlpHead, rows: int, dims: int, num_heads: int, epochs: int, num_threads: int) -> Method:
    """Every product of the steps: forwards, and backwards for weights and, above the first layer, for inputs."""
    sizes = [dims, *head.hidden, NUM_CLASSES]
    lengths = [min(head.batch_size, rows - start) for start in range(0, rows, head.batch_size)]
    chance = torch.Generator().manual_seed(0)
    weights = [torch.randn(num_heads, above, below, generator=chance) for below, above in itertools.pairwise(sizes)]
    values = [torch.randn(num_heads, size, head.batch_size, generator=chance) for size in sizes]

    def run() -> None:
        for _ in range(epochs):
            for length in lengths:
                for number, weight in enumerate(weights):
                    below, above = (values[place][:, :, :length] for place in (number, number + 1))
                    torch.bmm(weight, below)
                    torch.bmm(above, below.transpose(1, 2))
                    if number:
                        torch.bmm(weight.transpose(1, 2), above)

    return Method(
        name=_named(BOUND, num_threads),
        run=run,
        check=lambda found: None,
        amount=num_heads * epochs,
        before=lambda: _allow(num_threads),
    )


def _pairs(head: LinearHead, problems: Sequence[Problem]) -> list[tuple[Problem, float, float]]:
    return [(problem, each["learning_rate"], each["weight_decay"]) for problem in problems for each in head.candidates]


def _wanted(head: LinearHead, problems: Sequence[Problem]) -> list[float]:
    """Accuracies of the first heads, by indexing."""
    _allow(1)
    return [train(problem, head, rate, decay, indexed)[0] for problem, rate, decay in _pairs(head, problems)[:4]]


def _assert_near(found: Sequence[float], wanted: Sequence[float], head: LinearHead) -> None:
    """Linear heads: within one sample of validation. With dropout every way has masks of its own."""
    within = 0.15 if isinstance(head, MlpHead) else 2e-3
    assert np.allclose(found, wanted, atol=within), (found, wanted)


def _assert_equal(head: MlpHead, problem: Problem) -> None:
    """Without dropout, ours says what torch's modules say."""
    ((_, rate, decay),) = _pairs(head, [problem])
    _, network = train(problem, head, rate, decay, indexed)
    (fitted,) = head.fit([problem])
    with torch.no_grad():
        wanted = network(problem.x_validation_MD.float()).softmax(1).numpy()
    assert np.allclose(fitted.probabilities(problem.x_validation_MD)[0], wanted, atol=1e-3)


def _allow(num_threads: int) -> None:
    """To torch, and to ours, which asks the environment."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)


def _named(name: str, num_threads: int) -> str:
    return f"{name}, threads: {num_threads}"


def _best(comparison: Comparison, name: str) -> str:
    return comparison.fastest([each.name for each in comparison.timings if each.name.startswith(name)])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="folder for heads.json and heads.md")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    options = parser.parse_args()
    shared: dict[str, Any] = {"rounds": options.rounds, "threads": options.threads}
    comparisons = [
        linear(rows=5000, dims=384, problems=5, candidates=9, epochs=5, peer_threads=options.threads, **shared),
        linear(rows=5000, dims=384, problems=45, candidates=1, epochs=5, peer_threads=options.threads, **shared),
        mlp(rows=700, dims=640, problems=12, epochs=10, **shared),
        mlp(rows=700, dims=8576, problems=12, epochs=5, **shared),
    ]
    finish("heads", comparisons, options.out)


if __name__ == "__main__":
    main()
