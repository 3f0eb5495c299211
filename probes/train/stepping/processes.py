"""The processes of a run: one, or as many as `torchrun` started, through accelerate."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fovcache.builder.request import pick_device
from fovcache.errors import UsageError

from ..settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

_OWN_DEVICE = "ACCELERATE_TORCH_DEVICE"


def num_ranks() -> int:
    """Processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


class Processes:
    """This process among the run's, on its device."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.rank: int = accelerator.process_index
        self.num: int = accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number, over all processes, in float64."""
        if self.num == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        return list(self.accelerator.reduce(tensor, "sum").tolist())

    def texts(self, text: str) -> list[str]:
        """Each process's, in the order of the ranks."""
        if self.num == 1:
            return [text]
        encoded = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(self.device)
        lengths = self.accelerator.gather(torch.tensor([len(encoded)], device=self.device)).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8, device=self.device)
        padded[: len(encoded)] = encoded
        rows = self.accelerator.gather(padded[None]).cpu()
        return [bytes(row[:length].tolist()).decode() for row, length in zip(rows, lengths, strict=True)]

    def wait(self) -> None:
        """Until all have come here."""
        self.accelerator.wait_for_everyone()


@contextmanager
def open_processes(settings: TrainSettings, device: str) -> Iterator[Processes]:
    """The processes, with an accelerator of the settings' precision; between runs nothing of it stays but the group.

    Raises UsageError for a device or a precision that cannot be had, EnvironmentFailure.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    chosen, num = pick_device(device), num_ranks()
    _check(settings, device, chosen, num)
    AcceleratorState._reset_state(reset_partial_state=num == 1)  # or an earlier run's precision and device would hold
    before = os.environ.get(_OWN_DEVICE)
    if num == 1:
        os.environ[_OWN_DEVICE] = str(chosen)
    try:
        accelerator = Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision={"fp32": "no"}.get(settings.precision, settings.precision),
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the trainer cuts its own
            kwargs_handlers=[DistributedDataParallelKwargs()],
        )
    except ValueError as error:
        raise UsageError(f"precision = {settings.precision!r} on {chosen}: {error}") from error
    finally:
        if num == 1:
            _put_back(before)
    if num > 1:
        atexit.register(_leave_group)
    try:
        yield Processes(accelerator)
    finally:
        if chosen.type != "cpu":
            accelerator.free_memory()  # collects garbage too, which takes a while
        AcceleratorState._reset_state(reset_partial_state=num == 1)


def _check(settings: TrainSettings, name: str, device: torch.device, num: int) -> None:
    if settings.precision == "fp16" and device.type != "cuda":
        raise UsageError(
            f"precision = 'fp16' needs a CUDA device, and the run has {device}: choose bf16 or fp32, or another device"
        )
    if settings.batch_size % num:
        raise UsageError(f"batch_size = {settings.batch_size} is not a multiple of the {num} processes; change either")
    if num > 1 and (":" in name or device.type == "mps"):
        raise UsageError(f"device = {name!r} with {num} processes: torchrun gives each its own, say auto, cpu or cuda")


def _put_back(before: str | None) -> None:
    if before is None:
        del os.environ[_OWN_DEVICE]
    else:
        os.environ[_OWN_DEVICE] = before


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
