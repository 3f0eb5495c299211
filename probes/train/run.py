"""One training run: an arm on a task with a seed, planned, trained, and taken up again where it was stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fovcache.builder.progress import OnProgress, silent
from fovcache.errors import EnvironmentFailure, UsageError
from fovcache.extract.taps import is_out_of_memory
from fovcache.trainable import Trainable
from fovcache.typed_json import revive

from .config import TrainConfig
from .feed import Feed, FeedBatch
from .feeds.kinds import open_feed
from .plan import make_plan
from .result import BASE, DONE, LOG_FILE, MAIN, RUN_FILE, STOPPED, ParameterGroup, Plan, Run, read_run
from .saving.checkpoint import TrainState, last_checkpoint, load_checkpoint, read_state, rotate
from .saving.identity import check_same
from .saving.random_states import put_back_random, seed_all
from .saving.run_files import (
    CHECKPOINTS_FOLDER,
    has_run,
    make_run_folder,
    plan_folder,
    read_identity,
    remove_plan,
    write_identity,
    write_run,
)
from .settings import TrainSettings
from .stepping.attention import attention_maps
from .stepping.audit import audit, choose_parts
from .stepping.gauges import Gauges
from .stepping.log import RunLog, cut_log
from .stepping.loop import Loop
from .stepping.processes import Processes, open_processes
from .stepping.step_record import DoesNotFitError, NonFiniteError
from .stepping.stop_signals import StopSignals
from .stepping.trackers import Trackers, check_trackers
from .stepping.trainer import Trainer
from .stepping.warmup import Ahead, measure

logger = logging.getLogger(__name__)

OnPlan = Callable[[Plan], None]


def unheard(plan: Plan) -> None:
    """Nobody reads it."""


def train_run(
    config: TrainConfig,
    folder: Path,
    *,
    seed: int,
    arm: str = BASE,
    task: str = MAIN,
    resume: bool = False,
    plan_only: bool = False,
    on_progress: OnProgress = silent,
    on_plan: OnPlan = unheard,
) -> Run:
    """Train as configured, in `folder`: `run.json`, `log.jsonl`, `checkpoints/`. Every process of a run calls this.

    A run that is done already is not done again: what it came to is read. One that was stopped goes on with `resume`,
    to the same bits (on the CPU) as if it had not been stopped. SIGINT and SIGTERM finish the step, save, and give a
    run whose state is `stopped`. A loss that is not finite gives one that `failed`. With `plan_only` nothing is
    trained nor left in the folder, and the run has a plan alone.

    Raises UsageError for a configuration that does not fit the cache, the machine or the run in the folder;
    DamageError; EnvironmentFailure for full disks and memory, naming the last good checkpoint.
    """
    started = time.perf_counter()
    check_trackers(config.train.trackers)
    if config.train.warmup_samples >= config.train.samples:
        logger.warning(
            "warmup_samples is %d and samples %d: the learning rate never reaches %g",
            config.train.warmup_samples,
            config.train.samples,
            config.train.learning_rate,
        )
    trainable = config.trainable()
    with ExitStack() as stack:
        processes = stack.enter_context(open_processes(config.train, config.device))
        feed = open_feed(
            config,
            trainable.needs(),
            seed=seed,
            device=processes.device,
            rank=processes.rank,
            num_ranks=processes.num,
            folder=folder,
        )
        stack.callback(feed.close)
        document = {**config.document(), "device": processes.device.type}
        named = RunName(arm=arm, task=task, seed=seed)
        how = How(resume=resume, plan_only=plan_only, on_progress=on_progress, on_plan=on_plan, started=started)
        return train(trainable, feed, config.train, processes, folder, named, document, how)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """Which run of its suite it is."""

    arm: str = BASE
    """Its arm."""
    task: str = MAIN
    """Its task."""
    seed: int = 0
    """Of initialisation, order and all that is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a run is gone about; nothing of it changes what it comes to."""

    resume: bool = False
    """Whether to go on with what there is."""
    plan_only: bool = False
    """Whether to stop after the plan."""
    on_progress: OnProgress = silent
    """Told twice a second at most."""
    on_plan: OnPlan = unheard
    """Told before training."""
    started: float | None = None
    """On `time.perf_counter`; None for now."""
    with_plan: bool = True
    """Whether to measure for a plan, before a run that is not taken up again."""


def train(
    trainable: Trainable,
    feed: Feed,
    settings: TrainSettings,
    processes: Processes,
    folder: Path,
    named: RunName,
    document: Mapping[str, Any],
    how: How = How(),
) -> Run:
    """`train_run` on a feed that is open and under processes that are; `document` is the configuration's."""
    started = time.perf_counter() if how.started is None else how.started
    identity = {**document, "seed": named.seed, "arm": named.arm, "task": named.task}
    identity |= {f"feed.{name}": value for name, value in feed.document().items()}
    if feed.num_validation < processes.num:
        raise UsageError(f"{feed.num_validation} validation samples for {processes.num} processes: expected one each")
    done = None if how.plan_only else _earlier(folder, identity, resume=how.resume)
    if done is not None:
        return done
    checkpoint = None if how.plan_only else last_checkpoint(folder / CHECKPOINTS_FOLDER)
    state = None if checkpoint is None else read_state(checkpoint)
    if state is not None:
        check_same(state.identity, identity)
        feed.load_state(state.feed)
    if processes.is_first:
        remove_plan(folder)
    processes.wait()  # until all have seen what there is, before one of them writes

    seed_all(named.seed, processes.rank)
    gauges = Gauges(processes.device)
    batches = Ahead(feed.train_batches(0 if state is None else state.samples_seen))
    module = trainable.build(feed.inputs, named.seed).to(processes.device)
    choose_parts(module, trainable, settings)
    is_over = state is not None and state.steps >= settings.num_steps  # and a stream may have nothing more
    parameters = _audited(module, next(iter(feed.validation_batches())) if is_over else batches.next_ahead())
    seed_all(named.seed, processes.rank)  # whatever building drew
    has_unused = any(group.unused for group in parameters)
    trainer = Trainer(module, feed, settings, processes, has_unused=has_unused)
    loop = Loop(
        trainer, feed, settings, processes, gauges, folder=folder, identity=identity, on_progress=how.on_progress
    )
    if state is not None and checkpoint is not None:
        load_checkpoint(checkpoint, module=module, optimizer=trainer.optimizer)
        loop.take_up(state)
        loop.last_good = checkpoint
        put_back_random(state.random[processes.rank], processes.device)
    elif how.with_plan or how.plan_only:
        plan = _planned(loop, trainer, batches, gauges, settings, processes, folder, started)
        gauges.forget_peak()
        if plan is not None:
            loop.plan = asdict(plan)
            if processes.is_first:
                how.on_plan(plan)
    if how.plan_only:
        return _result(loop, trainer, feed, gauges, named, parameters, (STOPPED, "planned, not trained"), 0.0)

    with ExitStack() as stack:
        if processes.is_first:
            _open_files(loop, folder, settings, identity, state, stack)
        signals = stack.enter_context(StopSignals(is_alone=processes.num == 1))
        before_s = time.perf_counter() - started
        ended = loop.run(batches, signals)
    if ended[0] == STOPPED:
        ended = (STOPPED, f"{ended[1]}: the same command with --resume goes on from there")
    run = _result(loop, trainer, feed, gauges, named, parameters, ended, before_s)
    if processes.is_first:
        write_run(folder, run)
    processes.wait()
    return run


def _earlier(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> Run | None:
    """The run that is done here already; None to begin or go on. Raises UsageError."""
    if not has_run(folder):
        return None
    before = read_identity(folder)
    if before is not None:
        check_same(before, identity)
    path = folder / RUN_FILE
    run = read_run(path) if path.exists() else None
    if run is not None and run.state == DONE and before is not None:
        return run
    if not resume:
        what = (
            "an unfinished run" if run is None else f"a run that {'was stopped' if run.state == STOPPED else 'failed'}"
        )
        raise UsageError(f"{folder} has {what}: go on with it by --resume, or choose another folder")
    return None


def _audited(module: nn.Module, batch: FeedBatch) -> tuple[ParameterGroup, ...]:
    """By few samples, which show where gradients go; by fewer where they do not fit. Raises EnvironmentFailure."""
    for num in (8, 4, 2, 1):
        try:
            return audit(module, {name: each[:num] for name, each in batch.tensors.items()})
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    raise EnvironmentFailure("out of memory before the first step, with a single sample: choose a smaller model")


def _planned(
    loop: Loop,
    trainer: Trainer,
    batches: Ahead,
    gauges: Gauges,
    settings: TrainSettings,
    processes: Processes,
    folder: Path,
    started: float,
) -> Plan | None:
    """By a warm-up; None where its steps fail, as the run's own will."""
    try:
        with plan_folder(folder, processes.rank) as scratch:
            warmup = measure(
                trainer,
                batches,
                settings,
                gauges,
                folder=scratch,
                tell=loop.tell,
                save=lambda where: loop.write_checkpoint(where, keep=1),
                started=started,
                is_alone=processes.num == 1,
            )
    except (NonFiniteError, DoesNotFitError) as error:
        logger.warning("there is no plan, since the warm-up failed: %s", error)
        return None
    return make_plan(settings, warmup)


def _open_files(
    loop: Loop,
    folder: Path,
    settings: TrainSettings,
    identity: Mapping[str, Any],
    state: TrainState | None,
    stack: ExitStack,
) -> None:
    """What the process that writes has, until the stack is left."""
    make_run_folder(folder)
    write_identity(folder, identity)
    samples_seen = -1 if state is None else state.samples_seen
    cut_log(folder / LOG_FILE, samples_seen)
    if state is not None:
        rotate(folder / CHECKPOINTS_FOLDER, samples_seen, settings.keep)  # where the last one was killed at it
    loop.log = RunLog(folder / LOG_FILE)
    stack.callback(loop.log.close)
    loop.trackers = Trackers(settings.trackers, folder, identity, samples_seen=max(0, samples_seen))
    stack.callback(loop.trackers.close)


def _result(
    loop: Loop,
    trainer: Trainer,
    feed: Feed,
    gauges: Gauges,
    named: RunName,
    parameters: tuple[ParameterGroup, ...],
    ended: tuple[str, str],
    before_s: float,
) -> Run:
    gauges.read(at_once=True)
    state, reason = ended
    return Run(
        arm=named.arm,
        task=named.task,
        seed=named.seed,
        state=state,
        reason=reason,
        samples_seen=trainer.samples_seen,
        steps=trainer.steps,
        evaluations=tuple(loop.evaluations),
        validation_hash=feed.validation_hash,
        num_validation=feed.num_validation,
        parameters=parameters,
        samples_per_second=loop.samples_per_second,
        data_wait_share=loop.data_wait_share,
        kernel_active_share=gauges.mean_kernel_active_share,
        peak_memory_bytes=gauges.peak_memory_bytes,
        num_resumed=loop.num_resumed,
        spent=loop.spent(before_s),
        plan=None if loop.plan is None else revive(Plan, loop.plan),
        events=(*loop.events, *feed.notes),
        attention=attention_maps(trainer.module, feed, gauges.device) if state == DONE else (),
    )
