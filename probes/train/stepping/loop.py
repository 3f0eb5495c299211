"""The loop: steps until all samples are seen, with evaluations, checkpoints, a log, and an orderly end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress
from fovcache.errors import EnvironmentFailure, FovcacheError, UsageError
from fovcache.trainable import LOSS
from fovcache.typed_json import revive

from ..feed import Feed, FeedBatch
from ..result import DONE, FAILED, STOPPED, Evaluation, Spent
from ..saving.checkpoint import TrainState, save_checkpoint
from ..saving.random_states import RandomStates, take_random
from ..saving.run_files import BEFORE_FAILURE_FOLDER, CHECKPOINTS_FOLDER
from ..settings import TrainSettings
from .gauges import Gauges
from .log import EVALUATION, EVENT, STEP, RunLog
from .processes import Processes
from .step_record import DoesNotFitError, NonFiniteError, StepRecord
from .stop_signals import StopSignals
from .trackers import Trackers
from .trainer import Trainer

logger = logging.getLogger(__name__)

_SHOW_EVERY_S = 0.5


class Loop:
    """One run, from where its trainer is to its end."""

    def __init__(
        self,
        trainer: Trainer,
        feed: Feed,
        settings: TrainSettings,
        processes: Processes,
        gauges: Gauges,
        *,
        folder: Path,
        identity: Mapping[str, Any],
        on_progress: OnProgress,
    ) -> None:
        """`folder` is the run's, which there is."""
        self.evaluations: list[Evaluation] = []
        self.events: list[str] = []
        self.num_resumed = 0
        self.saved_at: int | None = None
        """Samples seen at the last checkpoint."""
        self.last_good: Path | None = None
        """That checkpoint."""
        self.plan: Mapping[str, Any] | None = None
        """What was planned, as JSON."""
        self.log: RunLog | None = None
        """Of the process that writes."""
        self.trackers: Trackers | None = None
        """Likewise."""
        self._trainer, self._feed, self._settings, self._processes = trainer, feed, settings, processes
        self._gauges, self._folder, self._identity, self._on_progress = gauges, folder, identity, on_progress
        self._compute_s = self._data_s = self._evaluation_s = self._checkpoint_s = 0.0
        self._lasted_s = 0.0
        self._began_with = 0
        self._shown_at = 0.0
        trainer.on_event = self.add_event

    # What was

    def take_up(self, state: TrainState) -> None:
        """Go on from what a checkpoint says; the trainer was filled from it."""
        self._trainer.steps, self._trainer.samples_seen = state.steps, state.samples_seen
        self._trainer.micro_batch_size = state.loop.get("micro_batch_size")
        if self._trainer.scaler is not None and state.loss_scale is not None:
            self._trainer.scaler.load_state_dict(dict(state.loss_scale))
        self.evaluations, self.events = list(state.evaluations), list(state.events)
        self.num_resumed = state.num_resumed + 1
        self.plan = state.loop.get("plan")
        self.saved_at = state.samples_seen

    def add_event(self, text: str) -> None:
        """Something that a reader should know, into the result and the log."""
        logger.warning("%s", text)
        self.events.append(text)
        if self.log is not None:
            self.log.add(EVENT, self._trainer.samples_seen, {"text": text})

    def state(self) -> TrainState:
        """Where the run is; all processes ask together."""
        own = json.dumps(asdict(take_random(self._processes.device)))
        scaler = self._trainer.scaler
        return TrainState(
            samples_seen=self._trainer.samples_seen,
            steps=self._trainer.steps,
            num_resumed=self.num_resumed,
            evaluations=tuple(self.evaluations),
            events=tuple(self.events),
            feed=self._feed.state(),
            loss_scale=None if scaler is None else scaler.state_dict(),
            random=tuple(revive(RandomStates, json.loads(each)) for each in self._processes.texts(own)),
            loop={"micro_batch_size": self._trainer.micro_batch_size, "plan": self.plan},
            identity=self._identity,
        )

    def spent(self, before_s: float) -> Spent:
        """Of what this process has done, `before_s` of it before the loop."""
        parts_s = self._compute_s + self._data_s + self._evaluation_s + self._checkpoint_s
        return Spent(
            compute_s=self._compute_s,
            data_s=self._data_s,
            evaluation_s=self._evaluation_s,
            checkpoint_s=self._checkpoint_s,
            other_s=before_s + max(0.0, self._lasted_s - parts_s),
        )

    @property
    def training_s(self) -> float:
        """Wall time of the loop without evaluations and checkpoints."""
        return max(1e-9, self._lasted_s - self._evaluation_s - self._checkpoint_s)

    @property
    def samples_per_second(self) -> float:
        """Of that time."""
        return (self._trainer.samples_seen - self._began_with) / self.training_s

    @property
    def data_wait_share(self) -> float:
        """Of that time."""
        return self._data_s / self.training_s

    # What is done

    def run(self, batches: Iterable[FeedBatch], signals: StopSignals) -> tuple[str, str]:
        """Go on to the end; the state that the run is then in, and why.

        Raises EnvironmentFailure for memory and disks that do not suffice, and what the feed and the module raise.
        """
        self._began_with = self._trainer.samples_seen
        began = time.perf_counter()
        try:
            return self._run(iter(batches), signals)
        except NonFiniteError as error:
            return FAILED, self._failed(str(error))
        except DoesNotFitError as error:
            raise EnvironmentFailure(f"step {self._trainer.steps + 1}: {error}; {self._last_good_said}") from error
        finally:
            self._lasted_s = time.perf_counter() - began

    def _run(self, batches: Iterator[FeedBatch], signals: StopSignals) -> tuple[str, str]:
        trainer, total = self._trainer, self._settings.num_steps
        while True:
            self._evaluate_if_due(signals)
            if self._is_due(self._settings.checkpoint_every) and trainer.samples_seen:
                self._save()
            if trainer.steps >= total and self._is_evaluated:
                return DONE, ""
            if self._is_stopped(signals):
                self._save()
                return STOPPED, f"{signals.name or 'a signal'} after {trainer.samples_seen:,} samples, which are saved"
            began = time.perf_counter()
            batch = self._next(batches)
            fetched = time.perf_counter()
            record = trainer.step(batch)
            ended = time.perf_counter()
            self._data_s += fetched - began
            self._compute_s += ended - fetched
            if self.log is not None:
                self.tell(self.log, record, fetched - began, ended - began)
                self._show(record)

    def _next(self, batches: Iterator[FeedBatch]) -> FeedBatch:
        """What was trained is saved where there are no more: a stream that ended. Streams have one process."""
        try:
            return next(batches)
        except UsageError:
            if self._processes.num == 1:
                self._save()
                logger.warning("no more samples can be had: %s", self._last_good_said)
            raise

    @property
    def _is_evaluated(self) -> bool:
        """As it is now."""
        return bool(self.evaluations) and self.evaluations[-1].samples_seen == self._trainer.samples_seen

    def _is_due(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every`, or was the last one, or none was yet."""
        seen, size = self._trainer.samples_seen, self._settings.batch_size
        return not seen or seen // every > (seen - size) // every or self._trainer.steps == self._settings.num_steps

    def _is_stopped(self, signals: StopSignals) -> bool:
        return self._processes.sums([float(signals.name is not None)])[0] > 0

    def _evaluate_if_due(self, signals: StopSignals) -> None:
        if self._is_evaluated or not self._is_due(self._settings.evaluate_every):
            return
        began = time.perf_counter()
        is_alone = self._processes.num == 1
        found = self._trainer.evaluate(lambda: is_alone and signals.name is not None)
        self._evaluation_s += time.perf_counter() - began
        if found is None:
            return
        self.evaluations.append(found)
        if self.log is not None:
            self.log.add(EVALUATION, found.samples_seen, {"values": dict(found.values), "seconds": found.seconds})
        if self.trackers is not None:
            self.trackers.add("validation", found.samples_seen, found.values)

    def tell(self, log: RunLog, record: StepRecord, waited_s: float, lasted_s: float) -> None:
        """Log a step that lasted so long, of which it was waited so long for its batch."""
        self._gauges.read()
        numbers = {
            "learning_rate": record.learning_rate,
            "gradient_norm": record.gradient_norm,
            "samples_per_second": self._settings.batch_size / lasted_s,
            "data_wait_share": waited_s / lasted_s,
            "kernel_active_share": self._gauges.kernel_active_share,
            "peak_memory_bytes": self._gauges.peak_memory_bytes,
        }
        log.add(STEP, record.samples_seen, {"step": record.step, "values": record.values, **numbers})
        if self.trackers is not None:
            self.trackers.add("train", record.samples_seen, {**record.values, **numbers})

    def _show(self, record: StepRecord) -> None:
        now = time.monotonic()
        total = self._settings.num_steps * self._settings.batch_size
        if now - self._shown_at >= _SHOW_EVERY_S or record.samples_seen == total:
            self._shown_at = now
            note = f"loss {record.values[LOSS]:.4g}"
            self._on_progress(Progress(stage="train", done=record.samples_seen, total=total, note=note))

    # What is kept

    def write_checkpoint(self, folder: Path, *, keep: int) -> Path:
        """One of the state as it is, by the process that writes; the others are told when it could not."""
        state = self.state()
        path, failure = folder, None
        if self._processes.is_first:
            try:
                path = save_checkpoint(
                    folder, module=self._trainer.module, optimizer=self._trainer.optimizer, state=state, keep=keep
                )
            except EnvironmentFailure as error:
                failure = error
        num_failed = self._processes.sums([float(failure is not None)])[0]
        if failure is not None:
            raise failure
        if num_failed:
            raise EnvironmentFailure(f"the first process could not write a checkpoint in {folder}")
        return path

    def _save(self) -> None:
        if self.saved_at == self._trainer.samples_seen:
            return
        began = time.perf_counter()
        if self.log is not None:
            self.log.flush()
        self.last_good = self.write_checkpoint(self._folder / CHECKPOINTS_FOLDER, keep=self._settings.keep)
        self.saved_at = self._trainer.samples_seen
        self._checkpoint_s += time.perf_counter() - began

    @property
    def _last_good_said(self) -> str:
        return (
            "there is no checkpoint yet" if self.last_good is None else f"the last good checkpoint is {self.last_good}"
        )

    def _failed(self, what: str) -> str:
        """Keep the state before a step that was not made; why the run ends."""
        where = f"step {self._trainer.steps + 1}, after {self._trainer.samples_seen:,} samples"
        reason = f"{where}: {what}; {self._last_good_said}"
        try:
            kept = self.write_checkpoint(self._folder / BEFORE_FAILURE_FOLDER, keep=1)
            reason += f"; the state before that step is in {kept}"
        except FovcacheError as error:
            reason += f"; the state before that step could not be written: {error}"
        if self.log is not None:
            self.log.add(EVENT, self._trainer.samples_seen, {"text": reason})
        return reason
