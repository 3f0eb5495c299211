"""A process that decodes what it is sent, until its standard input closes or it is killed.

python -m fovcache.decode.worker MEMORY_BYTES CPU_S      (see isolate.py, which starts it)
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType

import numpy as np

from ..child_process import end_child, private_pipes
from ..errors import EnvironmentFailure, FovcacheError, SampleError
from .clip import decoder, still_clip
from .messages import Job, error_document, receive, send, send_outcomes
from .sampling import Sampling, Window
from .stills import decode_stills
from .video import ClipOrError

STILLS = "pillow"
"""The backend of still images."""


def main() -> None:
    """Decode one job after another."""
    memory_bytes, cpu_s = (int(argument) for argument in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks decides what a Ctrl-C means
    requests, answers = private_pipes()
    sys.excepthook = _tell(answers)
    import av  # noqa: F401 - now, and not in the first job's time

    _limit_memory(memory_bytes)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(requests, jobs, memory_bytes), daemon=True).start()
    send(answers, {"ready": True})
    while True:
        job = jobs.get()
        _limit_cpu(cpu_s)
        try:
            send_outcomes(answers, decode_job(job))
        except SampleError as error:
            send(answers, {"error": error_document(error)})
        except FovcacheError as error:
            send(answers, {"refusal": str(error), "is_environment": isinstance(error, EnvironmentFailure)})
        except MemoryError:
            reason = f"it takes more than the limit of {memory_bytes >> 20} MiB of memory to decode"
            send(answers, {"error": error_document(SampleError("decode", reason, permanent=True))})


def decode_job(job: Job) -> list[list[ClipOrError]]:
    """What the backend decodes, as it does in a build: videos, or stills."""
    if job.backend != STILLS:
        decode = decoder(job.backend)
        return decode(job.source, job.sampling, job.windows, job.geometries, limits=job.limits)
    stills = decode_stills(_bytes_of(job), job.geometries)
    return [[_still_clip(pixels, job.sampling, window) for window in job.windows] for pixels in stills]


def _still_clip(pixels: np.ndarray | SampleError, sampling: Sampling, window: Window) -> ClipOrError:
    try:
        return pixels if isinstance(pixels, SampleError) else still_clip(pixels, sampling, window)
    except SampleError as error:
        return error


def _bytes_of(job: Job) -> bytes:
    source = job.source
    if not source.path:
        return source.data
    try:
        with Path(source.path).open("rb") as file:
            if source.offset:
                file.seek(source.offset)
            return file.read(-1 if source.size is None else source.size)
    except OSError as error:
        raise SampleError("fetch", f"cannot read {source.path}: {error.strerror or error}", permanent=False) from error


def _take(requests: BufferedIOBase, jobs: queue.SimpleQueue[Job], max_bytes: int) -> None:
    """Takes jobs in, whatever is being decoded, and so knows when nobody asks any more."""
    try:
        while True:
            jobs.put(Job.of_message(*receive(requests, max_bytes)))
    finally:
        end_child()


def _tell(answers: BufferedIOBase) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def tell(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        send(answers, {"crash": f"{kind.__name__}: {error}"})

    return tell


def _limit_memory(num_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "darwin":  # which refuses it
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def _limit_cpu(seconds: int) -> None:
    """For this job alone: who asks may be gone and not kill us when it takes too long."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, hard))


if __name__ == "__main__":
    main()
