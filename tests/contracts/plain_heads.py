"""Problems for trained heads, and a head trained as anyone would write it with torch.nn and torch.optim."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fovcache.probes.heads.dropout import Dropout
from fovcache.probes.heads.problem import Problem
from fovcache.probes.heads.trained import LinearHead, MlpHead


def made_problem(
    rows: int = 300,
    dims: int = 20,
    classes: int = 4,
    *,
    seed: int = 0,
    apart: float = 0.5,
    validation: int = 60,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """Gaussian classes `apart`, standardised; `seed` decides the data, and with an offset the other two seeds."""
    chance = np.random.default_rng(seed)
    y = chance.integers(0, classes, rows + validation)
    x = chance.standard_normal((len(y), dims)) + apart * chance.standard_normal((classes, dims))[y]
    x = (x - x[:rows].mean(0)) / np.maximum(x[:rows].std(0), 1e-6)
    x_ND = torch.from_numpy(x).to(dtype)
    return Problem(
        x_train_ND=x_ND[:rows],
        y_train_N=y[:rows],
        x_validation_MD=x_ND[rows:],
        y_validation_M=y[rows:],
        num_classes=classes,
        initialisation_seed=seed + 100,
        order_seed=seed + 200,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plain:
    """What the loop came to."""

    network: nn.Sequential
    """As it was after its best epoch, for evaluation."""
    best_epoch: int
    """From 1."""
    num_epochs: int
    """Until it stopped."""
    accuracy: float
    """Of its best epoch on validation."""

    def probabilities(self, x_MD: torch.Tensor) -> torch.Tensor:
        """float32 [M, K]."""
        with torch.no_grad():
            found: torch.Tensor = self.network(x_MD.float()).softmax(1)
        return found


class _Mask(nn.Module):
    """Dropout with masks that it is given."""

    mask_BO: torch.Tensor | None = None

    def forward(self, values_BO: torch.Tensor) -> torch.Tensor:
        return values_BO * self.mask_BO if self.training and self.mask_BO is not None else values_BO


def train_plainly(problem: Problem, head: LinearHead, rate: float, decay: float) -> Plain:
    """One candidate of a head, in the head's order and with its masks; autocast and GradScaler are torch's."""
    hidden, share = (head.hidden, head.dropout) if isinstance(head, MlpHead) else ((), 0.0)
    torch.manual_seed(problem.initialisation_seed)
    network, masks = _modules(problem, hidden)
    adam = torch.optim.Adam if head.optimiser == "adam" else torch.optim.AdamW
    optimiser = adam(network.parameters(), lr=rate, weight_decay=decay)
    factor = min(head.plateau_factor, 1 - 1e-12)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=factor, patience=head.plateau_patience
    )
    scaler = torch.amp.GradScaler("cpu", enabled=head.precision == "float16")
    dropout = Dropout(share, hidden, [problem.initialisation_seed], torch.device("cpu"))
    order = torch.Generator().manual_seed(problem.order_seed)
    x, y = problem.x_train_ND.float(), torch.from_numpy(problem.y_train_N)
    x_validation, y_validation = problem.x_validation_MD.float(), torch.from_numpy(problem.y_validation_M)
    best, best_epoch, state = -1.0, 0, network.state_dict()
    for epoch in range(1, head.epochs + 1):
        network.train()
        for index in torch.randperm(len(x), generator=order).split(head.batch_size):
            if hidden and len(index) == 1:
                continue
            for module, mask_1OB in zip(masks, dropout.masks(len(index)), strict=False):
                module.mask_BO = mask_1OB[0].t()
            optimiser.zero_grad()
            with torch.autocast("cpu", getattr(torch, head.precision), enabled=head.precision != "float32"):
                loss = nn.functional.cross_entropy(network(x[index]).float(), y[index])
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
        network.eval()
        with torch.no_grad():
            accuracy = float((network(x_validation).argmax(1) == y_validation).double().mean())
        scheduler.step(accuracy)
        if accuracy > best:
            best, best_epoch, state = accuracy, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= head.patience:
            break
    network.load_state_dict(state)
    return Plain(network=network.eval(), best_epoch=best_epoch, num_epochs=epoch, accuracy=best)


def _modules(problem: Problem, hidden: tuple[int, ...]) -> tuple[nn.Sequential, list[_Mask]]:
    below, modules, masks = problem.x_train_ND.shape[1], [], []
    for width in hidden:
        masks.append(_Mask())
        modules += [nn.Linear(below, width), nn.BatchNorm1d(width), nn.ReLU(), masks[-1]]
        below = width
    return nn.Sequential(*modules, nn.Linear(below, problem.num_classes)), masks
