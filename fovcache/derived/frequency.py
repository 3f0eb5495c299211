"""`frequency`: magnitudes of the two-dimensional Fourier transform, 14 numbers.

The 10 largest magnitudes, descending, zero-padded · mean, standard deviation (ddof 0) and max of all of them · the
share of the 10 largest in the sum of their squares, 0 for a matrix of zeros. The transform is unscaled, as numpy's.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quotient import quotient

MOST = 10


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 14]`."""
    spectrum = _Magnitudes(batch.x_BTC)
    top_BF = spectrum.largest()
    mean_B1 = spectrum.sum(spectrum.half_BTH)[:, None] / batch.num_values
    deviation_BTH = spectrum.half_BTH - mean_B1[:, :, None]
    std_B1 = (spectrum.sum(deviation_BTH.square())[:, None] / batch.num_values).sqrt()
    energy_B1 = spectrum.sum(spectrum.half_BTH.square())[:, None]
    share_B1 = quotient(top_BF.square().sum(dim=1, keepdim=True), energy_B1).clamp(max=1)
    return torch.cat([batch.restored(torch.cat([top_BF, mean_B1, std_B1, top_BF[:, :1]], dim=1)), share_B1], dim=1)


class _Magnitudes:
    """Of a real matrix's spectrum, the half that is not a mirror image.

    Every column stands for two, itself and its mirror image, but for the first and, of an even number of channels,
    the one at half of them.
    """

    def __init__(self, x_BTC: torch.Tensor) -> None:
        half_BTH = torch.fft.rfft2(x_BTC)
        self.half_BTH = (half_BTH.real.square() + half_BTH.imag.square()).sqrt_()
        self._single = [0, x_BTC.shape[2] // 2] if x_BTC.shape[2] % 2 == 0 else [0]

    def sum(self, values_BTH: torch.Tensor) -> torch.Tensor:
        """`[B]`, of the whole spectrum."""
        once_BTS = values_BTH[:, :, self._single]
        return 2 * values_BTH.sum(dim=(1, 2)) - once_BTS.sum(dim=(1, 2))

    def largest(self) -> torch.Tensor:
        """`[B, 10]`, descending, of the whole spectrum."""
        num_columns = self.half_BTH.shape[2]
        flat_BM = self.half_BTH.flatten(1)
        once = flat_BM.topk(min(MOST, flat_BM.shape[1]), dim=1)
        column_BF = once.indices % num_columns
        is_single_BF = torch.stack([column_BF == single for single in self._single]).any(dim=0)
        both_BF = torch.cat([once.values, once.values.masked_fill(is_single_BF, 0)], dim=1)
        top_BF = both_BF.topk(min(MOST, both_BF.shape[1]), dim=1).values
        return torch.nn.functional.pad(top_BF, (0, MOST - top_BF.shape[1]))


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="frequency", width=14, numbers=numbers)
