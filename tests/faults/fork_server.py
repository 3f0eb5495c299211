"""Runs `fovcache` in forked children of one process that has imported everything, so that a hundred runs cost
a hundred runs and not a hundred imports of torch.

Reads orders as JSON lines and answers each with a number: `{"argv": […], "out": FILE, "err": FILE}` starts a command
and is answered with its process id, `{"wait": PID}` with its exit status (negative for a signal). `"program"` names a
file beside this one, imported before the fork, whose `main` is run in place of the command's. `"environ"` holds more
variables, `"file_size_limit"` the most bytes that a file may have. With `"events": FILE` the child counts its file
operations below `"watch"`, those after the first plan only if there is `"from_plan"`, and kills itself with SIGKILL
before the one numbered `"die_at"`, or stops with SIGSTOP before the first on a path that holds `"stop_before"`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fovcache import cli

_IMPORTED_BEFORE_THE_FORK = (
    "fovcache.builder.blocks",
    "fovcache.builder.run",
    "fovcache.extract.user_module",
    "fovcache.maintain.gc",
    "fovcache.maintain.repair",
    "PIL.PngImagePlugin",
    "rich.progress",
    "rich.table",
)
_FILE_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.utime", "sqlite3.connect"}


def serve() -> None:
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "argv" in order:
            if order.get("program", "sys") not in sys.modules:
                importlib.import_module(order["program"])
                gc.freeze()
            pid = os.fork()
            if pid == 0:
                _run(order)
            running.add(pid)
            answer = pid
        else:
            pid, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
            running -= {pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _run(order: dict[str, Any]) -> NoReturn:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for stream, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), stream)
    os.environ.update(order.get("environ", {}))
    if "file_size_limit" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size_limit"], order["file_size_limit"]))
    count = _count_events(order) if "events" in order else None
    sys.argv = [order.get("program", "fovcache"), *order["argv"]]
    status = 1
    try:
        (sys.modules[order["program"]] if "program" in order else cli).main()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if count is not None:
            Path(order["events"]).write_text(str(count()))
        os._exit(status)  # tearing down the interpreter would take longer than most runs


def _count_events(order: dict[str, Any]) -> Callable[[], int]:
    count = 0
    has_begun = "from_plan" not in order

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count, has_begun
        if event not in _FILE_EVENTS or not any(order["watch"] in str(argument) for argument in args):
            return
        has_begun = has_begun or (event == "os.rename" and "/plans/" in str(args[1]))
        if has_begun:
            count += 1
            if count == order.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            if "stop_before" in order and any(order["stop_before"] in str(argument) for argument in args):
                del order["stop_before"]
                os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(hook)
    return lambda: count


if __name__ == "__main__":
    for _name in _IMPORTED_BEFORE_THE_FORK:
        importlib.import_module(_name)
    gc.freeze()
    serve()
