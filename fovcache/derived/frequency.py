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
    spectrum = _Spectrum(batch.x_BTC)
    top_BF = spectrum.largest()
    magnitude_BTH = spectrum.power_BTH.sqrt()
    mean_B1 = spectrum.sum(magnitude_BTH)[:, None] / batch.num_values
    deviation_BTH = magnitude_BTH.sub_(mean_B1[:, :, None])
    std_B1 = (spectrum.sum(deviation_BTH.square_())[:, None] / batch.num_values).sqrt()
    share_B1 = quotient(top_BF.square().sum(dim=1), spectrum.sum(spectrum.power_BTH)).clamp(max=1)[:, None]
    return torch.cat([batch.restored(torch.cat([top_BF, mean_B1, std_B1, top_BF[:, :1]], dim=1)), share_B1], dim=1)


class _Spectrum:
    """Of a real matrix's spectrum, the half that is not a mirror image.

    Every column stands for two, itself and its mirror image, but for the first and, of an even number of channels,
    the one at half of them.
    """

    def __init__(self, x_BTC: torch.Tensor) -> None:
        half_BTH = torch.fft.rfft2(x_BTC)
        self.power_BTH = half_BTH.real.square().addcmul_(half_BTH.imag, half_BTH.imag)
        """Squared magnitudes."""
        self._single = [0, x_BTC.shape[2] // 2] if x_BTC.shape[2] % 2 == 0 else [0]

    def sum(self, values_BTH: torch.Tensor) -> torch.Tensor:
        """`[B]`, of the whole spectrum."""
        once_BTS = values_BTH[:, :, self._single]
        return 2 * values_BTH.sum(dim=(1, 2)) - once_BTS.sum(dim=(1, 2))

    def largest(self) -> torch.Tensor:
        """`[B, 10]`: the largest magnitudes of the whole spectrum, descending."""
        flat_BM = self.power_BTH.flatten(1)
        once = flat_BM.topk(min(MOST, flat_BM.shape[1]), dim=1)
        column_BF = once.indices % self.power_BTH.shape[2]
        is_single_BF = torch.stack([column_BF == single for single in self._single]).any(dim=0)
        both_BF = torch.cat([once.values, once.values.masked_fill(is_single_BF, 0)], dim=1)
        top_BF = both_BF.topk(min(MOST, both_BF.shape[1]), dim=1).values.sqrt()
        return torch.nn.functional.pad(top_BF, (0, MOST - top_BF.shape[1]))


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="frequency", width=14, numbers=numbers)
