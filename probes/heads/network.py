"""Many heads of one shape side by side, forwards and backwards: linear ones, or MLPs with batch normalisation.

Axes: H heads, which are S for each of P problems, one problem's after the other's; O and I units of a layer and of the
one below; D columns of a problem's rows; B rows of a batch; K classes. Units stand before samples, so that heads are
stacked along the first axis and everything that is not a product runs along memory. Problems of the same D and S in a
row are a block: their first layers are one tensor.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .products import products

_MOMENTUM = 0.1
"""Of running statistics."""
_EPSILON = 1e-5
"""Beside a variance."""
BLOCK = 4096
"""Rows that are scored at a time."""

Below = Sequence[torch.Tensor] | torch.Tensor
"""What a layer takes: rows [P, B, D] of each block, or values [H, I, B] of the layer below."""


@dataclass(slots=True, kw_only=True, eq=False)
class Norm:
    """Batch normalisation of one layer."""

    weight_HO: torch.Tensor
    """γ."""
    bias_HO: torch.Tensor
    """β."""
    mean_HO: torch.Tensor
    """Running."""
    variance_HO: torch.Tensor
    """Running; unbiased."""


@dataclass(slots=True, kw_only=True, eq=False)
class Layer:
    """Linear, and what follows it."""

    weights: list[torch.Tensor]
    """[P · S, O, D] for each block in the first layer, as problems differ in D; else [H, O, I] alone."""
    bias_HO: torch.Tensor
    """Before normalisation, where there is one."""
    norm: Norm | None
    """None for the last layer."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Passed:
    """What going back through a layer needs of the way forth."""

    below: Below
    """The batch, or what the layer below gave."""
    sums_HOB: torch.Tensor
    """What is normalised."""
    mean_HO: torch.Tensor
    """Over the batch."""
    inverse_HO: torch.Tensor
    """1 / standard deviation."""


class Network:
    """H heads."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self.parameters: list[torch.Tensor] = []
        """What is learned: the first layer's weights, a tensor for each block; then tensors of all heads."""
        for layer in layers:
            self.parameters += [*layer.weights, layer.bias_HO]
            if layer.norm is not None:
                self.parameters += [layer.norm.weight_HO, layer.norm.bias_HO]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.parameters[0].device

    @property
    def firsts(self) -> list[int]:
        """Of each of `parameters`, the head that it begins with."""
        sizes = [len(weight) for weight in self.layers[0].weights]
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        return starts + [0] * (len(self.parameters) - len(starts))

    def zeros(self) -> Network:
        """A network of the same shape, all of whose numbers are 0."""
        return Network(
            [
                _changed(layer, [torch.zeros_like(each) for each in layer.weights], torch.zeros_like)
                for layer in self.layers
            ]
        )

    def kept(self, blocks: Sequence[Sequence[int]]) -> Network:
        """Copies of these heads, rising, in blocks; those of one block are from one block here."""
        first, *others = self.layers
        firsts, weights = self.firsts, []
        for heads in blocks:
            place = bisect_right(firsts[: len(first.weights)], heads[0]) - 1
            weights.append(_copied(first.weights[place], [head - firsts[place] for head in heads]))
        every = [head for heads in blocks for head in heads]
        layers = [_changed(first, weights, lambda values: _copied(values, every))]
        for layer in others:
            layers.append(_changed(layer, [_copied(layer.weights[0], every)], lambda values: _copied(values, every)))
        return Network(layers)

    def gradients(
        self,
        rows: Sequence[torch.Tensor],
        classes_HB: torch.Tensor,
        masks: Sequence[torch.Tensor],
        keep: float,
        dtype: torch.dtype,
        scale_H: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Of the mean cross-entropy of one batch, times `scale_H`; running statistics are brought up to date.

        `rows` are a batch [P, B, D] of `dtype` for each block, `masks` dropout's [H or 1, O, B] for each hidden layer,
        and `keep` the share of units that it lets pass. `dtype` is that of products' factors.
        """
        passed: list[_Passed] = []
        below: Below = rows
        for number, layer in enumerate(self.layers[:-1]):
            sums_HOB = _sums(layer, below, dtype)
            assert layer.norm is not None
            values_HOB, mean_HO, inverse_HO = _normalised(sums_HOB, layer.norm)
            values_HOB.relu_()
            if masks:
                values_HOB.mul_(masks[number])
            passed.append(_Passed(below=below, sums_HOB=sums_HOB, mean_HO=mean_HO, inverse_HO=inverse_HO))
            below = values_HOB
        slope_HOB = _sums(self.layers[-1], below, dtype).softmax(1)
        minus_one = slope_HOB.new_full((), -1.0).expand(slope_HOB.shape[0], 1, slope_HOB.shape[2])
        slope_HOB.scatter_add_(1, classes_HB[:, None], minus_one)
        slope_HOB.mul_(1 / slope_HOB.shape[2])
        if scale_H is not None:
            slope_HOB.mul_(scale_H[:, None, None])
        found = [*_weight_gradients(self.layers[-1], below, slope_HOB, dtype), slope_HOB.sum(2)]
        for number in reversed(range(len(passed))):
            slope_HOB = products(self.layers[number + 1].weights[0].transpose(1, 2), slope_HOB, dtype)
            # What dropout or ReLU made 0 stays 0; the rest dropout had enlarged.
            assert isinstance(below, torch.Tensor)
            slope_HOB = torch.ops.aten.threshold_backward(slope_HOB, below, 0)
            if masks:
                slope_HOB.mul_(1 / keep)
            norm = self.layers[number].norm
            assert norm is not None
            slope_HOB, weight_HO, bias_HO = _normalised_back(slope_HOB, passed[number], norm)
            below = passed[number].below
            # A bias before normalisation moves nothing: its gradient is exactly 0.
            own = [torch.zeros_like(weight_HO), weight_HO, bias_HO]
            found = [*_weight_gradients(self.layers[number], below, slope_HOB, dtype), *own, *found]
        return found

    def scores(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """float32 [H, K, M]: logits by running statistics, without dropout, of M rows, [P, M, D] for each block."""
        parts = zip(*(each.split(BLOCK, dim=1) for each in rows), strict=True)
        found = [self._scores(list(part)) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def _scores(self, below: Below) -> torch.Tensor:
        for layer in self.layers[:-1]:
            sums_HOB, norm = _sums(layer, below, torch.float32), layer.norm
            assert norm is not None
            inverse_HO = (norm.variance_HO + _EPSILON).rsqrt_()
            sums_HOB.sub_(norm.mean_HO[:, :, None]).mul_((norm.weight_HO * inverse_HO)[:, :, None])
            below = sums_HOB.add_(norm.bias_HO[:, :, None]).relu_()
        return _sums(self.layers[-1], below, torch.float32)


def _sums(layer: Layer, below: Below, dtype: torch.dtype) -> torch.Tensor:
    """float32 [H, O, B]: weights times what is below, and biases."""
    if isinstance(below, torch.Tensor):
        sums_HOB = products(layer.weights[0], below, dtype)
    else:  # all heads of a problem have the same rows: one product
        parts = [
            products(_by_problem(weight, rows), rows.transpose(1, 2), dtype).view(*weight.shape[:2], -1)
            for weight, rows in zip(layer.weights, below, strict=True)
        ]
        sums_HOB = parts[0] if len(parts) == 1 else torch.cat(parts)
    return sums_HOB.add_(layer.bias_HO[:, :, None])


def _weight_gradients(layer: Layer, below: Below, slope_HOB: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """As `Layer.weights`."""
    if isinstance(below, torch.Tensor):
        return [products(slope_HOB, below.transpose(1, 2), dtype)]
    slopes = slope_HOB.split([len(weight) for weight in layer.weights])
    return [
        products(_by_problem(slope, rows), rows, dtype).view_as(weight)
        for slope, rows, weight in zip(slopes, below, layer.weights, strict=True)
    ]


def _by_problem(values_HOX: torch.Tensor, rows_PBD: torch.Tensor) -> torch.Tensor:
    """[P, S · O, X]: units of all heads of each of a block's problems."""
    return values_HOX.reshape(len(rows_PBD), -1, values_HOX.shape[2])


def _normalised(sums_HOB: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised over the batch, with its mean and 1 / standard deviation [H, O]; moves the running statistics."""
    num = sums_HOB.shape[2]
    mean_HO = sums_HOB.mean(2)
    values_HOB = sums_HOB - mean_HO[:, :, None]
    variance_HO = torch.linalg.vector_norm(values_HOB, dim=2).square_().div_(num)
    norm.mean_HO.lerp_(mean_HO, _MOMENTUM)
    norm.variance_HO.lerp_(variance_HO * (num / (num - 1)), _MOMENTUM)
    inverse_HO = variance_HO.add_(_EPSILON).rsqrt_()
    values_HOB.mul_((norm.weight_HO * inverse_HO)[:, :, None]).add_(norm.bias_HO[:, :, None])
    return values_HOB, mean_HO, inverse_HO


def _normalised_back(
    slope_HOB: torch.Tensor, passed: _Passed, norm: Norm
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of what was normalised, of γ and of β. torch takes heads' units for channels of one image."""
    shape = slope_HOB.shape
    sums, weight, bias = torch.ops.aten.native_batch_norm_backward(
        slope_HOB.view(1, -1, shape[2]),
        passed.sums_HOB.view(1, -1, shape[2]),
        norm.weight_HO.flatten(),
        norm.mean_HO.flatten(),
        norm.variance_HO.flatten(),
        passed.mean_HO.flatten(),
        passed.inverse_HO.flatten(),
        True,
        _EPSILON,
        [True, True, True],
    )
    return sums.view(shape), weight.view(shape[:2]), bias.view(shape[:2])


def _changed(layer: Layer, weights: list[torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> Layer:
    """With these weights, and the rest changed."""
    norm = layer.norm
    return Layer(
        weights=weights,
        bias_HO=change(layer.bias_HO),
        norm=norm
        and Norm(
            weight_HO=change(norm.weight_HO),
            bias_HO=change(norm.bias_HO),
            mean_HO=change(norm.mean_HO),
            variance_HO=change(norm.variance_HO),
        ),
    )


def _copied(values: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Of a tensor's first axis. One piece of memory is copied ten times as fast as the same by index."""
    if len(places) == 1:
        return values[places[0] : places[0] + 1].clone()
    return values[list(places)]
