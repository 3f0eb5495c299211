"""A process that runs cells of ablations, until its standard input closes or it is killed.

python -m fovcache.probes.running.worker      (see isolate.py, which starts it; lines of JSON come in and go out)
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch

from fovcache.child_process import end_child, private_pipes
from fovcache.errors import DamageError, EnvironmentFailure, FovcacheError
from fovcache.typed_json import revive

from ..config import AblationConfig
from .batches import Batch
from .events import event_message
from .memory import Room
from .task import Task, open_task
from .work import Work

_FIRST_TO_GO = "500"
"""Where memory runs out, Linux ends this process and not the one that writes results down."""


def main() -> None:
    """Do what is asked, one thing after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks decides what a Ctrl-C means
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    requests, pipe = private_pipes()
    answers = Answers(pipe)
    logging.getLogger("fovcache").addHandler(_Told(answers))
    logging.getLogger("py.warnings").addHandler(_Told(answers))
    logging.captureWarnings(capture=True)
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, asked), daemon=True).start()
    answers.send({"ready": True})
    work: Work | None = None
    while True:
        message = asked.get()
        try:
            if "open" in message:
                task, work = _opened(message["open"])
                answers.send({"opened": task.digest})
            else:
                assert work is not None, "a task is opened before its batches are run"
                for event in work.run(revive(Batch, message["run"])):
                    answers.send(event_message(event))
                answers.send({"finished": True})
        except FovcacheError as error:
            answers.send({"error": error_document(error)})


class Answers:
    """What is told. Several threads may."""

    def __init__(self, pipe: BufferedIOBase) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """One line; whoever asked being gone ends this process."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                self._pipe.write(line)
                self._pipe.flush()
        except BrokenPipeError:
            end_child()


def opening(task: Task, room: Room, folder: Path) -> dict[str, Any]:
    """The message that makes another process open the same task."""
    config = asdict(replace(task.config, arms={}))
    return {
        "config": {**config, "folder": None},
        "config_folder": str(task.config.folder.absolute()),
        "folder": str(folder.absolute()),
        "device": str(room.device),
        "num_workers": room.num_workers,
        "kept_bytes": room.kept_bytes,
        "num_threads": torch.get_num_threads(),
        "level": logging.getLogger("fovcache").getEffectiveLevel(),
    }


def _opened(message: Mapping[str, Any]) -> tuple[Task, Work]:
    logging.getLogger("fovcache").setLevel(message["level"])
    torch.set_num_threads(message["num_threads"])
    fields = {name: value for name, value in message["config"].items() if name != "folder"}
    config = replace(revive(AblationConfig, fields), folder=Path(message["config_folder"]))
    task = open_task(config)
    room = Room(
        device=torch.device(message["device"]), num_workers=message["num_workers"], kept_bytes=message["kept_bytes"]
    )
    return task, Work(task, room, Path(message["folder"]))


def error_document(error: FovcacheError) -> dict[str, Any]:
    """What goes on in the process that asked."""
    kinds = (DamageError, EnvironmentFailure)
    kind = next((kind.__name__ for kind in kinds if isinstance(error, kind)), "UsageError")
    return {"kind": kind, "text": str(error), "errno": getattr(error, "errno", None)}


class _Told(logging.Handler):
    """Tells what is logged here to who asks, whose handlers know where it goes."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        self._answers.send({"log": [record.name, record.levelno, record.getMessage()]})


def _listen(requests: BufferedIOBase, asked: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Takes requests in, whatever is being computed, and so knows when nobody asks any more."""
    try:
        for line in requests:
            asked.put(json.loads(line))
    finally:
        end_child()


if __name__ == "__main__":
    main()
