"""Training heads side by side: epochs of steps, validation after each, and every head's best weights.

Axes: P problems with as many samples and classes; H heads, which are some candidates of each, one problem's after the
other's; B rows of a batch.
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
from .row_batches import Batches

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


class Training:
    """Heads that are stepped together. What one comes to does not depend on the others, but for rounding."""

    def __init__(self, problems: Sequence[Problem], settings: Sequence[Setting], plan: Plan) -> None:
        """`settings` are in the order of their problems, and each problem has one."""
        self._plan = plan
        self._dtype = getattr(torch, plan.precision)
        self._device = problems[0].x_train_ND.device
        self._owners = [setting.problem for setting in settings]
        self._batches = Batches(problems, self._dtype)
        self._batches.keep(self._owners)
        seeds = [problem.initialisation_seed for problem in problems]
        self._network = initial_network(
            [problem.x_train_ND.shape[1] for problem in problems],
            plan.widths,
            problems[0].num_classes,
            seeds,
            [self._owners.count(number) for number in range(len(problems))],
            self._batches.blocks,
            self._device,
        )
        self._dropout = Dropout(plan.dropout, plan.widths, seeds, self._device)
        self._adam = Adam(self._network, [setting.decay for setting in settings], plan.optimiser)
        self._scale = LossScale(len(settings), self._device) if plan.precision == "float16" else None
        self._live = list(range(len(settings)))
        self._stopping = [EarlyStopping(patience=plan.patience) for _ in settings]
        self._plateaus = [
            Plateau(rate=setting.rate, factor=plan.plateau_factor, patience=plan.plateau_patience)
            for setting in settings
        ]
        self._best = [self._network.kept([[head]]) for head in range(len(settings))]
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
        rates = [self._plateaus[head].rate for head in self._live]
        for rows, classes_HB in self._batches.epoch(self._plan.batch_size, whole=bool(self._plan.widths)):
            check()
            self._step(rows, classes_HB, rates)
            self._seen += classes_HB.shape[1]

    def _step(self, rows: list[torch.Tensor], classes_HB: torch.Tensor, rates: list[float]) -> None:
        masks = self._dropout.masks(classes_HB.shape[1])
        if len(self._live) > self._batches.num_problems > 1:
            masks = [mask[self._batches.owner_H] for mask in masks]
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
        scores_HKM = self._network.scores(self._batches.validation)
        right_H = (scores_HKM.max(1).indices == self._batches.validation_classes_HM).double().mean(1)
        right_H[~scores_HKM.flatten(1).isfinite().all(1)] = torch.nan
        found: list[float] = right_H.tolist()
        return found

    def _take_note(self, epoch: int, accuracies: Sequence[float]) -> None:
        """Of an epoch's accuracies: keep the best weights, lower rates, and let go of heads that are done."""
        kept = []
        for place, (head, accuracy) in enumerate(zip(self._live, accuracies, strict=True)):
            stopping = self._stopping[head]
            if stopping.improves(accuracy):
                self._best[head] = self._network.kept([[place]])
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
        owners = [self._owners[place] for place in places]
        problems = sorted(set(owners))
        self._owners = [problems.index(owner) for owner in owners]
        self._batches.keep(owners)
        self._dropout.keep(problems)
        blocks = [
            [places[number] for number, owner in enumerate(self._owners) if owner in block]
            for block in self._batches.blocks
        ]
        self._network = self._network.kept(blocks)
        self._adam.keep(self._network, blocks)
        if self._scale is not None:
            self._scale.keep(places)
