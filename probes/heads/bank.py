"""A bank of heads: problems × candidates, divided into what is trained together.

On a GPU heads with as many samples and classes are trained together, as many as memory allows. On a CPU each core
trains its own, on one thread: linear heads a few at a time; an MLP alone, since its products keep a core busy by
themselves. What is trained together there depends on no machine, so that bits do not on the number of cores.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import psutil
import torch

from fovcache.builder.request import available_cores
from fovcache.console import THREAD_PREFIX, human_bytes
from fovcache.errors import UsageError

from ..one_thread import one_thread
from .problem import Problem
from .training import Plan, Setting, Trained, Training

_TOGETHER = 8
"""Linear heads that a core trains at a time, or those of one problem: enough to share the way there, few enough for
every core to have some."""
_TOGETHER_BYTES = 256 << 20
"""That they take at most, if they are of several problems."""
_SHARE = 0.5
"""Of the memory that is free, how much may be taken."""
_STATES = 6
"""A head's weights, gradients, two moments, directions, and the best weights so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is trained together."""

    problems: tuple[int, ...]
    """Numbers."""
    settings: tuple[Setting, ...]
    """Of each problem one or more, in that order; `Setting.problem` is the place in `problems`."""
    places: tuple[tuple[int, int], ...]
    """Of each setting: problem and candidate."""
    size_bytes: int
    """Memory that it takes, about."""


class _Cancelled(Exception):
    """Another job failed, or the run was interrupted."""


def train_bank(
    problems: Sequence[Problem], candidates: Sequence[tuple[float, float]], plan: Plan
) -> list[list[Trained]]:
    """Of each problem every candidate, which is a learning rate and a weight decay.

    Raises UsageError where one does not fit in memory.
    """
    problems = [_where_it_runs(problem) for problem in problems]
    found: dict[tuple[int, int], Trained] = {}
    on_cpu = [number for number, problem in enumerate(problems) if problem.x_train_ND.device.type == "cpu"]
    elsewhere = [number for number in range(len(problems)) if number not in set(on_cpu)]
    for job in _jobs_of_device(problems, elsewhere, candidates, plan):
        found.update(_run(job, problems, plan, threading.Event()))
    if on_cpu:
        num_threads, free = _num_threads(), _SHARE * psutil.virtual_memory().available
        jobs = sorted(_jobs_of_cores(problems, on_cpu, candidates, plan), key=lambda job: -job.size_bytes)
        _check_room(jobs[0], problems, free)
        found.update(_run_in_threads(jobs, problems, plan, min(num_threads, int(free / jobs[0].size_bytes))))
    return [[found[number, place] for place in range(len(candidates))] for number in range(len(problems))]


def _check_room(job: _Job, problems: Sequence[Problem], free: float) -> None:
    """Raises UsageError where not even this one fits."""
    if job.size_bytes > free:
        num_columns = max(problems[number].x_train_ND.shape[1] for number in job.problems)
        raise UsageError(
            f"training a head on {num_columns:,} numbers of each sample takes about {human_bytes(job.size_bytes)}, and "
            f"{human_bytes(int(free))} can be taken: take fewer layers, smaller hidden ones, or another representation"
        )


def _where_it_runs(problem: Problem) -> Problem:
    """Its rows on the CPU where they are on neither that nor a CUDA device: others lack some kernel or type."""
    if problem.x_train_ND.device.type in ("cpu", "cuda"):
        return problem
    return replace(problem, x_train_ND=problem.x_train_ND.cpu(), x_validation_MD=problem.x_validation_MD.cpu())


def _run_in_threads(
    jobs: Sequence[_Job], problems: Sequence[Problem], plan: Plan, num_threads: int
) -> dict[tuple[int, int], Trained]:
    cancelled = threading.Event()
    found: dict[tuple[int, int], Trained] = {}
    with one_thread():
        pool = ThreadPoolExecutor(num_threads, f"{THREAD_PREFIX}bank", initializer=_begin_thread)
        try:
            for done in as_completed([pool.submit(_run, job, problems, plan, cancelled) for job in jobs]):
                found.update(done.result())
        finally:  # a run that is stopped does not wait for heads to be trained to their end
            cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def _begin_thread() -> None:
    torch.set_num_threads(1)
    # Moments of weights whose gradient is 0 fade to numbers so small that a CPU takes 100 times as long for them.
    torch.set_flush_denormal(True)


def _run(
    job: _Job, problems: Sequence[Problem], plan: Plan, cancelled: threading.Event
) -> dict[tuple[int, int], Trained]:
    def check() -> None:
        if cancelled.is_set():
            raise _Cancelled

    training = Training([problems[number] for number in job.problems], job.settings, plan)
    return dict(zip(job.places, training.run(check), strict=True))


def _jobs_of_cores(
    problems: Sequence[Problem], numbers: Sequence[int], candidates: Sequence[tuple[float, float]], plan: Plan
) -> Iterator[_Job]:
    if not plan.widths:
        yield from _chunks(problems, numbers, candidates, plan, _TOGETHER // len(candidates), _TOGETHER_BYTES)
        return
    for number, candidate in itertools.product(numbers, range(len(candidates))):
        yield _job(problems, [number], [candidate], candidates, plan)


def _jobs_of_device(
    problems: Sequence[Problem], numbers: Sequence[int], candidates: Sequence[tuple[float, float]], plan: Plan
) -> Iterator[_Job]:
    for device in dict.fromkeys(problems[number].x_train_ND.device for number in numbers):
        own = [number for number in numbers if problems[number].x_train_ND.device == device]
        yield from _chunks(problems, own, candidates, plan, len(own), _SHARE * torch.cuda.mem_get_info(device)[0])


def _chunks(
    problems: Sequence[Problem],
    numbers: Sequence[int],
    candidates: Sequence[tuple[float, float]],
    plan: Plan,
    most: int,
    room_bytes: float,
) -> Iterator[_Job]:
    """Problems that are alike, with all candidates: at most so many, and no more than fit, but one at least."""
    every = range(len(candidates))
    for alike in _alike(problems, numbers):
        chunk: list[int] = []
        for number in alike:
            larger = _job(problems, [*chunk, number], every, candidates, plan)
            if chunk and (len(chunk) >= most or larger.size_bytes > room_bytes):
                yield _job(problems, chunk, every, candidates, plan)
                chunk = []
            chunk.append(number)
        yield _job(problems, chunk, every, candidates, plan)


def _alike(problems: Sequence[Problem], numbers: Sequence[int]) -> list[list[int]]:
    """Problems that can be stepped together, those with as many columns in a row."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number in sorted(numbers, key=lambda number: problems[number].x_train_ND.shape[1]):
        each = problems[number]
        key = (len(each.y_train_N), len(each.y_validation_M), each.num_classes)
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def _job(
    problems: Sequence[Problem],
    numbers: Sequence[int],
    chosen: Sequence[int],
    candidates: Sequence[tuple[float, float]],
    plan: Plan,
) -> _Job:
    places = tuple((number, candidate) for number in numbers for candidate in chosen)
    settings = tuple(
        Setting(problem=place, rate=candidates[candidate][0], decay=candidates[candidate][1])
        for place in range(len(numbers))
        for candidate in chosen
    )
    size_bytes = sum(_size_bytes(problems[number], plan, len(chosen)) for number in numbers)
    return _Job(problems=tuple(numbers), settings=settings, places=places, size_bytes=size_bytes)


def _size_bytes(problem: Problem, plan: Plan, num_heads: int) -> int:
    """About: float32 rows, a batch of them, and what each head keeps."""
    num_columns = problem.x_train_ND.shape[1]
    rows = len(problem.y_train_N) + len(problem.y_validation_M) + plan.batch_size
    sizes = [num_columns, *plan.widths, problem.num_classes]
    weights = sum((below + 1) * units for below, units in itertools.pairwise(sizes))
    passed = 6 * plan.batch_size * sum(sizes[1:])
    return 4 * (rows * num_columns + num_heads * (_STATES * weights + passed))


def _num_threads() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cores(), int(said)) if said.isdigit() and int(said) > 0 else available_cores()
