"""Computing a representation of many matrices, in batches that are bounded in memory.

Axes: N samples, T tokens, C channels, F numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ..errors import EnvironmentFailure, UsageError
from ..extract.taps import is_out_of_memory
from .arithmetic import full_precision
from .representation import Representation

MAX_BYTES = 256 << 20
"""Working memory that a device is asked for, by default."""
_COPIES = 12
"""Of a batch, held at the peak by `ensemble`, the largest: 7 on a CPU, more where torch sorts."""
_SAMPLE_BYTES = 4096
"""That a sample needs however small its matrix is."""
_CPU_BYTES = 4 << 20
"""A batch of this size stays in the caches, and is worth the interpreter's part in it."""


def compute_rows(
    representation: Representation, x_NTC: torch.Tensor, *, device: torch.device | str, max_bytes: int = MAX_BYTES
) -> torch.Tensor:
    """CPU float32 `[N, F]` of matrices of any floating dtype, wherever they lie; float64 of float64.

    Halves are widened to float32. Working memory on `device` stays about below `max_bytes`, unless a single sample
    needs more. On a CPU as many batches run at once as torch has threads, each on one of them: sorts, transforms and
    eigenvalues of small matrices gain nothing from more. So results do not depend on their number. MPS has no float64:
    what is asked of it is computed on the CPU.

    Raises UsageError for what are no finite matrices, EnvironmentFailure where a sample does not fit in memory.
    """
    device = torch.device(device)
    device = torch.device("cpu") if device.type == "mps" else device
    if x_NTC.dim() != 3 or not x_NTC.is_floating_point():
        raise UsageError(f"expected matrices [samples, tokens, channels], got {tuple(x_NTC.shape)} of {x_NTC.dtype}")
    dtype = torch.float64 if x_NTC.dtype == torch.float64 else torch.float32
    num_samples, num_tokens, num_channels = x_NTC.shape
    rows_NF = torch.empty(num_samples, representation.num_features(num_tokens, num_channels), dtype=dtype)

    def compute(part: slice) -> None:
        rows_NF[part] = representation.compute(x_NTC[part].to(device).to(dtype))

    work_bytes = _COPIES * num_tokens * num_channels * dtype.itemsize + _SAMPLE_BYTES
    most_bytes = min(max_bytes, _COPIES * _CPU_BYTES) if device.type == "cpu" else max_bytes
    size = max(most_bytes // work_bytes, 1)
    parts = [slice(start, start + size) for start in range(0, num_samples, size)]
    try:
        with full_precision(device):
            if device.type == "cpu":
                _at_once(compute, parts, most=max(max_bytes // (size * work_bytes), 1))
            else:
                for part in parts:
                    compute(part)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentFailure(
            f"{representation.name!r} of matrices of {num_tokens} × {num_channels} ran out of memory on {device}: "
            "choose another --device"
        ) from error
    return rows_NF


def _at_once(compute: Callable[[slice], None], parts: Sequence[slice], most: int) -> None:
    """Each part in one of at most `most` threads, of which torch makes no more."""
    num_threads = torch.get_num_threads()
    _keep_freed_memory()
    try:
        with ThreadPoolExecutor(min(most, num_threads), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(compute, parts):
                pass
    finally:
        torch.set_num_threads(num_threads)  # what a thread sets for itself reaches MKL, which is everybody's


def _keep_freed_memory() -> None:
    """Freeing a block of nearly 32 MiB once makes glibc keep what is freed later, up to twice as much, for itself.

    Else every batch gets its memory from the kernel anew, page by page: half of the time of what sorts. Elsewhere this
    does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
