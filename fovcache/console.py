"""What both commands share: output for people and for programs, errors as one line, exit statuses."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from .errors import FovcacheError, environment_failure

if TYPE_CHECKING:
    from rich.console import Console
    from typer import Typer

    from .builder.progress import Progress

STATUS_OK, STATUS_SOME_FAILED, STATUS_USAGE, STATUS_ENVIRONMENT = 0, 1, 2, 3
STATUS_INTERRUPTED = 130
STATUS_TERMINATED = 143

_WIDTH_IN_A_PIPE = 200
THREAD_PREFIX = "fovcache-"
"""How the threads of pipelines are named."""


class Output:
    """Tables to standard output for people, or JSON to a file or, for `-`, to standard output instead."""

    def __init__(self, json_path: str | None) -> None:
        self._json_path = json_path
        self.quiet = json_path == "-"
        if json_path is not None and not self.quiet:
            _check_can_be_written(Path(json_path))

    def console(self) -> Console:
        """Where people's output goes."""
        from rich.console import Console

        console = Console(quiet=self.quiet, highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console.width = _WIDTH_IN_A_PIPE
        return console

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; columns whose name starts with `>` are right-aligned."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        self.console().print(table)

    def line(self, text: str) -> None:
        """Print a line as it is."""
        self.console().print(text, markup=False)

    def json(self, document: Any) -> None:
        """Write a command's JSON where it was asked for."""
        if self._json_path is None:
            return
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if self._json_path == "-":
            sys.stdout.write(text)
            return
        try:
            Path(self._json_path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise environment_failure(error, f"write {self._json_path}") from error


def _check_can_be_written(path: Path) -> None:
    """Raise EnvironmentFailure now rather than after an hour of work."""
    code = 0
    if path.is_dir():
        code = errno.EISDIR
    elif not path.absolute().parent.is_dir():
        code = errno.ENOENT
    elif not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        code = errno.EACCES
    if code:
        raise environment_failure(OSError(code, os.strerror(code)), f"write {path}")


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A live bar on standard error with rate and time left; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """What the run says, which can know better; else by rate."""

        def render(self, task: Task) -> Text:
            left_s = task.fields["left_s"]
            if left_s is None:
                return super().render(task)
            minutes, seconds = divmod(round(left_s), 60)
            return Text(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}", style="progress.remaining")

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeLeft(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=None, rate="", note="", left_s=None)

        def show(progress: Progress) -> None:
            speed = bar.tasks[0].speed
            if progress.note:
                bar.update(task, note=progress.note)
            bar.update(
                task,
                description=progress.stage,
                completed=progress.done,
                total=progress.total or None,
                rate=f"{speed:.1f}/s" if speed else "",
                left_s=progress.left_s,
            )

        yield show


def set_up_logging(*, verbose: bool) -> None:
    """Warnings (with `verbose` also information) as single lines on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter())
    logger = logging.getLogger("fovcache")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").handlers = [handler]


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage().splitlines()[0]}"


class _Stopped(BaseException):
    """Somebody asked the command to end. Unwinds, so that leases and temporary files go; no user's code catches it.

    Where nothing is kept, a note that is added on the way says so in the place of the usual words.
    """


def run_command(app: Typer) -> None:
    """Run a command line; a signal to stop, or an error that is ours, becomes one line and its exit status."""
    from typer import BadParameter

    set_up_cpu()
    # The base of what the command line's parser raises; typer does not export it.
    usage_error = cast("type[Exception]", BadParameter.__bases__[0])
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells' background jobs have it
            signal.signal(number, _stop)
    try:
        status = app(standalone_mode=False)
    except usage_error as error:
        _fail_usage(error)
    except _Stopped as stopped:
        what, status = stopped.args
        kept = getattr(stopped, "__notes__", ["what is finished is kept, the same command goes on from there"])
        _fail(f"{what}; {'; '.join(kept)}", status)
    except FovcacheError as error:
        _fail(str(error), error.exit_status)
    except MemoryError:
        _fail("out of memory: choose a smaller --batch-size or fewer --workers", STATUS_ENVIRONMENT)
    except OSError as error:
        what = error.filename or "a file or standard output"
        _fail(str(environment_failure(error, f"use {what}")), STATUS_ENVIRONMENT)
    _leave(status or STATUS_OK)


def set_up_cpu() -> None:
    """Libraries' settings that count where encoders run on the CPU; before torch is loaded. The user's own come first.

    OpenMP's threads wait asleep, but for a moment: decoding takes cores meanwhile, and threads that spin until the one
    whose core it took is done were seen to slow a step down tenfold. Large tensors lie on huge pages: each is new
    memory, which the kernel clears page by page.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _leave(status: int) -> NoReturn:
    """End the process. A thread that is stuck in a decoder is not waited for, nor torn down beneath torch."""
    if any(thread.name.startswith(THREAD_PREFIX) for thread in threading.enumerate()):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        decoders = sys.modules.get(f"{__package__}.decode.ffmpeg_process")
        if decoders is not None:  # what is at work there would not end by itself
            decoders.end_running()
        os._exit(status)
    raise SystemExit(status)


def _fail_usage(error: Any) -> NoReturn:
    """One line for a command line that cannot be parsed; the help where there is nothing on it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        raise SystemExit(STATUS_USAGE)
    help_of = f"; `{error.ctx.command_path} --help` says more" if error.ctx else ""
    _fail(f"{error.format_message().rstrip('.')}{help_of}", STATUS_USAGE)


def _stop(number: int, frame: object) -> None:
    if number == signal.SIGINT:
        raise _Stopped("interrupted", STATUS_INTERRUPTED)
    raise _Stopped("terminated", STATUS_TERMINATED)


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.stderr.flush()
    _leave(status)


def human_bytes(size: float) -> str:
    """`1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
