"""One step, and one evaluation, of a module: what the loop repeats.

Axes: B samples of this process's share of a step, V values that the module says of each.
"""

from __future__ import annotations

import copy
import gc
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import nn

from fovcache.extract.taps import is_out_of_memory
from fovcache.trainable import LOSS

from ..feed import Feed, FeedBatch
from ..result import Evaluation
from ..saving.random_states import own_random, put_back_random, take_random
from ..settings import HALVE, TrainSettings
from .optimiser import make_optimiser
from .processes import Processes
from .sample_values import check_values, means, stacked
from .schedule import learning_rate
from .step_record import Before, DoesNotFitError, NonFiniteError, Snapshot, StepRecord

logger = logging.getLogger(__name__)

_EVALUATION_SEED = 0x5EED
"""Of what the module draws while it is evaluated: the same each time, in every run."""
_ALIGNMENT_BYTES = 64
"""Where tensors begin that torch makes itself."""
_MOST_LEFT_OUT = 25
"""Steps in a row that float16 may leave out while the loss scale finds its place."""


class Trainer:
    """Steps and evaluations of a module that lies on the device already, with its parts chosen."""

    def __init__(
        self,
        module: nn.Module,
        feed: Feed,
        settings: TrainSettings,
        processes: Processes,
        *,
        has_unused: bool = False,
    ) -> None:
        """`has_unused` says whether parameters that could be trained get no gradient."""
        self.module = module
        self.on_event: Callable[[str], None] = logger.warning
        """Told in a line what readers of the result should know."""
        self.steps = self.samples_seen = 0
        self.micro_batch_size = settings.micro_batch_size
        self._feed, self._settings, self._processes = feed, settings, processes
        self._accelerator, self._device = processes.accelerator, processes.device
        self.scaler: torch.amp.GradScaler | None = self._accelerator.scaler
        """Of float16's losses."""
        self._num_left_out = 0
        self._is_checked = False
        self.optimizer = make_optimiser(module, settings)
        kept = module.state_dict(keep_vars=True).values()
        self._buffers = [each for each in kept if isinstance(each, torch.Tensor) and not isinstance(each, nn.Parameter)]
        if self._accelerator.ddp_handler is not None:
            self._accelerator.ddp_handler.find_unused_parameters = has_unused
            # What no state dict holds never changes, and can be large: a frozen encoder's layers.
            self._accelerator.ddp_handler.broadcast_buffers = bool(self._buffers)
        self._wrapped = self._accelerator.prepare_model(module)
        self._accelerator.prepare_optimizer(self.optimizer)  # so that clipping knows of the loss scale
        if settings.compile:
            module.compile()  # in place: parameters keep their names
        self._trained = [each for each in module.parameters() if each.requires_grad]
        module.train()

    # Steps

    def step(self, batch: FeedBatch) -> StepRecord:
        """Descend by the mean loss of the whole step's samples, of which `batch` is this process's share.

        Raises NonFiniteError and DoesNotFitError, each with everything as before the step, and what the module raises.
        """
        rate = self._set_rate()
        before = self._before()
        while True:
            said = ""
            try:
                values, norm = self._gradients(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                said = _first_line(error)
            if not said:
                break
            # Out of the handler, whose traceback held the tensors of what did not fit.
            self._undo(before)
            self._halve(len(batch), said, f"at step {self.steps + 1}")
        wrong = self._wrong(values[LOSS], norm)
        if wrong:
            self._undo(before)
            raise NonFiniteError(wrong)
        was_left_out = self._descend(norm)
        self.steps += 1
        self.samples_seen += self._settings.batch_size
        if was_left_out:
            self.on_event(f"step {self.steps}: float16 gradients overflowed, its update was left out")
        return StepRecord(
            step=self.steps,
            samples_seen=self.samples_seen,
            values=values,
            learning_rate=rate,
            gradient_norm=norm,
            was_left_out=was_left_out,
        )

    def synchronize(self) -> None:
        """Until the device has done all it was given."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    def _set_rate(self) -> float:
        rate = learning_rate(self._settings, self.samples_seen)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _gradients(self, batch: FeedBatch) -> tuple[dict[str, float], float]:
        """The step's means, and its gradients' norm before they are clipped."""
        self.optimizer.zero_grad()
        share, size = len(batch), self.micro_batch_size or len(batch)
        names: tuple[str, ...] = ()
        parts: list[torch.Tensor] = []
        for start in range(0, share, size):
            is_last = start + size >= share
            with nullcontext() if is_last else self._accelerator.no_sync(self._wrapped):
                values = self._values(self._wrapped, batch, start, size)
                loss = values[LOSS].sum() / share
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            names = tuple(values)
            parts.append(stacked(values))
            del values, loss
        norm = self._clip().detach().float()
        read = torch.cat([*(each.reshape(-1) for each in parts), norm.reshape(1)]).cpu().numpy()  # one wait
        starts = np.cumsum([0, *(each.numel() for each in parts)])
        found = [read[start:][: each.numel()].reshape(each.shape) for start, each in zip(starts, parts, strict=False)]
        return means(names, found, self._processes), float(read[-1])

    def _values(self, module: nn.Module, batch: FeedBatch, start: int, size: int) -> dict[str, torch.Tensor]:
        """Of some of a batch's samples."""
        part = batch.tensors
        if size < len(batch):
            part = {name: each[start : start + size] for name, each in part.items()}
        values: dict[str, torch.Tensor] = module({name: _aligned(each) for name, each in part.items()})
        if not self._is_checked:
            check_values(values, min(size, len(batch) - start))
            self._is_checked = True
        return values

    def _clip(self) -> torch.Tensor:
        """Clip all gradients together; their norm before."""
        if self.scaler is not None:
            self._accelerator.unscale_gradients()
        if self._settings.clip_norm:
            return nn.utils.clip_grad_norm_(self._trained, self._settings.clip_norm)
        return nn.utils.get_total_norm([each.grad for each in self._trained if each.grad is not None])

    def _descend(self, norm: float) -> bool:
        """Update the parameters; whether that was left out."""
        if self.scaler is None:
            self.optimizer.step()
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        is_left_out = not math.isfinite(norm)
        self._num_left_out = self._num_left_out + 1 if is_left_out else 0
        return is_left_out

    def _wrong(self, loss: float, norm: float) -> str:
        """What must not be descended by, in words; empty for nothing."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if math.isfinite(norm) or (self.scaler is not None and self._num_left_out < _MOST_LEFT_OUT):
            return ""
        return f"the gradients' norm is {norm}" + (f", {_MOST_LEFT_OUT} steps in a row" if self.scaler else "")

    def _before(self) -> Before:
        """Of torch's generators alone, which modules draw from: the others' states take longer to copy."""
        accelerator = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return Before(
            random=torch.get_rng_state(), accelerator=accelerator, buffers=[each.clone() for each in self._buffers]
        )

    def _undo(self, before: Before) -> None:
        """Everything as before the step, or the batch of an evaluation."""
        self.optimizer.zero_grad()
        if self.scaler is not None:
            self.scaler._per_optimizer_states.clear()  # else the next step's gradients would pass for unscaled ones
        with torch.no_grad():
            for buffer, content in zip(self._buffers, before.buffers, strict=True):
                buffer.copy_(content)
        torch.set_rng_state(before.random)
        if before.accelerator is not None:
            torch.cuda.set_rng_state(before.accelerator, self._device)

    def _halve(self, most: int, said: str, where: str) -> None:
        """Make micro-batches of `most` samples half as large. Raises DoesNotFitError where that may not be."""
        size = min(self.micro_batch_size or most, most)
        if self._settings.out_of_memory != HALVE:
            raise DoesNotFitError(f'out of memory with micro-batches of {size}, and out_of_memory = "stop": {said}')
        if self._processes.num > 1:
            raise DoesNotFitError(
                f"out of memory with micro-batches of {size}, and {self._processes.num} processes cannot be halved one "
                f"by one: {said}"
            )
        if size == 1:
            raise DoesNotFitError(f"out of memory with a single sample at once: {said}")
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch_size = (size + 1) // 2
        self.on_event(f"out of memory {where} with micro-batches of {size}: done again with {self.micro_batch_size}")

    # Evaluations

    def evaluate(self, should_stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """The means over the whole validation set; None where `should_stop` says so between two batches.

        Whatever the batches' size each sample counts once. What the module draws at random is the same every time,
        and nothing of it is left afterwards. Raises NonFiniteError for the loss, DoesNotFitError.
        """
        started = time.perf_counter()
        parts: list[np.ndarray] = []
        names: tuple[str, ...] = ()
        with self._evaluating():
            for batch in self._feed.validation_batches():
                if should_stop():
                    return None
                names, found = self._evaluated(batch)
                parts += found
        values = means(names, parts, self._processes)
        if not math.isfinite(values[LOSS]):
            raise NonFiniteError(f"the validation loss is {values[LOSS]}")
        return Evaluation(
            samples_seen=self.samples_seen,
            values={name: value for name, value in values.items() if math.isfinite(value)},
            seconds=time.perf_counter() - started,
        )

    def evaluation_times_s(self, most: int) -> tuple[tuple[float, ...], int]:
        """How long batches of the validation set take, at most so many of them, and how many there are in all."""
        times_s: list[float] = []
        size = 1
        with self._evaluating():
            started = time.perf_counter()
            for batch in itertools.islice(self._feed.validation_batches(), most):
                self._evaluated(batch)
                times_s.append(time.perf_counter() - started)
                started = time.perf_counter()
                size = max(size, len(batch))
        return tuple(times_s), math.ceil(self._feed.num_validation / self._processes.num / size)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.module.eval()
        try:
            with own_random(_EVALUATION_SEED, self._processes.rank, self._device), torch.no_grad():
                yield
        finally:
            self.module.train()

    def _evaluated(self, batch: FeedBatch) -> tuple[tuple[str, ...], list[np.ndarray]]:
        """The values' names and, float32 [V, B] in parts, what they are of each sample."""
        before = self._before()
        while True:
            said = ""
            try:
                return self._evaluated_in_parts(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                said = _first_line(error)
            self._undo(before)
            self._halve(len(batch), said, f"in the evaluation after {self.samples_seen:,} samples")

    def _evaluated_in_parts(self, batch: FeedBatch) -> tuple[tuple[str, ...], list[np.ndarray]]:
        size = self.micro_batch_size or len(batch)
        names: tuple[str, ...] = ()
        found = []
        for start in range(0, len(batch), size):
            # The bare module: processes may have different numbers of batches here, and nothing to agree on.
            values = self._values(self.module, batch, start, size)
            names = tuple(values)
            found.append(stacked(values).cpu().numpy())
        return names, found

    # Copies

    def snapshot(self) -> Snapshot:
        """A copy of all that steps change."""
        return Snapshot(
            tensors={name: each.detach().clone() for name, each in self._tensors().items()},
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            scaler={} if self.scaler is None else self.scaler.state_dict(),
            random=take_random(self._device),
            steps=self.steps,
            samples_seen=self.samples_seen,
            micro_batch_size=self.micro_batch_size,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """As it was then, to the bit."""
        self.optimizer.zero_grad()
        with torch.no_grad():
            for name, each in self._tensors().items():
                each.copy_(snapshot.tensors[name])
        self.optimizer.load_state_dict(copy.deepcopy(dict(snapshot.optimizer)))
        if self.scaler is not None:
            self.scaler.load_state_dict(dict(snapshot.scaler))
        put_back_random(snapshot.random, self._device)
        self.steps, self.samples_seen = snapshot.steps, snapshot.samples_seen
        self.micro_batch_size = snapshot.micro_batch_size

    def _tensors(self) -> dict[str, torch.Tensor]:
        kept = self.module.state_dict()  # what it does not hold never changes
        buffers = {name: each for name, each in self.module.named_buffers() if name in kept}
        return {**dict(self.module.named_parameters()), **buffers}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """At the start of a cache line: where in one a matrix begins can change the last bits of a product of it, and
    batches lie elsewhere in memory when a run goes on, or when its features are not cached."""
    return tensor if tensor.data_ptr() % _ALIGNMENT_BYTES == 0 else tensor.clone()
