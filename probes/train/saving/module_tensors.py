"""The tensors of a model and of its optimiser by the module's names: taken out, and put back in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fovcache.errors import WeightsError


def model_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict, sharing memory with the module; a tied tensor stands under each of its names."""
    return dict(module.state_dict())


def fill_model(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy `tensors` into the module. Raises WeightsError naming all that are missing, unexpected or mis-shaped."""
    _check(tensors, {name: tuple(tensor.shape) for name, tensor in model_tensors(module).items()}, "the model")
    module.load_state_dict(dict(tensors))


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's `exp_avg`, `exp_avg_sq` and `step` of each parameter that was stepped, as `PARAMETER.exp_avg`."""
    names = _parameter_names(module)
    return {
        f"{names[id(parameter)]}.{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def optimizer_groups(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups: each with its options, and in `params` its parameters' names."""
    names = _parameter_names(module)
    return [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]} for group in optimizer.param_groups
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
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
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
    optimizer.load_state_dict({"state": states, "param_groups": numbered})


def _parameter_names(module: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in module.named_parameters()}


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
