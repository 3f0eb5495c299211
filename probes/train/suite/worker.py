"""A process that does one training run, and ends: whatever becomes of it, other runs go on.

    python -m fovcache.probes.train.suite.worker

is started by run_processes.py; lines of JSON come in and go out.

Its standard input stays open as long as the run is wanted. When it closes, the run saves and ends, as for SIGTERM.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress
from fovcache.child_process import private_pipes
from fovcache.console import set_up_cpu
from fovcache.errors import FovcacheError
from fovcache.typed_json import revive

from ...running.answers import Answers, Told, error_document, first_to_go
from ...running.result_folder import LOCK_FILE, lock_file
from ..config import TrainConfig
from ..result import Plan, Run

TELL_EVERY_S = 0.2


def request(
    config: TrainConfig, folder: Path, *, seed: int, arm: str, task: str, resume: bool, plan_only: bool
) -> dict[str, Any]:
    """What is asked of the process, as JSON."""
    return {
        "config": {**asdict(config), "folder": None},
        "config_folder": str(config.folder.absolute()),
        "folder": str(folder.absolute()),
        "options": {"seed": seed, "arm": arm, "task": task, "resume": resume, "plan_only": plan_only},
        "level": logging.getLogger("fovcache").getEffectiveLevel(),
    }


def main() -> None:
    """Do the run that is asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks decides what a Ctrl-C means
    set_up_cpu()
    first_to_go()
    requests, pipe = private_pipes()
    answers = Answers(pipe, on_gone=lambda: None)  # the run is told by its input, and saves
    logger = logging.getLogger("fovcache")
    logger.addHandler(Told(answers))
    logging.getLogger("py.warnings").addHandler(Told(answers))
    logging.captureWarnings(capture=True)
    message = json.loads(requests.readline())
    logger.setLevel(message["level"])
    threading.Thread(target=_end_with, args=(requests,), daemon=True).start()
    try:
        run = _run(message, _teller(answers), lambda plan: answers.send({"plan": asdict(plan)}))
        answers.send({"run": run.document()})
    except FovcacheError as error:
        answers.send({"error": error_document(error)})


def _run(message: Mapping[str, Any], on_progress: OnProgress, on_plan: Callable[[Plan], None]) -> Run:
    from ..run import train_run

    fields = {name: value for name, value in message["config"].items() if name != "folder"}
    folder = Path(message["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("ab") as lock:
        lock_file(lock, folder)  # a process whose command was killed may still be saving
        config = replace(revive(TrainConfig, fields), folder=Path(message["config_folder"]))
        return train_run(config, folder, on_progress=on_progress, on_plan=on_plan, **message["options"])


def _teller(answers: Answers) -> OnProgress:
    told_at = -TELL_EVERY_S

    def tell(progress: Progress) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= TELL_EVERY_S or progress.done == progress.total:
            told_at = now
            answers.send({"progress": asdict(progress)})

    return tell


def _end_with(requests: BufferedIOBase) -> None:
    """Waits until nobody wants the run any more."""
    try:
        requests.read()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
