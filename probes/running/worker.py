"""A process that runs cells of ablations, until its standard input closes or it is killed.

python -m fovcache.probes.running.worker      (see isolate.py, which starts it; lines of JSON come in and go out)
"""

from __future__ import annotations

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
from fovcache.errors import FovcacheError
from fovcache.typed_json import revive

from ..config import AblationConfig
from .answers import Answers, Told, error_document, first_to_go
from .batches import Batch
from .events import event_message
from .memory import Room
from .task import Task, open_task
from .work import Work


def main() -> None:
    """Do what is asked, one thing after another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks decides what a Ctrl-C means
    first_to_go()
    requests, pipe = private_pipes()
    answers = Answers(pipe)
    logging.getLogger("fovcache").addHandler(Told(answers))
    logging.getLogger("py.warnings").addHandler(Told(answers))
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


def _listen(requests: BufferedIOBase, asked: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Takes requests in, whatever is being computed, and so knows when nobody asks any more."""
    try:
        for line in requests:
            asked.put(json.loads(line))
    finally:
        end_child()


if __name__ == "__main__":
    main()
