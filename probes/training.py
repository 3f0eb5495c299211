"""Training heads side by side: epochs of steps, validation after each, and every head's best weights.

Axes: P problems with as many samples and classes; H heads, which are some candidates of each, one problem's after the
other's; N rows of train; B of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .adam import Adam
from .dropout import Dropout
from .early_stopping import EarlyStopping, Plateau
from .initial_network import initial_network
from .loss_scale import LossScale
from .network import Network
from .problem import Problem

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How heads are trained; as the fields of `trained.MlpHead`."""

    widths: tuple[int, ...]
    """Of hidden layers; none for a linear head."""
    dropout: float
    """Share of hidden units."""
    optimiser: str
    """One of adam.OPTIMISERS."""
    plateau_factor: float
    """Of the learning rate."""
    plateau_patience: int
    """Epochs."""
    epochs: int
    """At most."""
    patience: int
    """Epochs."""
    batch_size: int
    """Samples."""
    precision: str
    """One of PRECISIONS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What heads of one problem differ in."""

    problem: int
    """Its number."""
    rate: float
    """First learning rate."""
    decay: float
    """Weight decay."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What one head came to."""

    network: Network
    """Of this head alone, as it was after its best epoch."""
    num_epochs: int
    """That it was trained for."""
    best_epoch: int
    """From 1; 0 where it diverged before its first ended, and these are its first weights."""
    has_stopped: bool
    """Whether its validation accuracy had stopped rising before its last epoch."""
    has_diverged: bool
    """Whether it stopped because its scores were no longer finite."""
    samples_seen: int
    """Samples that it was stepped on, each time counted."""


class Rows:
    """A problem's rows as training needs them."""

    def __init__(self, problem: Problem, dtype: torch.dtype) -> None:
        device = problem.x_train_ND.device
        self.train_ND = problem.x_train_ND.to(torch.float32).to(dtype)
        self.classes_N = torch.from_numpy(problem.y_train_N).to(device)
        self.validation_MD = problem.x_validation_MD.to(torch.float32)
        self.validation_classes_M = torch.from_numpy(problem.y_validation_M).to(device)
        self.order = torch.Generator().manual_seed(problem.order_seed)


class Training:
    """Heads that are stepped together. What one comes to does not depend on the others, but for rounding."""

    def __init__(self, problems: Sequence[Problem], settings: Sequence[Setting], plan: Plan) -> None:
        """`settings` are in the order of their problems, and each problem has one."""
        counts = [sum(setting.problem == number for setting in settings) for number in range(len(problems))]
        self._plan = plan
        self._dtype = getattr(torch, plan.precision)
        self._rows = [Rows(problem, self._dtype) for problem in problems]
        self._device = problems[0].x_train_ND.device
        seeds = [problem.initialisation_seed for problem in problems]
        self._network = initial_network(
            [problem.x_train_ND.shape[1] for problem in problems],
            plan.widths,
            problems[0].num_classes,
            seeds,
            counts,
            self._device,
        )
        self._dropout = Dropout(plan.dropout, plan.widths, seeds, self._device)
        self._adam = Adam(self._network, [setting.decay for setting in settings], plan.optimiser)
        self._scale = LossScale(len(settings), self._device) if plan.precision == "float16" else None
        self._live = list(range(len(settings)))
        self._owners = [setting.problem for setting in settings]
        self._owner_H = torch.tensor(self._owners, device=self._device)
        self._stopping = [EarlyStopping(patience=plan.patience) for _ in settings]
        self._plateaus = [
            Plateau(rate=setting.rate, factor=plan.plateau_factor, patience=plan.plateau_patience)
            for setting in settings
        ]
        self._best = [self._network.kept([head]) for head in range(len(settings))]
        self._trained: list[Trained | None] = [None] * len(settings)
        self._seen = 0

    @torch.no_grad()
    def run(self, check: Callable[[], None] = lambda: None) -> list[Trained]:
        """All of it; `check` is called at each step, and may raise."""
        for epoch in range(1, self._plan.epochs + 1):
            self._pass(check)
            self._take_note(epoch, self._accuracies())
            if not self._live:
                break
        return [each for each in self._trained if each is not None]

    def _pass(self, check: Callable[[], None]) -> None:
        """One epoch of steps."""
        orders_PN = torch.stack([torch.randperm(len(rows.train_ND), generator=rows.order) for rows in self._rows])
        orders_PN = orders_PN.to(self._device)
        classes_PN = torch.stack([rows.classes_N for rows in self._rows]).gather(1, orders_PN)
        classes_HN = classes_PN[self._owner_H]
        rates = [self._plateaus[head].rate for head in self._live]
        for start, end in batches(orders_PN.shape[1], self._plan.batch_size, whole=bool(self._plan.widths)):
            check()
            rows = [
                own.train_ND.index_select(0, order_N[start:end])
                for own, order_N in zip(self._rows, orders_PN, strict=True)
            ]
            self._step(rows, classes_HN[:, start:end], rates)
            self._seen += end - start

    def _step(self, rows: list[torch.Tensor], classes_HB: torch.Tensor, rates: list[float]) -> None:
        masks = self._dropout.masks(classes_HB.shape[1])
        if len(self._live) > len(self._rows) > 1:
            masks = [mask[self._owner_H] for mask in masks]
        scale = self._scale
        gradients = self._network.gradients(
            rows, classes_HB, masks, 1 - self._plan.dropout, self._dtype, None if scale is None else scale.scale_H
        )
        if scale is None:
            self._adam.step(gradients, rates)
            return
        overflows_H = scale.overflows(gradients, self._network.firsts)
        self._adam.step(gradients, rates, scale.scale_H, overflows_H)
        scale.update(overflows_H)

    def _accuracies(self) -> list[float]:
        """On validation, of each head; not a number where a score is not finite."""
        scores_HKM = self._network.scores([rows.validation_MD for rows in self._rows])
        classes_PM = torch.stack([rows.validation_classes_M for rows in self._rows])
        right_H = (scores_HKM.max(1).indices == classes_PM[self._owner_H]).double().mean(1)
        right_H[~scores_HKM.flatten(1).isfinite().all(1)] = torch.nan
        found: list[float] = right_H.tolist()
        return found

    def _take_note(self, epoch: int, accuracies: Sequence[float]) -> None:
        """Of an epoch's accuracies: keep the best weights, lower rates, and let go of heads that are done."""
        kept = []
        for place, (head, accuracy) in enumerate(zip(self._live, accuracies, strict=True)):
            stopping = self._stopping[head]
            if stopping.improves(accuracy):
                self._best[head] = self._network.kept([place])
            self._plateaus[head].step(accuracy)
            has_diverged = accuracy != accuracy  # only what is not a number
            if not (has_diverged or stopping.is_over or epoch == self._plan.epochs):
                kept.append(place)
                continue
            self._trained[head] = Trained(
                network=self._best[head],
                num_epochs=epoch,
                best_epoch=stopping.best_epoch,
                has_stopped=stopping.is_over,
                has_diverged=has_diverged,
                samples_seen=self._seen,
            )
        if kept and len(kept) < len(self._live):
            self._go_on(kept)
        self._live = [self._live[place] for place in kept]

    def _go_on(self, places: list[int]) -> None:
        """With these of the heads alone."""
        self._network = self._network.kept(places)
        self._adam.keep(self._network, places)
        if self._scale is not None:
            self._scale.keep(places)
        owners = [self._owners[place] for place in places]
        problems = sorted(set(owners))
        self._dropout.keep(problems)
        self._rows = [self._rows[problem] for problem in problems]
        self._owners = [problems.index(owner) for owner in owners]
        self._owner_H = torch.tensor(self._owners, device=self._device)


def batches(num: int, size: int, *, whole: bool) -> list[tuple[int, int]]:
    """Where batches of an epoch begin and end. A last one of a single sample is left out of those that are `whole`.

    Batch normalisation cannot take one sample, and torch raises. Orders differ from epoch to epoch, so that it is
    another sample each time.
    """
    found = [(start, min(start + size, num)) for start in range(0, num, size)]
    return found[:-1] if whole and num % size == 1 else found
