"""One thread for linear algebra: the same sums in every run, and no waiting for cores that are busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch and every BLAS of this process to one CPU thread.

    BLAS's limit is the process's. Trials in several threads need one of these around all of them, or the first to end
    gives the others their threads back.
    """
    import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which is limited only if it is there already
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    if before == 1:  # as inside another of these, where looking for every BLAS would take longer than a small trial
        yield
        return
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
