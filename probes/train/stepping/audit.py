"""Which parameters training will change: chosen by parts, and found out by one step that leaves no trace."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from fovcache.errors import UsageError, nearest
from fovcache.trainable import Batch, Trainable

from ..result import ParameterGroup
from ..saving.random_states import put_back_random, take_random
from ..settings import TrainSettings

logger = logging.getLogger(__name__)


def choose_parts(module: nn.Module, trainable: Trainable, settings: TrainSettings) -> None:
    """Let only the parts that `train.parts` names require gradients, or all of them where it names none.

    A parameter that the module itself does not let be trained stays so.
    Raises UsageError for a part that is unknown or has nothing to train, or that the cache froze.
    """
    refuse_frozen_parts(trainable, settings.parts)
    part_of = parts_of(module)
    known = list(dict.fromkeys(part_of.values()))
    for part in settings.parts:
        if part not in known:
            raise UsageError(f"train.parts names {part!r}, which is no part of {trainable.name}{nearest(part, known)}")
    for name, parameter in module.named_parameters():
        if settings.parts and part_of[name] not in settings.parts:
            parameter.requires_grad_(False)
    for part in settings.parts:
        if not any(parameter.requires_grad for name, parameter in module.named_parameters() if part_of[name] == part):
            raise UsageError(
                f"train.parts names {part!r}, but {trainable.name} keeps all its parameters frozen under these "
                "settings: leave it out, or change [model]"
            )
    refuse_frozen_parts(trainable, [part_of[name] for name, value in module.named_parameters() if value.requires_grad])


def refuse_frozen_parts(trainable: Trainable, parts: Sequence[str]) -> None:
    """Raise UsageError for the first of `parts` that the cache stands for, and which cannot be trained therefore."""
    frozen = trainable.frozen()
    for part in parts:
        if part in frozen:
            need = trainable.needs().get(frozen[part])
            held = f"{frozen[part]!r}" + (f" ({need.what})" if need is not None else "")
            raise UsageError(
                f"the part {part!r} of {trainable.name} cannot be trained: the cache froze it, and the input {held} "
                "holds what it gave, which no training would change. Leave it out of train.parts; to train it, "
                "choose settings of the model under which it is not read from the cache"
            )


def parts_of(module: nn.Module) -> dict[str, str]:
    """Parameter name → part: of the module's `parts` the longest prefix that fits, else the name's first component."""
    named: Mapping[str, Sequence[str]] = getattr(module, "parts", {})
    prefixes = {prefix.rstrip("."): part for part, members in named.items() for prefix in members}
    longest_first = sorted(prefixes, key=len, reverse=True)

    def part_of(name: str) -> str:
        fits = (prefix for prefix in longest_first if f"{name}.".startswith(f"{prefix}."))
        prefix = next(fits, None)
        return name.partition(".")[0] if prefix is None else prefixes[prefix]

    return {name: part_of(name) for name, _ in module.named_parameters()}


def audit(module: nn.Module, batch: Batch) -> tuple[ParameterGroup, ...]:
    """What training does to each part's parameters, by `gradient_names`; unused ones are warned of by name."""
    received = gradient_names(module, batch)
    if unused := unused_names(module, received):
        logger.warning(
            "%d parameter tensors could be trained and receive no gradient, so they stay as they began: %s",
            len(unused),
            ", ".join(unused[:5]) + (", …" if len(unused) > 5 else ""),
        )
    return parameter_groups(module, received)


def gradient_names(module: nn.Module, batch: Batch) -> frozenset[str]:
    """The parameters that receive a gradient from `batch`, by one forward and backward pass of the bare module.

    Gradients, buffers, modes and all generators are afterwards as they were.
    Raises UsageError where there are none.
    """
    with _untouched(module):
        module.train()
        loss = module(batch)["loss"]
        if loss.requires_grad:
            loss.nanmean().backward()
        received = frozenset(name for name, parameter in module.named_parameters() if parameter.grad is not None)
    if not received:
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        raise UsageError(
            "nothing that is trained receives a gradient from the loss: "
            + (f"{len(trained)} parameter tensors could be trained" if trained else "every parameter is frozen")
            + "; look at train.parts and at the model's settings"
        )
    return received


def unused_names(module: nn.Module, received: frozenset[str]) -> tuple[str, ...]:
    """The parameters that could be trained and are not in `received`."""
    named = module.named_parameters()
    return tuple(name for name, parameter in named if parameter.requires_grad and name not in received)


def parameter_groups(module: nn.Module, received: frozenset[str]) -> tuple[ParameterGroup, ...]:
    """The numbers of each part, in the order of the parameters; tied ones are counted once."""
    part_of = parts_of(module)
    counts = {part: {"trained": 0, "unused": 0, "frozen": 0} for part in part_of.values()}
    for name, parameter in module.named_parameters():
        what = "frozen" if not parameter.requires_grad else "trained" if name in received else "unused"
        counts[part_of[name]][what] += parameter.numel()
    return tuple(ParameterGroup(part=part, **numbers) for part, numbers in counts.items())


@contextlib.contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Leaves gradients, buffers, modes and generators as they were; inside there are no gradients yet."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    states = take_random(device)
    modes = [(each, each.training) for each in module.modules()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    buffers = [
        (owner, name, buffer, buffer.clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for owner, name, buffer, content in buffers:
                setattr(owner, name, buffer)
                if not torch.equal(buffer, content):
                    buffer.copy_(content)
        for each, mode in modes:
            each.training = mode
        put_back_random(states, device)
