"""What a suite knows of its runs' folders: how far each is, and what is left of one whose process is gone."""

from __future__ import annotations

from pathlib import Path

from fovcache.builder.request import pick_device
from fovcache.errors import DamageError, UsageError

from ..config import TrainConfig
from ..result import DONE, FAILED, RUN_FILE, STOPPED, Run, Spent, read_run
from ..saving.identity import check_same
from ..saving.run_files import CHECKPOINTS_FOLDER, has_run, read_identity, write_run
from .suite_config import Cell

_FEED = "feed."
_NAMES = ("seed", "arm", "task")


def check_configuration(folder: Path, config: TrainConfig) -> None:
    """Raises UsageError that names the settings in which the run of a folder was begun otherwise; DamageError.

    Of a run that is done the device does not count: it may be judged elsewhere.
    """
    identity = read_identity(folder)
    if identity is None:
        return
    saved = {name: value for name, value in identity.items() if not name.startswith(_FEED) and name not in _NAMES}
    now = {**config.document(), "device": saved.get("device")}
    run = found_run(folder)
    if run is None or run.state != DONE:
        now["device"] = pick_device(config.device).type
    try:
        check_same(saved, now)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from None


def feed_document(folder: Path) -> dict[str, object]:
    """What the run's batches were decided by; empty where none began."""
    identity = read_identity(folder) or {}
    return {name.removeprefix(_FEED): value for name, value in identity.items() if name.startswith(_FEED)}


def found_run(folder: Path) -> Run | None:
    """What was written of a run; None where nothing was yet. Raises UsageError for what is none."""
    path = folder / RUN_FILE
    return read_run(path) if path.exists() else None


def is_begun(folder: Path) -> bool:
    """Whether there is something to go on with, or to be taken away."""
    return has_run(folder)


def dead_run(folder: Path, cell: Cell, reason: str, *, is_stopped: bool) -> Run:
    """What is to be shown of a run whose process ended without saying what the run came to: as its last checkpoint has
    it, and why it ended. It is written in the folder if a run began there.

    One that was done is done, however its process ended afterwards.
    """
    before = found_run(folder)
    if before is not None and before.state == DONE:
        return before
    run = _last_saved(folder, cell, STOPPED if is_stopped else FAILED, reason)
    if has_run(folder):
        write_run(folder, run)
    return run


def _last_saved(folder: Path, cell: Cell, state: str, reason: str) -> Run:
    from ..saving.checkpoint import TrainState, last_checkpoint, read_state

    saved = TrainState(samples_seen=0, steps=0)
    try:
        path = last_checkpoint(folder / CHECKPOINTS_FOLDER)
        if path is not None:
            saved = read_state(path)
            reason += f"; its last checkpoint is of {saved.samples_seen:,} samples"
    except DamageError as error:
        reason += f"; {error}"
    return Run(
        arm=cell.arm,
        task=cell.task,
        seed=cell.seed,
        state=state,
        reason=reason,
        samples_seen=saved.samples_seen,
        steps=saved.steps,
        evaluations=saved.evaluations,
        validation_hash=str(feed_document(folder).get("validation_hash", "")),
        num_validation=0,
        parameters=(),
        samples_per_second=0.0,
        data_wait_share=0.0,
        kernel_active_share=None,
        peak_memory_bytes=0,
        num_resumed=saved.num_resumed,
        spent=Spent(compute_s=0.0, data_s=0.0, evaluation_s=0.0, checkpoint_s=0.0, other_s=0.0),
        events=saved.events,
    )
