"""The tensors of a model and of its optimiser by the bare module's names: taken out, and put back in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fovcache.errors import WeightsError


def bare_module(module: nn.Module) -> nn.Module:
    """The module without what torch.compile and data parallelism wrapped around it."""
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def model_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict, sharing memory with the module; a tied tensor stands under each of its names."""
    return {_bare_name(name): tensor for name, tensor in bare_module(module).state_dict().items()}


def fill_model(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy `tensors` into the module. Raises WeightsError naming all that are missing, unexpected or mis-shaped."""
    bare = bare_module(module)
    full_names = {_bare_name(name): name for name in bare.state_dict()}
    _check(tensors, {name: tuple(tensor.shape) for name, tensor in model_tensors(module).items()}, "the model")
    bare.load_state_dict({full_names[name]: tensor for name, tensor in tensors.items()})


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's `exp_avg`, `exp_avg_sq` and `step` of each parameter that was stepped, as `PARAMETER.exp_avg`."""
    names = _parameter_names(module)
    return {
        f"{names[id(parameter)]}.{key}": value
        for parameter, values in _inner(optimizer).state.items()
        for key, value in values.items()
    }


def optimizer_groups(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups: each with its options, and in `params` its parameters' names."""
    names = _parameter_names(module)
    return [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
        for group in _inner(optimizer).param_groups
    ]


def fill_optimizer(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Make the optimiser go on from what `optimizer_tensors` and `optimizer_groups` gave.

    Raises WeightsError naming parameters that its groups do not have, and tensors that are mis-shaped.
    """
    members = [list(group["params"]) for group in groups]
    own = [group["params"] for group in optimizer_groups(module, optimizer)]
    if members != own:
        differing = sorted({name for group in members for name in group} ^ {name for group in own for name in group})
        raise WeightsError(
            "the checkpoint does not fit the optimiser, whose groups have other parameters: "
            + (", ".join(differing) if differing else "the same ones, divided or ordered otherwise")
        )
    shapes = {_bare_name(name): tuple(value.shape) for name, value in bare_module(module).named_parameters()}
    position = {name: number for number, name in enumerate(name for group in members for name in group)}
    states: dict[int, dict[str, torch.Tensor]] = {}
    expected: dict[str, tuple[int, ...]] = {}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(".")
        if name in position:
            expected[full_name] = () if key == "step" else shapes[name]
            # A copy: a mapped file would be held for as long as the run lasts, also when it is rotated away.
            states.setdefault(position[name], {})[key] = tensor.clone()
    _check(tensors, expected, "the optimiser")
    numbered = [{**group, "params": [position[name] for name in group["params"]]} for group in groups]
    _inner(optimizer).load_state_dict({"state": states, "param_groups": numbered})


def _bare_name(name: str) -> str:
    """Without the components that torch.compile adds where a part of a module is compiled."""
    return name.replace("_orig_mod.", "")


def _parameter_names(module: nn.Module) -> dict[int, str]:
    return {id(parameter): _bare_name(name) for name, parameter in bare_module(module).named_parameters()}


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser itself, where accelerate wrapped it."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def _check(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in expected]
    problems += [
        f"{name} has the shape {list(tensor.shape)}, expected {list(expected[name])}"
        for name, tensor in tensors.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    if problems:
        raise WeightsError(f"the checkpoint does not fit {what}: {'; '.join(problems)}")
